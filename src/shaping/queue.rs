//! Whose turn it is: a line for each tenant, deficit round robin between them by weight. Pure.
//!
//! Every line is bounded: alone a tenant may fill the queue, while others wait only its share of
//! it. A ticket that comes back (a request that is sent again) stands where it stood before.

use std::collections::{BTreeMap, VecDeque};

/// When a request arrived, against others of its quota.
pub type Ticket = u64;

/// The requests that wait under one quota.
#[derive(Debug)]
pub struct FairQueue<T> {
    lines: Vec<Line<T>>,
    /// The lines in which somebody waits; the first one's turn it is.
    round: VecDeque<usize>,
    length: usize,
    length_max: usize,
}

#[derive(Debug)]
struct Line<T> {
    weight: u32,
    /// Turns that are left in this round.
    turns: u32,
    waiting: BTreeMap<Ticket, T>,
}

/// There is no place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The tenant has its share of the queue, and others wait too.
    Share,
    /// The queue as a whole.
    Queue,
}

impl<T> FairQueue<T> {
    /// A line for each weight (0 is read as 1), `length_max` places.
    #[must_use]
    pub fn new(weights: &[u32], length_max: usize) -> Self {
        let line =
            |weight: &u32| Line { weight: (*weight).max(1), turns: 0, waiting: BTreeMap::new() };
        let lines = weights.iter().map(line).collect();
        Self { lines, round: VecDeque::with_capacity(weights.len()), length: 0, length_max }
    }

    /// Whether there is a place for one more of this tenant.
    ///
    /// # Errors
    /// [`Full`]: whose fault it is.
    pub fn check(&self, tenant: usize) -> Result<(), Full> {
        let Some(line) = self.lines.get(tenant) else { return Err(Full::Queue) };
        let own = line.waiting.len();
        if own == self.length {
            return if own < self.length_max { Ok(()) } else { Err(Full::Queue) };
        }
        if self.length >= self.length_max.saturating_mul(2) {
            return Err(Full::Queue);
        }
        if own >= self.share(tenant) { Err(Full::Share) } else { Ok(()) }
    }

    /// Whether the tenant has at least its share of the queue while others wait.
    #[must_use]
    pub fn is_over_share(&self, tenant: usize) -> bool {
        let own = self.waiting(tenant);
        let others = self.length - own;
        others > 0 && own.saturating_mul(self.round.len().max(1)) >= self.length
    }

