//! When a credential's issuer is asked next, and for how long an answer is believed. Pure: `now` is
//! an argument, and nothing here waits.

use std::time::Duration;

use super::Life;
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::retry_after::RETRY_AFTER_MAX;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// The longest that a call waits for a token, and, while calls wait, the longest between two tries.
pub(super) const HOLD: Duration = Duration::from_secs(2);
/// Between two calls to one issuer for one credential, whatever callers do.
const CALL_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Between two refreshes that rejected tokens cause.
const FORCED_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// The life of a session token that says nothing of it.
pub(super) const SESSION_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A token whose age is not known is renewed before this long.
const UNSURE: Duration = Duration::from_secs(10);
/// The shortest life that is believed.
const LIFE_MIN: Duration = Duration::from_secs(1);
/// The longest life that is believed.
const LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The life of a token that says nothing of it.
pub(super) const LIFE_DEFAULT: Duration = Duration::from_secs(300);
/// The longest time before its expiry in which a token is not used any more.
const SKEW_MAX: Duration = Duration::from_secs(30);

/// Why an issuer is asked: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Initial,
    Scheduled,
    Rejected,
    Retry,
    Changed,
    /// An operator asked.
    Asked,
}

impl Reason {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Scheduled => "scheduled",
            Self::Rejected => "rejected",
            Self::Retry => "retry",
            Self::Changed => "changed",
            Self::Asked => "asked",
        }
    }
}

/// The next try of one credential, and what it has to keep its distance from.
#[derive(Debug)]
pub(super) struct Schedule {
    next: Option<(Moment, Reason)>,
    last_call: Option<Moment>,
    not_before: Option<Moment>,
    cooling_until: Option<Moment>,
    backoff: Backoff,
}

impl Schedule {
    /// The first try is due at once.
    pub(super) const fn new(now: Moment) -> Self {
        Self {
            next: Some((now, Reason::Initial)),
            last_call: None,
            not_before: None,
            cooling_until: None,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
        }
    }

    pub(super) const fn next(&self) -> Option<(Moment, Reason)> {
        self.next
    }

    pub(super) const fn not_before(&self) -> Option<Moment> {
        self.not_before
    }

    pub(super) const fn cooling_until(&self) -> Option<Moment> {
        self.cooling_until
    }

    /// A try begins.
    pub(super) fn begin(&mut self, now: Moment, reason: Reason) {
        self.next = None;
        self.last_call = Some(now);
        if reason == Reason::Rejected {
            self.cooling_until = Some(now + FORCED_INTERVAL_MIN);
        }
    }

    /// A try gave a token of this life (`None`: it does not expire, and is not asked for again).
    pub(super) fn succeed(&mut self, now: Moment, life: Option<Duration>) {
        self.backoff.reset();
        self.not_before = None;
        self.next = life.map(|life| {
            let at = now + refresh_after(life, fastrand::f64());
            (self.earliest(at, CALL_INTERVAL_MIN), Reason::Scheduled)
        });
    }

    /// What gave the last token said nothing of its life, which may be nearly over: a refresh is
    /// due in a moment.
    pub(super) fn hurry(&mut self, now: Moment) {
        let at = now + UNSURE.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.next = Some((self.earliest(at, CALL_INTERVAL_MIN), Reason::Scheduled));
    }

    /// A try is due, at once where it costs nobody a call.
    pub(super) fn bring_forward(&mut self, now: Moment, reason: Reason, asks_an_issuer: bool) {
        let interval = if asks_an_issuer { CALL_INTERVAL_MIN } else { Duration::ZERO };
        let at = self.earliest(now, interval);
        let at = self.next.map_or(at, |(next, _)| next.min(at));
        self.next = Some((at, reason));
    }

    /// A try failed.
    pub(super) fn fail(&mut self, now: Moment, retry_after: Option<Duration>) {
        self.not_before = retry_after.map(|wait| now + wait.min(RETRY_AFTER_MAX));
        let at = now + self.backoff.next_wait();
        self.next = Some((self.earliest(at, CALL_INTERVAL_MIN), Reason::Retry));
    }

    /// A call waits for a token: the next try comes 2 s after the last at the latest, unless the
    /// issuer asked for more.
    pub(super) fn hasten(&mut self, now: Moment) {
        let at = self.earliest(now, HOLD);
        if self.next.is_none_or(|(next, _)| at < next) {
            let reason = self.next.map_or(Reason::Retry, |(_, reason)| reason);
            self.next = Some((at, reason));
        }
    }

    /// The token in use was rejected: a refresh is due, unless the last such is too near or the
    /// issuer wants to be left alone.
    pub(super) fn force(&mut self, now: Moment) {
        let is_cooling = self.cooling_until.is_some_and(|until| now < until);
        let is_barred = self.not_before.is_some_and(|at| at > now + HOLD);
        if is_cooling || is_barred {
            return;
        }
        let at = self.earliest(now, CALL_INTERVAL_MIN);
        let at = self.next.map_or(at, |(next, _)| next.min(at));
        self.next = Some((at, Reason::Rejected));
    }

