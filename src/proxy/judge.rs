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
    /// It is no answer that may be handed over.
    Invalid,
}

/// What the verdict depends on beside the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    /// Whether the call was already sent again after a 401.
    pub(super) replayed: bool,
    /// Whether the whole body is at hand and the policy allows to send it again.
    pub(super) replayable: bool,
}

/// Judges the head of an answer.
pub(super) const fn judge(status: StatusCode, attempt: Attempt) -> Verdict {
    match status {
        // Nobody asked for another protocol: the front door lets no upgrade pass.
        StatusCode::SWITCHING_PROTOCOLS => Verdict::Invalid,
        StatusCode::UNAUTHORIZED if !attempt.replayed && attempt.replayable => Verdict::Refresh,
        StatusCode::UNAUTHORIZED => Verdict::PassAndRefresh,
        _ => Verdict::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_401_is_answered_with_a_newer_token_once_and_only_if_the_call_can_be_sent_again() {
        let fresh = Attempt { replayed: false, replayable: true };
        for (status, attempt, want) in [
            (200, fresh, Verdict::Pass),
            (401, fresh, Verdict::Refresh),
            (401, Attempt { replayed: true, ..fresh }, Verdict::PassAndRefresh),
            (401, Attempt { replayable: false, ..fresh }, Verdict::PassAndRefresh),
            (403, fresh, Verdict::Pass),
            (429, fresh, Verdict::Pass),
            (503, fresh, Verdict::Pass),
            (101, fresh, Verdict::Invalid),
        ] {
            assert_eq!(judge(StatusCode::from_u16(status).unwrap(), attempt), want, "{status}");
        }
    }
}
