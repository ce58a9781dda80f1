//! The demo's last part: a quota is asked for twice what it holds, and DataPulse has nothing to
//! refuse.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Client;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::{Failure, Stage, say};
use crate::admin::Report;
use crate::cli::status;
use crate::emulator::{Kind, Limit, Rate};
use crate::proxy::reject::ERROR_HEADER;
use crate::tls::{self, Roots};

/// DataPulse's Starter plan, calls a minute.
pub(super) const LIMIT: u32 = 100;
/// Between two calls: twice the plan's rate.
const PACE: Duration = Duration::from_millis(300);
/// More than any wait for a turn.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two lines, without a terminal.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Calls that the app made.
    pub(super) asked: u64,
    /// Those that DataPulse answered.
    pub(super) answered: u64,
    /// Those that the sidecar refused on arrival, with `Retry-After`.
    pub(super) refused: u64,
    /// Those that ended in any other way.
    pub(super) failed: u64,
    /// Answers 429 of the emulator's.
    pub(super) throttled: u64,
    /// The longest that an answered call took.
    pub(super) longest: Duration,
    /// The most that the quota was used, as a part of it.
    pub(super) used_max: f64,
    /// For how long calls were made.
    pub(super) length: Duration,
}

/// How one call ended.
#[derive(Debug, Clone, Copy)]
enum Ended {
    Answered(Duration),
    Refused,
    Failed,
}

/// Asks for twice the quota for so long, and shows how full it is.
pub(super) async fn drive(stage: &Stage, length: Duration) -> Result<Outcome, Failure> {
    let client = tls::http_client(&Roots::none()).map_err(|error| Failure::from_error(&error))?;
    let rate = Rate { limit: LIMIT, window: Duration::from_secs(60) };
    stage.control.set_limit(Some(Limit { kind: Kind::SlidingLog, rate }));
    let url = format!("http://{}/v1/datasets", stage.small);
    let bar = bar();
    let mut outcome = Outcome { length, ..Outcome::default() };
    let (mut calls, mut told_at) = (JoinSet::new(), Instant::now());
    let (mut tick, began) = (interval(PACE), Instant::now());
    while began.elapsed() < length {
        tick.tick().await;
        outcome.asked += 1;
        calls.spawn(call(client.clone(), url.clone()));
        while let Some(ended) = calls.try_join_next() {
            outcome.note(ended.unwrap_or(Ended::Failed));
        }
        outcome.look(stage, &bar, calls.len()).await;
        if bar.is_hidden() && told_at.elapsed() >= TELL_EVERY {
            say(&format!("quota {:.0} % used; {}", outcome.used_max * 100.0, bar.message()));
            told_at = Instant::now();
        }
    }
    while let Some(ended) = calls.join_next().await {
        outcome.note(ended.unwrap_or(Ended::Failed));
        outcome.look(stage, &bar, calls.len()).await;
    }
    bar.finish_and_clear();
    stage.control.set_limit(None);
    Ok(outcome)
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(u64::from(LIMIT));
    let template = "{elapsed:>4} [{bar:30}] {pos} of {len} sent in a minute  {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

async fn call(client: Client, url: String) -> Ended {
    let began = Instant::now();
    let call = client.get(url).timeout(PATIENCE);
    let Ok(answer) = call.send().await else { return Ended::Failed };
    if answer.status().is_success() {
        Ended::Answered(began.elapsed())
    } else if answer.headers().contains_key(ERROR_HEADER) {
        Ended::Refused
    } else {
        Ended::Failed
    }
}

impl Outcome {
    fn note(&mut self, ended: Ended) {
        match ended {
            Ended::Answered(took) => {
                self.answered += 1;
                self.longest = self.longest.max(took);
            }
            Ended::Refused => self.refused += 1,
            Ended::Failed => self.failed += 1,
        }
    }

    /// Shows what the sidecar itself says of the quota.
    async fn look(&mut self, stage: &Stage, bar: &ProgressBar, waiting: usize) {
        self.throttled = stage.control.counters().by_status.get(&429).copied().unwrap_or(0);
        let status = status::fetch(&format!("http://{}", stage.admin)).await;
        let report = status.ok().and_then(|text| serde_json::from_str::<Report>(&text).ok());
        if let Some(quota) = report.as_ref().and_then(|report| report.quotas.first()) {
            self.used_max = self.used_max.max(quota.used_ratio);
            bar.set_position(quota.used);
        }
        bar.set_message(format!(
            "{} calls, {waiting} waiting, {} refused, 429 by DataPulse: {}",
            self.asked, self.refused, self.throttled
        ));
    }

    /// Whether the quota was kept, and used as far as there was time.
    pub(super) fn is_good(&self) -> bool {
        let minute = self.length >= Duration::from_secs(60);
        self.throttled == 0
            && self.failed == 0
            && self.answered > 0
            && (!minute || self.used_max >= 0.9)
    }

    /// Rows of the report.
    pub(super) fn rows(&self) -> [(&'static str, String); 6] {
        [
            (
                "a quota of 100 a minute: calls made",
                format!("{} in {} s", self.asked, self.length.as_secs()),
            ),
            ("its use at most", format!("{:.0} %", self.used_max * 100.0)),
            ("429 by DataPulse", self.throttled.to_string()),
            ("answered", self.answered.to_string()),
            ("longest wait for a turn", format!("{:.1} s", self.longest.as_secs_f64())),
            ("refused at once, with Retry-After", self.refused.to_string()),
        ]
    }
}