    /// `at`, but not sooner than `interval` after the last call, nor than the issuer asked.
    fn earliest(&self, at: Moment, interval: Duration) -> Moment {
        let spaced = self.last_call.map_or(at, |last| at.max(last + interval));
        self.not_before.map_or(spaced, |bar| spaced.max(bar))
    }
}

/// The point of a life at which a refresh is due: `draw` (0 to 1) picks between 50 % and 70 %.
fn refresh_after(life: Duration, draw: f64) -> Duration {
    life.mul_f64(0.5 + 0.2 * draw.clamp(0.0, 1.0))
}

/// For how long a token of this life is put into calls.
pub(super) fn last_use_after(life: Duration) -> Duration {
    life - SKEW_MAX.min(life / 10)
}

/// The life of a token that was issued just now: the issuer's `expires_in` (seconds), else what a JWT
/// says, else `default`. `unix_now` is the wall clock's, `None` where that is wrong.
pub(super) fn life(
    expires_in: Option<f64>,
    token: &[u8],
    unix_now: Option<u64>,
    default: Duration,
) -> Life {
    let said = expires_in.or_else(|| jwt_claims(token).and_then(|claims| claims.life(unix_now)));
    believed(said, default)
}

/// The life of a session token that was found in its store: what the `exp` of a JWT leaves of it,
/// else up to 24 h.
pub(super) fn session_life(token: &[u8], unix_now: Option<u64>) -> Life {
    let said = jwt_claims(token).and_then(|claims| Some(claims.left(unix_now?)));
    Life { is_of_unknown_age: said.is_none(), ..believed(said, SESSION_LIFE) }
}

fn believed(said: Option<f64>, default: Duration) -> Life {
    let Some(seconds) = said else {
        return Life { length: default, is_clamped: false, is_of_unknown_age: false };
    };
    let believed = seconds.clamp(LIFE_MIN.as_secs_f64(), LIFE_MAX.as_secs_f64());
    let length = Duration::try_from_secs_f64(believed).unwrap_or(default);
    Life { length, is_clamped: believed.total_cmp(&seconds).is_ne(), is_of_unknown_age: false }
}

/// What a JWT says of its time (RFC 7519 sections 4.1.4 and 4.1.6), unverified: it is only read to
/// know when to ask again.
#[derive(serde::Deserialize)]
struct Claims {
    exp: f64,
    iat: Option<f64>,
}

impl Claims {
    /// Seconds until it expires, by our wall clock.
    fn left(&self, unix_now: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double")]
        let now = unix_now as f64;
        self.exp - now
    }

    /// Seconds from its issue, which was just now. Two clocks may differ: one by which it has expired
    /// already is not believed, and by the issuer's own clock nothing is longer than it says.
    fn life(&self, unix_now: Option<u64>) -> Option<f64> {
        let by_ours = unix_now.map(|now| self.left(now)).filter(|left| *left > 0.0);
        let by_issuer = self.iat.map(|iat| self.exp - iat).filter(|life| *life > 0.0);
        match (by_ours, by_issuer) {
            (Some(ours), Some(issuer)) => Some(ours.min(issuer)),
            (ours, issuer) => ours.or(issuer),
        }
    }
}

