//! Whose turn it is: a line for each tenant, deficit round robin between them by weight. Pure.
//!
//! Every line is bounded: alone a tenant may fill the queue, while others wait only its share of
//! it. A ticket that comes back (a request that is sent again) stands where it stood before.

use std::collections::{BTreeMap, VecDeque};

/// When a request arrived, against others: the same one in whichever queue it waits.
pub type Ticket = u64;

/// The requests that wait under one quota.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// By number, which is never used again.
    lines: BTreeMap<usize, Line<T>>,
    next_line: usize,
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
    /// Lines 0, 1 … for these weights, `length_max` places.
    #[must_use]
    pub fn new(weights: &[u32], length_max: usize) -> Self {
        let (lines, round) = (BTreeMap::new(), VecDeque::with_capacity(weights.len()));
        let mut queue = Self { lines, next_line: 0, round, length: 0, length_max };
        for weight in weights {
            queue.open(*weight);
        }
        queue
    }

    /// Opens a line of this weight (0 is read as 1), and gives its number.
    pub fn open(&mut self, weight: u32) -> usize {
        let line = self.next_line;
        self.next_line += 1;
        self.lines.insert(line, Line { weight: weight.max(1), turns: 0, waiting: BTreeMap::new() });
        line
    }

    /// Another weight, from the line's next round on.
    pub fn reweigh(&mut self, line: usize, weight: u32) {
        if let Some(line) = self.lines.get_mut(&line) {
            line.weight = weight.max(1);
            line.turns = line.turns.min(line.weight);
        }
    }

    /// Another number of places; who waits keeps its own.
    pub const fn resize(&mut self, length_max: usize) {
        self.length_max = length_max;
    }

    /// Closes a line in which nobody waits.
    pub fn close(&mut self, line: usize) {
        if self.waiting(line) == 0 {
            self.lines.remove(&line);
        }
    }

    /// Whether there is a place for one more in this line.
    ///
    /// # Errors
    /// [`Full`]: whose fault it is.
    pub fn check(&self, line: usize) -> Result<(), Full> {
        let Some(own) = self.lines.get(&line) else { return Err(Full::Queue) };
        let own = own.waiting.len();
        if own == self.length {
            return if own < self.length_max { Ok(()) } else { Err(Full::Queue) };
        }
        if self.length >= self.length_max.saturating_mul(2) {
            return Err(Full::Queue);
        }
        if own >= self.share(line) { Err(Full::Share) } else { Ok(()) }
    }

    /// Whether the line has at least its share of those who wait, while there are others.
    #[must_use]
    pub fn is_over_share(&self, line: usize) -> bool {
        let own = self.waiting(line);
        let (weight, all) = self.weights(line);
        own < self.length && own as u64 * all >= self.length as u64 * weight
    }

    /// Puts a request in a line, where its ticket belongs.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn push(&mut self, line: usize, ticket: Ticket, waiter: T) -> Result<(), Full> {
        self.check(line)?;
        self.put_back(line, ticket, waiter)
    }

    /// The same for one that had a place before, which nobody has taken from it.
    ///
    /// # Errors
    /// There is no such line.
    pub fn put_back(&mut self, line: usize, ticket: Ticket, waiter: T) -> Result<(), Full> {
        let Some(own) = self.lines.get_mut(&line) else { return Err(Full::Queue) };
        if own.waiting.is_empty() {
            own.turns = own.weight;
            self.round.push_back(line);
        }
        if own.waiting.insert(ticket, waiter).is_none() {
            self.length += 1;
        }
        Ok(())
    }

    /// The first of each line, in the order of their turns.
    pub fn heads(&self) -> impl Iterator<Item = (usize, Ticket)> {
        self.round.iter().filter_map(|line| {
            let (ticket, _) = self.lines.get(line)?.waiting.first_key_value()?;
            Some((*line, *ticket))
        })
    }

    /// The last of each line, in the order of their turns.
    pub fn tails(&self) -> impl Iterator<Item = (usize, Ticket, &T)> {
        self.round.iter().filter_map(|line| {
            let (ticket, waiter) = self.lines.get(line)?.waiting.last_key_value()?;
            Some((*line, *ticket, waiter))
        })
    }

    /// The first of a line.
    #[must_use]
    pub fn first(&self, line: usize) -> Option<&T> {
        self.lines.get(&line)?.waiting.first_key_value().map(|(_, waiter)| waiter)
    }

    /// Takes the request out whose turn it is.
    pub fn pop(&mut self) -> Option<(Ticket, T)> {
        self.pop_from(*self.round.front()?)
    }

    /// Takes the first of a line out, whose turn it is because those before it may not leave now:
    /// they keep their turns.
    pub fn pop_from(&mut self, line: usize) -> Option<(Ticket, T)> {
        let own = self.lines.get_mut(&line)?;
        let popped = own.waiting.pop_first()?;
        self.length -= 1;
        own.turns = own.turns.saturating_sub(1);
        let is_empty = own.waiting.is_empty();
        if is_empty || own.turns == 0 {
            own.turns = own.weight;
            if self.round.front() == Some(&line) {
                self.round.pop_front();
            } else {
                self.round.retain(|active| *active != line);
            }
            if !is_empty {
                self.round.push_back(line);
            }
        }
        Some(popped)
    }

    /// Takes a request out that no longer waits.
    pub fn remove(&mut self, line: usize, ticket: Ticket) -> Option<T> {
        let own = self.lines.get_mut(&line)?;
        let removed = own.waiting.remove(&ticket)?;
        self.length -= 1;
        if own.waiting.is_empty() {
            self.round.retain(|active| *active != line);
        }
        Some(removed)
    }

    /// How many of the same line leave before a request with this ticket.
    #[must_use]
    pub fn before(&self, line: usize, ticket: Ticket) -> u64 {
        let Some(own) = self.lines.get(&line) else { return 0 };
        match own.waiting.last_key_value() {
            // The last of a line is asked for with each that comes: nobody is counted for it.
            Some((last, _)) if *last == ticket => own.waiting.len() as u64 - 1,
            Some((last, _)) if *last > ticket => own.waiting.range(..ticket).count() as u64,
            _ => own.waiting.len() as u64,
        }
    }

    /// How many leave before a request with this ticket, if nobody else comes and everybody may
    /// leave.
    #[must_use]
    pub fn ahead(&self, line: usize, ticket: Ticket) -> u64 {
        let Some(own) = self.lines.get(&line) else { return 0 };
        let before = self.before(line, ticket);
        let place = self.round.iter().position(|active| *active == line);
        let turns = place.map_or(own.weight, |_| own.turns);
        // In which of the line's visits it is its turn.
        let visit = match before.checked_sub(u64::from(turns)) {
            None => 0,
            Some(later) => 1 + later / u64::from(own.weight),
        };
        let others = self.round.iter().enumerate().filter(|(_, active)| **active != line);
        let sooner = |(at, other): (usize, &usize)| {
            let other = self.lines.get(other)?;
            let visits = visit + u64::from(place.is_none_or(|place| at < place));
            let later = visits.checked_sub(1)?;
            let turns = u64::from(other.turns) + later.saturating_mul(u64::from(other.weight));
            Some(turns.min(other.waiting.len() as u64))
        };
        before + others.filter_map(sooner).sum::<u64>()
    }

    /// Everybody who waits.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.values().flat_map(|line| line.waiting.values())
    }

    /// How many wait in a line.
    #[must_use]
    pub fn waiting(&self, line: usize) -> usize {
        self.lines.get(&line).map_or(0, |line| line.waiting.len())
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

    /// A line's part of the places while others wait; at least one.
    fn share(&self, line: usize) -> usize {
        let (own, all) = self.weights(line);
        let share = (self.length_max as u64).saturating_mul(own) / all.max(1);
        usize::try_from(share).unwrap_or(usize::MAX).max(1)
    }

    /// The line's weight, and the weights of all that wait with it.
    fn weights(&self, line: usize) -> (u64, u64) {
        let weight = |line: &usize| self.lines.get(line).map_or(0, |line| u64::from(line.weight));
        let own = weight(&line);
        let others = self.round.iter().filter(|active| **active != line);
        (own, own + others.map(weight).sum::<u64>())
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
        assert_eq!(queue.heads().next(), Some((0, 0)));
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
                prop_assert_eq!(queue.heads().next().is_some(), !queue.is_empty());
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

        /// Lines that begin to wait while others are at it, with turns left over.
        #[test]
        fn everybody_is_told_exactly_how_many_leave_before_it(
            weights in prop::collection::vec(1_u32..5, 1..5),
            steps in prop::collection::vec((0_usize..5, any::<bool>()), 1..100),
            asking in 0_usize..5,
        ) {
            let mut queue = FairQueue::new(&weights, 1000);
            for (ticket, (line, pop)) in (0..).zip(steps) {
                queue.push(line % weights.len(), ticket, ()).unwrap();
                if pop {
                    queue.pop();
                }
            }
            let line = asking % weights.len();
            let ahead = queue.ahead(line, 1000);
            queue.push(line, 1000, ()).unwrap();
            prop_assert_eq!(queue.ahead(line, 1000), ahead, "the same once it waits");
            let before = std::iter::from_fn(|| queue.pop()).position(|(ticket, ())| ticket == 1000);
            prop_assert_eq!(before.map(|before| before as u64), Some(ahead));
        }

        /// However much the others ask for: a line with somebody waiting gets its turns in each
        /// round, and never falls behind by more than one request.
        #[test]
        fn a_line_that_never_runs_dry_gets_its_weight_whatever_the_others_do(
            weight in 1_u32..6,
            others in prop::collection::vec((1_u32..6, 0_u32..20), 1..4),
        ) {
            let weights: Vec<u32> =
                [weight].into_iter().chain(others.iter().map(|(weight, _)| *weight)).collect();
            let mut queue = FairQueue::new(&weights, 100_000);
            let (mut ticket, mut got, mut turns) = (1000, 0_u32, 0_u32);
            let all: u32 = weights.iter().sum();
            for ticket in 0..1000 {
                queue.push(0, ticket, 0).unwrap();
            }
            for _ in 0..all * 20 {
                for (line, each) in (1..).zip(others.iter().map(|(_, each)| *each)) {
                    for _ in 0..each {
                        ticket += 1;
                        // A line that floods is full at some time.
                        let _full = queue.push(line, ticket, line);
                    }
                }
                let (_, line) = queue.pop().unwrap();
                got += u32::from(line == 0);
                turns += 1;
                prop_assert!((got + weight) * all >= turns * weight, "{got} of {turns} turns");
            }
        }
    }
}
