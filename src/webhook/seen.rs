//! Which deliveries the app has answered with 2xx: a repeat of one is not delivered again. Pure: `now`
//! is an argument.
//!
//! This is no protection against replay. It is forgotten with the process, after a time and beyond a
//! number, and other replicas do not know of it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::digest;
use tokio::time::Instant;

use super::signature::Signature;

/// Tells deliveries apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mark([u8; 32]);

impl Mark {
    /// `id`: the header that names the delivery. The signature does not cover it, so it is never
    /// trusted alone: else whoever has one signed delivery could send it under the name of a later
    /// one, which would be lost.
    pub(super) fn new(id: &[u8], signature: Signature) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(signature.as_bytes());
        hash.update(id);
        let mut mark = [0; 32];
        mark.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(mark)
    }
}

/// Remembers the last deliveries, as many as it may and for as long as it may.
#[derive(Debug)]
pub(super) struct Seen {
    entries_max: usize,
    keep: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    delivered: HashSet<Mark>,
    /// The same, with their times, oldest first.
    order: VecDeque<(Instant, Mark)>,
    /// With the app now; at most one for each connection.
    in_delivery: HashSet<Mark>,
}

/// What is known of a delivery that came in.
#[derive(Debug)]
pub(super) enum Sight {
    /// Not seen before: deliver it, and say when the app took it.
    New(InDelivery),
    /// The app has answered it with 2xx.
    Repeat,
    /// It is with the app at this moment.
    InDelivery,
}

/// A delivery on its way to the app; dropped without [`Self::taken`], it was not delivered.
#[derive(Debug)]
pub(super) struct InDelivery {
    seen: Arc<Seen>,
    mark: Mark,
}

impl Seen {
    pub(super) fn new(entries_max: usize, keep: Duration) -> Arc<Self> {
        Arc::new(Self { entries_max, keep, inner: Mutex::default() })
    }

    /// A delivery came in.
    pub(super) fn sight(self: &Arc<Self>, mark: Mark, now: Instant) -> Sight {
        let mut inner = self.inner.lock();
        inner.forget(now, self.keep, self.entries_max);
        if inner.delivered.contains(&mark) {
            return Sight::Repeat;
        }
        if !inner.in_delivery.insert(mark) {
            return Sight::InDelivery;
        }
        Sight::New(InDelivery { seen: Arc::clone(self), mark })
    }
}

impl Inner {
    /// Lets go of what is too old, and of the oldest where there are too many.
    fn forget(&mut self, now: Instant, keep: Duration, entries_max: usize) {
        while let Some((at, mark)) = self.order.front() {
            let is_old = now.saturating_duration_since(*at) >= keep;
            if !is_old && self.order.len() <= entries_max {
                return;
            }
            self.delivered.remove(mark);
            self.order.pop_front();
        }
    }
}

impl InDelivery {
    /// The app answered with 2xx.
    pub(super) fn taken(self, now: Instant) {
        let mut inner = self.seen.inner.lock();
        if inner.delivered.insert(self.mark) {
            inner.order.push_back((now, self.mark));
        }
        inner.forget(now, self.seen.keep, self.seen.entries_max);
    }
}

impl Drop for InDelivery {
    fn drop(&mut self) {
        self.seen.inner.lock().in_delivery.remove(&self.mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn mark(id: &str) -> Mark {
        let digits = "0".repeat(64);
        Mark::new(id.as_bytes(), Signature::parse(format!("sha256={digits}").as_bytes()).unwrap())
    }

    fn word(sight: &Sight) -> &'static str {
        match sight {
            Sight::New(_) => "new",
            Sight::Repeat => "repeat",
            Sight::InDelivery => "in delivery",
        }
    }

    #[track_caller]
    fn check(seen: &Arc<Seen>, id: &str, now: Instant, want: &str) {
        assert_eq!(word(&seen.sight(mark(id), now)), want, "{id}");
    }

    fn take(seen: &Arc<Seen>, id: &str, now: Instant) {
        let Sight::New(one) = seen.sight(mark(id), now) else { panic!("{id} is not new") };
        one.taken(now);
    }

    #[test]
    fn only_what_the_app_took_is_a_repeat() {
        let seen = Seen::new(10, HOUR);
        let now = Instant::now();
        let one = seen.sight(mark("a"), now);
        check(&seen, "a", now, "in delivery");
        check(&seen, "b", now, "new");
        drop(one);
        check(&seen, "a", now, "new");
        take(&seen, "a", now);
        check(&seen, "a", now, "repeat");
    }

    #[test]
    fn what_is_old_or_too_much_is_forgotten_the_oldest_first() {
        let seen = Seen::new(3, HOUR);
        let start = Instant::now();
        for (minute, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
            take(&seen, id, start + Duration::from_secs(60 * minute as u64));
        }
        check(&seen, "a", start, "new");
        check(&seen, "b", start, "repeat");
        let later = start + HOUR + Duration::from_secs(60);
        check(&seen, "b", later, "new");
        check(&seen, "c", later, "repeat");
        check(&seen, "d", later + HOUR, "new");
        let inner = seen.inner.lock();
        assert!(inner.delivered.is_empty() && inner.order.is_empty());
        assert!(inner.in_delivery.is_empty());
    }

    #[test]
    fn a_delivery_under_another_ones_name_is_not_that_one() {
        let signature = |digit: &str| {
            Signature::parse(format!("sha256={}", digit.repeat(64)).as_bytes()).unwrap()
        };
        assert_ne!(Mark::new(b"7", signature("a")), Mark::new(b"7", signature("b")));
        assert_ne!(Mark::new(b"7", signature("a")), Mark::new(b"8", signature("a")));
        assert_eq!(Mark::new(b"", signature("a")), Mark::new(b"", signature("A")));
    }
}
