//! Faults on demand: what goes wrong, where, and how often.

use serde::Deserialize;

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// `/oauth/token` and `/auth/**`.
    Token,
    /// Everything else but the control surface.
    Api,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The answer comes so many milliseconds later (at most a minute), or once faults are forgotten.
    LatencyMs(u64),
    /// This status, with a problem as its body; `retry_after` as it is to be sent.
    Status {
        /// 400 to 599; anything else is a 500.
        code: u16,
        /// The header's value.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// The connection closes without an answer, and nothing is done.
    Reset,
    /// All is done as asked, then the connection closes without an answer.
    LoseAnswer,
    /// All is done as asked, and the answer comes so many milliseconds later (at most a minute), or
    /// once faults are forgotten.
    LateAnswerMs(u64),
    /// Ten bytes of a thousand promised, then the connection closes.
    Truncate,
    /// A hundred bytes, `bytes` each `every_ms`.
    Slow {
        /// From 1.
        bytes: u16,
        /// Milliseconds, at most a minute.
        every_ms: u64,
    },
    /// 200 with a page of HTML.
    Html,
    /// A token answer without a token.
    NoToken,
    /// A token answer whose `token_type` is not `Bearer`.
    NotBearer,
    /// A token answer whose `expires_in` is this value, whatever it is; `null`: absent.
    ExpiresIn(serde_json::Value),
    /// A token with a line break in it.
    LineBreakInToken,
    /// 5 MB of JSON.
    Huge,
    /// 302 to this address.
    Redirect(String),
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Where it strikes.
    pub scope: Scope,
    /// What goes wrong.
    pub effect: Effect,
    /// How many times; without it, until the reset.
    #[serde(default)]
    pub count: Option<u32>,
    /// The chance of each request, 0 to 1; without it, each.
    #[serde(default)]
    pub probability: Option<f64>,
}

impl Fault {
    /// `effect` on the next `count` requests of `scope`.
    #[must_use]
    pub const fn times(scope: Scope, effect: Effect, count: u32) -> Self {
        Self { scope, effect, count: Some(count), probability: None }
    }
}

/// Takes the first fault that strikes a request of `scope`; a used-up one leaves the list.
pub(super) fn strike(faults: &mut Vec<Fault>, scope: Scope) -> Option<Effect> {
    faults.retain(|fault| fault.count != Some(0));
    let fault = faults.iter_mut().find(|fault| {
        fault.scope == scope && fault.probability.is_none_or(|chance| fastrand::f64() < chance)
    })?;
    fault.count = fault.count.map(|left| left.saturating_sub(1));
    Some(fault.effect.clone())
}