fn jwt_claims(token: &[u8]) -> Option<Claims> {
    let payload = token.split(|byte| *byte == b'.').nth(1)?;
    let json = crate::secret::SecretValue::new(BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?);
    serde_json::from_slice(json.expose()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_life_is_believed_within_bounds() {
        let jwt = |exp: u64| {
            let claims = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"exp\": {exp}}}"));
            format!("e30.{claims}.c2ln")
        };
        let day = 24.0 * 3600.0;
        for (expires_in, token, want, is_clamped) in [
            (Some(3600.0), "opaque".to_owned(), 3600, false),
            (Some(1.0), "opaque".to_owned(), 1, false),
            (Some(0.0), "opaque".to_owned(), 1, true),
            (Some(-1.0), "opaque".to_owned(), 1, true),
            (Some(1e12), "opaque".to_owned(), 30 * 86_400, true),
            (Some(30.0 * day), "opaque".to_owned(), 30 * 86_400, false),
            (None, "opaque".to_owned(), 300, false),
            (None, "a.b.c".to_owned(), 300, false),
            (None, jwt(1_000_600), 600, false),
            (None, jwt(999_000), 300, false),
            (Some(60.0), jwt(1_000_600), 60, false),
        ] {
            let got = life(expires_in, token.as_bytes(), Some(1_000_000), LIFE_DEFAULT);
            let length = Duration::from_secs(want);
            let want = Life { length, is_clamped, is_of_unknown_age: false };
            assert_eq!(got, want, "{expires_in:?} {token}");
        }
    }

    /// An hour's token, by clocks that are ten minutes and an hour apart, and by one at 1970.
    #[test]
    fn a_clock_that_differs_from_the_issuers_shortens_a_life_and_never_ends_it() {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"iat": 1000000, "exp": 1003600}"#);
        let token = format!("e30.{claims}.c2ln");
        for (unix_now, want) in [
            (Some(1_000_000), 3600),
            (Some(1_000_600), 3000),
            (Some(999_400), 3600),
            (Some(1_003_599), 1),
            (Some(1_003_600), 3600),
            (Some(996_400), 3600),
            (None, 3600),
        ] {
            let got = life(None, token.as_bytes(), unix_now, LIFE_DEFAULT);
            assert_eq!((got.length.as_secs(), got.is_clamped), (want, false), "{unix_now:?}");
        }
        let stored = session_life(token.as_bytes(), None);
        assert!(stored.is_of_unknown_age, "a wrong clock knows of no age");
    }

    #[test]
    fn a_session_token_of_unknown_age_is_renewed_in_a_moment() {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"exp": 1000600}"#);
        let known = session_life(format!("e30.{claims}.c2ln").as_bytes(), Some(1_000_000));
        assert_eq!((known.length, known.is_of_unknown_age), (Duration::from_secs(600), false));
        let unknown = session_life(b"opaque", Some(1_000_000));
        assert_eq!((unknown.length, unknown.is_of_unknown_age), (SESSION_LIFE, true));
        let start = Moment::now();
        let mut schedule = Schedule::new(start);
        schedule.begin(start, Reason::Initial);
        schedule.succeed(start, Some(unknown.length));
        schedule.hurry(start);
        let (at, reason) = schedule.next().unwrap();
        assert!(at >= start + UNSURE / 2 && at <= start + UNSURE && reason == Reason::Scheduled);
    }

    #[test]
    fn a_changed_secret_is_tried_at_once_where_that_costs_nobody_a_call() {
        let start = Moment::now();
        for (asks_an_issuer, want) in [(true, start + SECOND), (false, start)] {
            let mut schedule = Schedule::new(start);
            schedule.begin(start, Reason::Initial);
            schedule.succeed(start, Some(SECOND * 3600));
            schedule.bring_forward(start, Reason::Changed, asks_an_issuer);
            assert_eq!(schedule.next(), Some((want, Reason::Changed)));
        }
    }

    #[test]
    fn a_token_is_renewed_well_before_its_last_use() {
        for seconds in [1, 10, 300, 86_400] {
            let life = Duration::from_secs(seconds);
            assert_eq!(refresh_after(life, 0.0), life.mul_f64(0.5));
            assert_eq!(refresh_after(life, 1.0), life.mul_f64(0.7));
            assert!(refresh_after(life, 1.0) < last_use_after(life));
        }
        assert_eq!(last_use_after(Duration::from_secs(100)), Duration::from_secs(90));
        assert_eq!(last_use_after(Duration::from_secs(3600)), Duration::from_secs(3570));
    }

    #[test]
    fn an_issuer_is_asked_at_most_once_a_second_and_never_before_it_wants_to() {
        let start = Moment::now();
        let mut schedule = Schedule::new(start);
        schedule.begin(start, Reason::Initial);
        schedule.fail(start, None);
        assert!(schedule.next().unwrap().0 >= start + SECOND);
        schedule.hasten(start);
        assert!(schedule.next().unwrap().0 <= start + HOLD);
        schedule.fail(start, Some(Duration::from_secs(120)));
        let bar = start + Duration::from_secs(120);
        for _ in 0..5 {
            schedule.hasten(start);
            schedule.force(start);
            assert!(schedule.next().unwrap().0 >= bar);
        }
        schedule.fail(start, Some(Duration::from_secs(1_000_000)));
        assert_eq!(schedule.next().unwrap().0, start + RETRY_AFTER_MAX);
    }

    #[test]
    fn a_rejection_forces_one_refresh_and_then_none_for_ten_seconds() {
        let start = Moment::now();
        let mut schedule = Schedule::new(start);
        schedule.begin(start, Reason::Initial);
        schedule.succeed(start, None);
        assert_eq!(schedule.next(), None);
        schedule.force(start + SECOND * 5);
        assert_eq!(schedule.next(), Some((start + SECOND * 5, Reason::Rejected)));
        schedule.begin(start + SECOND * 5, Reason::Rejected);
        schedule.succeed(start + SECOND * 5, None);
        schedule.force(start + SECOND * 14);
        assert_eq!(schedule.next(), None);
        schedule.force(start + SECOND * 15);
        assert_eq!(schedule.next(), Some((start + SECOND * 15, Reason::Rejected)));
    }
}
