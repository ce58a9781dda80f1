//! The process itself: the front door's settings, what it writes, how it ends.

use super::Checker;
use crate::config::model::{
    AuditSink, Choice, Drain, ForwardedFor, FrontDoor, Log, LogLevel, Shaping, StateFile,
};
use crate::config::raw;

impl Checker<'_> {
    /// What may be loosened or tightened about requests.
    pub(super) fn front_door(&mut self, written: Option<&raw::FrontDoor>) -> Option<FrontDoor> {
        let default = raw::FrontDoor::default();
        let written = written.unwrap_or(&default);
        if written.websocket == Some(Choice::Allow) {
            self.error("front_door.websocket", "`allow` is not supported yet");
        }
        let max = written.max_connections.unwrap_or(1024);
        if max == 0 {
            self.error("front_door.max_connections", "zero would refuse every caller");
        }
        Some(FrontDoor {
            browser_origin: written.browser_origin.unwrap_or(Choice::Refuse),
            forwarded_for: written.forwarded_for.unwrap_or(ForwardedFor::Strip),
            body_on_get: written.body_on_get.unwrap_or(Choice::Refuse),
            header_timeout: self.timeout(
                "front_door.header_timeout",
                written.header_timeout,
                10,
            )?,
            max_connections: usize::try_from(max).ok()?,
        })
    }

    /// What is written, how, and where.
    pub(super) fn log(&mut self, written: Option<&raw::Log>) -> Option<Log> {
        let default = raw::Log::default();
        let written = written.unwrap_or(&default);
        let audit = match written.audit.as_deref() {
            None | Some("stdout") => AuditSink::Stdout,
            Some("stderr") => AuditSink::Stderr,
            Some("none") => AuditSink::None,
            Some(text) => {
                let file = text.strip_prefix("file:");
                let Some(file) = self.file("log.audit", file) else {
                    self.error("log.audit", "expected stdout, stderr, none or file:PATH");
                    return None;
                };
                AuditSink::File(file)
            }
        };
        let level = written.level.unwrap_or(LogLevel::Info);
        Some(Log { level, format: written.format, audit })
    }

    /// One of the two would write over the other.
    pub(super) fn same_files(&mut self, log: Option<&Log>, shaping: Option<&Shaping>) {
        let audit = log.map(|log| &log.audit);
        let kept = shaping.map(|shaping| &shaping.state_file);
        if let (Some(AuditSink::File(audit)), Some(StateFile::At(kept))) = (audit, kept)
            && audit == kept
        {
            self.error("shaping.state_file", "audit lines go to this file; give one of its own");
        }
    }

    /// What happens between SIGTERM and the end.
    pub(super) fn drain(&mut self, written: Option<&raw::Drain>) -> Option<Drain> {
        let default = raw::Drain::default();
        let written = written.unwrap_or(&default);
        let min = self.span("drain.min", written.min, 0);
        let max = self.span("drain.max", written.max, 5);
        let (min, max) = (min?, max?);
        if min > max {
            self.error("drain", "`min` is longer than `max`");
        }
        Some(Drain { min, max })
    }
}