    /// Puts a request in its tenant's line, where its ticket belongs.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn push(&mut self, tenant: usize, ticket: Ticket, waiter: T) -> Result<(), Full> {
        self.check(tenant)?;
        let Some(line) = self.lines.get_mut(tenant) else { return Err(Full::Queue) };
        if line.waiting.is_empty() {
            line.turns = line.weight;
            self.round.push_back(tenant);
        }
        if line.waiting.insert(ticket, waiter).is_none() {
            self.length += 1;
        }
        Ok(())
    }

    /// Whose turn it is.
    #[must_use]
    pub fn front(&self) -> Option<(Ticket, &T)> {
        let line = self.lines.get(*self.round.front()?)?;
        line.waiting.first_key_value().map(|(ticket, waiter)| (*ticket, waiter))
    }

    /// Takes the request out whose turn it is.
    pub fn pop(&mut self) -> Option<(Ticket, T)> {
        let tenant = *self.round.front()?;
        let line = self.lines.get_mut(tenant)?;
        let popped = line.waiting.pop_first()?;
        self.length -= 1;
        line.turns = line.turns.saturating_sub(1);
        if line.waiting.is_empty() {
            self.round.pop_front();
        } else if line.turns == 0 {
            line.turns = line.weight;
            self.round.rotate_left(1);
        }
        Some(popped)
    }

    /// Takes a request out that no longer waits.
    pub fn remove(&mut self, tenant: usize, ticket: Ticket) -> Option<T> {
        let line = self.lines.get_mut(tenant)?;
        let removed = line.waiting.remove(&ticket)?;
        self.length -= 1;
        if line.waiting.is_empty() {
            self.round.retain(|active| *active != tenant);
        }
        Some(removed)
    }

    /// How many leave before a request with this ticket, if nobody else comes.
    #[must_use]
    pub fn ahead(&self, tenant: usize, ticket: Ticket) -> u64 {
        let Some(line) = self.lines.get(tenant) else { return 0 };
        let own = line.waiting.range(..ticket).count() as u64;
        // In a round that has begun, some of the tenant's turns may be gone.
        let rounds = own / u64::from(line.weight) + 1 + u64::from(line.weight > 1);
        let others = self.round.iter().filter(|active| **active != tenant);
        let before = |other: &usize| {
            let other = self.lines.get(*other)?;
            Some((other.waiting.len() as u64).min(rounds.saturating_mul(u64::from(other.weight))))
        };
        own + others.filter_map(before).sum::<u64>()
    }

    /// Everybody who waits.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().flat_map(|line| line.waiting.values())
    }

    /// How many wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nobody waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn waiting(&self, tenant: usize) -> usize {
        self.lines.get(tenant).map_or(0, |line| line.waiting.len())
    }

    /// A tenant's part of the places while others wait; at least one.
    fn share(&self, tenant: usize) -> usize {
        let weight_of = |at: usize| self.lines.get(at).map_or(0, |line| u64::from(line.weight));
        let others = self.round.iter().filter(|active| **active != tenant);
        let own = weight_of(tenant);
        let all = own + others.map(|other| weight_of(*other)).sum::<u64>();
        let share = (self.length_max as u64).saturating_mul(own) / all.max(1);
        usize::try_from(share).unwrap_or(usize::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drained(queue: &mut FairQueue<usize>) -> Vec<usize> {
        std::iter::from_fn(|| queue.pop()).map(|(_, tenant)| tenant).collect()
    }

    #[test]
    fn tenants_of_equal_weight_take_turns_while_one_floods() {
        let mut queue = FairQueue::new(&[1, 1], 100);
        for ticket in 0..6 {
            queue.push(0, ticket, 0).unwrap();
        }
        queue.push(1, 6, 1).unwrap();
        queue.push(1, 7, 1).unwrap();
        assert_eq!(drained(&mut queue), [0, 1, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn turns_are_given_by_weight() {
        let mut queue = FairQueue::new(&[1, 3], 100);
        for ticket in 0..8 {
            queue.push(usize::from(ticket % 2 == 1), ticket, usize::from(ticket % 2 == 1)).unwrap();
        }
        assert_eq!(drained(&mut queue), [0, 1, 1, 1, 0, 1, 0, 0]);
    }

    #[test]
    fn alone_a_tenant_fills_the_queue_and_others_still_find_their_share() {
        let mut queue = FairQueue::new(&[1, 1], 10);
        for ticket in 0..10 {
            queue.push(0, ticket, ()).unwrap();
        }
        assert_eq!(queue.push(0, 10, ()), Err(Full::Queue));
        for ticket in 11..16 {
            queue.push(1, ticket, ()).unwrap();
        }
        assert_eq!(queue.push(1, 16, ()), Err(Full::Share));
        assert_eq!(queue.push(0, 17, ()), Err(Full::Share), "others wait");
        assert_eq!(queue.push(2, 18, ()), Err(Full::Queue), "no such tenant");
        assert!(queue.is_over_share(0));
        assert!(!queue.is_over_share(1));
    }

    #[test]
    fn a_ticket_that_comes_back_stands_where_it_stood() {
        let mut queue = FairQueue::new(&[1], 10);
        for ticket in 0..3 {
            queue.push(0, ticket, ()).unwrap();
        }
        assert_eq!(queue.pop(), Some((0, ())));
        queue.push(0, 0, ()).unwrap();
        assert_eq!(queue.front(), Some((0, &())));
        assert_eq!(queue.ahead(0, 0), 0);
        assert_eq!(queue.ahead(0, 2), 2);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Pop,
        Remove(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..3).prop_map(Step::Push),
            3 => Just(Step::Pop),
            1 => (0_usize..200).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn order_within_a_tenant_is_kept_and_nobody_is_lost(
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let mut queue = FairQueue::new(&[1, 2, 3], 30);
            let mut model: Vec<(usize, Ticket)> = Vec::new();
            for (ticket, step) in (0..).zip(steps) {
                match step {
                    Step::Push(tenant) => {
                        if queue.push(tenant, ticket, tenant).is_ok() {
                            model.push((tenant, ticket));
                        }
                    }
                    Step::Pop => {
                        let popped = queue.pop();
                        prop_assert_eq!(popped.is_some(), !model.is_empty());
                        if let Some((ticket, tenant)) = popped {
                            let first = model.iter().position(|(of, _)| *of == tenant);
                            prop_assert_eq!(model.remove(first.unwrap()), (tenant, ticket));
                        }
                    }
                    Step::Remove(at) if at < model.len() => {
                        let (tenant, ticket) = model.remove(at);
                        prop_assert_eq!(queue.remove(tenant, ticket), Some(tenant));
                    }
                    Step::Remove(_) => {}
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert!(queue.len() <= 60);
                prop_assert_eq!(queue.front().is_some(), !queue.is_empty());
            }
        }

        #[test]
        fn turns_follow_the_weights_within_one_request_a_round(
            weights in prop::collection::vec(1_u32..6, 2..5),
            rounds in 1_usize..10,
        ) {
            let mut queue = FairQueue::new(&weights, 10_000);
            let mut ticket = 0;
            for (tenant, _) in weights.iter().enumerate() {
                for _ in 0..100 {
                    queue.push(tenant, ticket, tenant).unwrap();
                    ticket += 1;
                }
            }
            let a_round: usize = weights.iter().map(|weight| *weight as usize).sum();
            let mut got = vec![0; weights.len()];
            for _ in 0..a_round * rounds {
                got[queue.pop().unwrap().1] += 1;
            }
            for (weight, got) in weights.iter().zip(got) {
                prop_assert_eq!(got, *weight as usize * rounds);
            }
        }

        #[test]
        fn nobody_is_told_too_few_before_it(
            weights in prop::collection::vec(1_u32..4, 1..4),
            pushes in prop::collection::vec((0_usize..4, any::<bool>()), 1..100),
        ) {
            let mut queue = FairQueue::new(&weights, 1000);
            for (ticket, (tenant, pop)) in (0..).zip(pushes) {
                queue.push(tenant % weights.len(), ticket, ()).unwrap();
                if pop {
                    queue.pop();
                }
            }
            let tenant = 0;
            let ahead = queue.ahead(tenant, 1000);
            queue.push(tenant, 1000, ()).unwrap();
            let before = std::iter::from_fn(|| queue.pop()).position(|(ticket, ())| ticket == 1000);
            prop_assert!(before.unwrap() as u64 <= ahead, "{before:?} > {ahead}");
        }
    }
}
