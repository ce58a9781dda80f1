//! The plans' limits, and how calls wait for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Checker;
use crate::config::collect::join;
use crate::config::model::{ColdStart, Quota, Shaping, StateFile};
use crate::config::raw;

/// Between our send and the upstream's count, unless the quota says otherwise.
const SPREAD: Duration = Duration::from_millis(250);
/// The longest wait for a turn, in seconds, unless `shaping.max_wait` says otherwise.
const WAIT_MAX_S: u64 = 25;
/// More waiting calls than a quota of any plan lets through in ten minutes.
const QUEUE_MAX: u64 = 100_000;
/// One call, or 0.333 of three.
const CALL_MIN: f64 = 0.99;
/// Where the schedules are kept, where the system offers no other place.
const STATE_DIRECTORY: &str = "/var/lib/datapulse-sidecar";
/// The file's name in such a place.
const STATE_FILE: &str = "schedule";

impl Checker<'_> {
    /// The plans' limits.
    pub(super) fn quotas(
        &mut self,
        quotas: Option<&BTreeMap<String, raw::Quota>>,
    ) -> Option<BTreeMap<String, Quota>> {
        let written = quotas.into_iter().flatten();
        let mut quotas = BTreeMap::new();
        for (name, quota) in written {
            let at = join("quotas", name);
            self.is_name(&at, name);
            if quota.burst == Some(0) {
                self.error(&join(&at, "burst"), "is at least 1");
            }
            let spread = quota.spread.or(Some(raw::Span(SPREAD)));
            let spread = self.span(&join(&at, "spread"), spread, 0);
            let tick = self.span(&join(&at, "tick"), quota.tick, 0);
            let limit = self.required(&at, "limit", quota.limit);
            self.is_a_call(&at, quota);
            if let (Some(raw::Limit(limit)), Some(spread), Some(tick)) = (limit, spread, tick) {
                let quota = Quota {
                    limit,
                    share: quota.share.map_or(1.0, |raw::Share(share)| share),
                    also: quota.also.and_then(|raw::Limit(also)| also),
                    spread,
                    tick,
                    burst: quota.burst,
                    cold_start: match quota.cold_start {
                        None | Some(raw::ColdStart::Auto) => ColdStart::Auto,
                        Some(raw::ColdStart::Paced) => ColdStart::Paced,
                        Some(raw::ColdStart::Cautious) => ColdStart::Cautious,
                    },
                };
                quotas.insert(name.clone(), quota);
            }
        }
        Some(quotas)
    }

    /// A process cannot keep to less than one call in a window, and several would send too many.
    fn is_a_call(&mut self, at: &str, quota: &raw::Quota) {
        let Some(raw::Share(share)) = quota.share else { return };
        for (key, limit) in [("limit", quota.limit), ("also", quota.also)] {
            let Some(raw::Limit(Some(rate))) = limit else { continue };
            if f64::from(rate.calls) * share < CALL_MIN {
                self.error(
                    &join(at, "share"),
                    format!(
                        "is less than one call of `{key}`: give a larger one, and let no more \
                         processes use the key than there are calls"
                    ),
                );
            }
        }
    }

    /// How calls wait for their turn.
    pub(super) fn shaping(&mut self, written: Option<&raw::Shaping>) -> Option<Shaping> {
        let default = raw::Shaping::default();
        let written = written.unwrap_or(&default);
        let queue = written.queue.and_then(|raw::AutoOrNumber(queue)| queue);
        match queue {
            Some(0) => self.error("shaping.queue", "zero would refuse every call that has to wait"),
            Some(more) if more > QUEUE_MAX => {
                self.error("shaping.queue", "more than 100000 calls; give 100000 or less, or auto");
            }
            _ => {}
        }
        if written.shadow == Some(true) {
            self.warn("shaping.shadow", "no quota is kept: calls are counted and not held back");
        }
        Some(Shaping {
            wait_max: self.timeout("shaping.max_wait", written.max_wait, WAIT_MAX_S)?,
            queue_max: queue.and_then(|queue| usize::try_from(queue).ok()),
            state_file: self.state_file(written.state_file.as_deref())?,
            shadow: written.shadow.unwrap_or(false),
        })
    }

    fn state_file(&mut self, written: Option<&str>) -> Option<StateFile> {
        match written {
            None | Some("auto") => {
                // systemd separates several by colons.
                let offered = (self.env)("STATE_DIRECTORY").unwrap_or_default();
                let offered = offered.split(':').find(|folder| Path::new(folder).is_absolute());
                let folders = offered.into_iter().chain([STATE_DIRECTORY]);
                Some(StateFile::Auto(
                    folders.map(|one| PathBuf::from(one).join(STATE_FILE)).collect(),
                ))
            }
            Some("none") => Some(StateFile::None),
            Some(path) if Path::new(path).is_absolute() => {
                self.file("shaping.state_file", Some(path)).map(StateFile::At)
            }
            Some(_) => {
                self.error(
                    "shaping.state_file",
                    "expected auto, none or a path that begins with /",
                );
                None
            }
        }
    }
}
