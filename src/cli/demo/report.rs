//! What the demo tells in the end.

use std::time::Duration;

use comfy_table::{Table, presets};

use super::quota::Outcome;
use super::traffic::{Count, Sample};
use super::{Stage, webhooks};

/// Fewer tokens would not show that they are replaced under the app.
const GENERATIONS_MIN: u64 = 5;

/// The outcome of the traffic.
#[derive(Debug)]
pub(super) struct Report {
    count: Count,
    took: Duration,
    generations: u64,
    anonymous: u64,
    /// How long a secret that was replaced in its store took to be in use.
    rotated: Option<Duration>,
    webhooks: Option<webhooks::Outcome>,
    quota: Option<Outcome>,
}

impl Report {
    pub(super) const fn new(
        count: Count,
        took: Duration,
        generations: u64,
        anonymous: u64,
    ) -> Self {
        Self { count, took, generations, anonymous, rotated: None, webhooks: None, quota: None }
    }

    /// With what came of a secret that was replaced.
    pub(super) fn with_rotation(self, rotated: Option<Duration>) -> Self {
        Self { rotated, ..self }
    }

    /// With what came of the webhooks.
    pub(super) fn with_webhooks(self, webhooks: webhooks::Outcome) -> Self {
        Self { webhooks: Some(webhooks), ..self }
    }

    /// With what came of the last part.
    pub(super) fn with_quota(self, quota: Outcome) -> Self {
        Self { quota: Some(quota), ..self }
    }

    /// Whether everything went as promised.
    pub(super) fn is_good(&self) -> bool {
        self.count.made > 0
            && self.count.failed == 0
            && self.count.with_credential == 0
            && self.anonymous == 0
            && self.generations >= GENERATIONS_MIN
            && self.webhooks.as_ref().is_none_or(webhooks::Outcome::is_good)
            && self.quota.as_ref().is_none_or(Outcome::is_good)
    }

    pub(super) fn text(&self, stage: &Stage) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        let added = |quantile| added(&self.count.samples, quantile);
        for (what, value) in [
            ("calls made", format!("{} in {:.0} s", self.count.made, self.took.as_secs_f64())),
            ("credentials sent by the app", self.count.with_credential.to_string()),
            ("calls without a credential at DataPulse", self.anonymous.to_string()),
            ("generations of token used", self.generations.to_string()),
            ("failed", self.count.failed.to_string()),
            ("latency added, p50", added(0.50)),
            ("latency added, p99", added(0.99)),
        ] {
            table.add_row([what.to_owned(), value]);
        }
        if let Some(took) = self.rotated {
            let took = format!("{:.1} s", took.as_secs_f64());
            table.add_row(["a new API key in Vault was in use after".to_owned(), took]);
        }
        let webhooks = self.webhooks.iter().flat_map(webhooks::Outcome::rows);
        for (what, value) in webhooks.chain(self.quota.iter().flat_map(Outcome::rows)) {
            table.add_row([what.to_owned(), value]);
        }
        let (port, admin, health) = (stage.sidecar.port(), stage.admin, stage.health);
        format!(
            "\n{table}{}\n\ntry:\n  curl http://localhost:{port}/v1/datasets\n  \
             curl http://localhost:{port}/v1/echo -H 'Authorization: Bearer mine'\n  \
             curl -i http://localhost:{port}/v1/users      (no credential for that: 403)\n  \
             datapulse-sidecar status --admin http://{admin}\n  \
             curl http://{health}/metrics\n  \
             a browser at http://{admin}/\n  \
             curl http://{}/_emulator/counters\n\
             your own app: set its DataPulse base URL to http://localhost:{port}",
            if cfg!(debug_assertions) {
                "\n(a debug build: a release build adds less)"
            } else {
                ""
            },
            stage.emulator
        )
    }
}

/// The difference of the two distributions at one quantile, in milliseconds.
fn added(samples: &[Sample], quantile: f64) -> String {
    let at = |mut times: Vec<Duration>| {
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below 20,000"
        )]
        let index = (last as f64 * quantile).round() as usize;
        times.get(index).copied()
    };
    let through = at(samples.iter().map(|sample| sample.through).collect());
    let direct = at(samples.iter().map(|sample| sample.direct).collect());
    match (through, direct) {
        (Some(through), Some(direct)) => {
            let millis = (through.as_secs_f64() - direct.as_secs_f64()) * 1e3;
            format!("{millis:.2} ms (of {:.2} ms)", through.as_secs_f64() * 1e3)
        }
        _ => "not measured".to_owned(),
    }
}
