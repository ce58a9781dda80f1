//! What an upstream's answer means for the call. Pure.

use http::StatusCode;

/// What to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Hand it to the caller.
    Pass,
    /// The token was rejected: renew it, and send the call once more with the newer one.
    Refresh,
    /// The token was rejected, and the call cannot be sent again: renew it, hand the answer over.
    PassAndRefresh,
    /// The upstream, or something before it, is unwell: send the call once more.
    Retry(Unwell),
    /// The quota is used up: it pauses, and the call is sent again if that fits its deadline.
    Pause,
    /// It is no answer that may be handed over.
    Invalid,
}

/// Answers that are tried once more, for calls that may arrive twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwell {
    /// 502.
    BadGateway,
    /// 503.
    Unavailable,
    /// 504.
    GatewayTimeout,
}

impl Unwell {
    /// A metric label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::BadGateway => "bad_gateway",
            Self::Unavailable => "unavailable",
            Self::GatewayTimeout => "gateway_timeout",
        }
    }
}

/// Whether a call may be sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Its body is not at hand, or the policy says no.
    Never,
    /// Only when the upstream has not acted on it.
    Unheard,
    /// In any case, because it does no harm when it arrives twice: its method is idempotent (RFC
    /// 9110 section 9.2.2), or it carries an `Idempotency-Key`.
    Harmless,
}

/// What the verdict depends on beside the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    /// Whether the call was already sent again after a 401.
    pub(super) replayed: bool,
    /// Whether it can be sent again at all.
    pub(super) again: Again,
    /// Whether the call was already sent again after an [`Unwell`] answer.
    pub(super) retried: bool,
}

/// Judges the head of an answer.
pub(super) const fn judge(status: StatusCode, attempt: Attempt) -> Verdict {
    match status {
        // Nobody asked for another protocol: the front door lets no upgrade pass.
        StatusCode::SWITCHING_PROTOCOLS => Verdict::Invalid,
        StatusCode::UNAUTHORIZED if attempt.replayed => Verdict::PassAndRefresh,
        StatusCode::UNAUTHORIZED if !matches!(attempt.again, Again::Never) => Verdict::Refresh,
        StatusCode::UNAUTHORIZED => Verdict::PassAndRefresh,
        StatusCode::TOO_MANY_REQUESTS => Verdict::Pause,
        _ if attempt.retried || !matches!(attempt.again, Again::Harmless) => Verdict::Pass,
        StatusCode::BAD_GATEWAY => Verdict::Retry(Unwell::BadGateway),
        StatusCode::SERVICE_UNAVAILABLE => Verdict::Retry(Unwell::Unavailable),
        StatusCode::GATEWAY_TIMEOUT => Verdict::Retry(Unwell::GatewayTimeout),
        _ => Verdict::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_401_and_an_unwell_upstream_are_met_once_and_only_if_the_call_can_be_sent_again() {
        let attempt = |again| Attempt { again, replayed: false, retried: false };
        let (never, unheard, harmless) =
            (attempt(Again::Never), attempt(Again::Unheard), attempt(Again::Harmless));
        for (status, attempt, want) in [
            (200, harmless, Verdict::Pass),
            (401, unheard, Verdict::Refresh),
            (401, harmless, Verdict::Refresh),
            (401, Attempt { replayed: true, ..harmless }, Verdict::PassAndRefresh),
            (401, never, Verdict::PassAndRefresh),
            (403, harmless, Verdict::Pass),
            (429, harmless, Verdict::Pause),
            (500, harmless, Verdict::Pass),
            (502, harmless, Verdict::Retry(Unwell::BadGateway)),
            (503, harmless, Verdict::Retry(Unwell::Unavailable)),
            (504, harmless, Verdict::Retry(Unwell::GatewayTimeout)),
            (503, Attempt { retried: true, ..harmless }, Verdict::Pass),
            (503, unheard, Verdict::Pass),
            (503, never, Verdict::Pass),
            (101, harmless, Verdict::Invalid),
        ] {
            assert_eq!(judge(StatusCode::from_u16(status).unwrap(), attempt), want, "{status}");
        }
    }
}
