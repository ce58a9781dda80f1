//! Whose credentials a caller may use.

use std::sync::Arc;

use super::Checker;
use crate::config::collect::join;
use crate::config::model::{Rate, Tenant};
use crate::config::raw::{self, Raw};

/// More is hardly meant as a weight.
const WEIGHT_MAX: u32 = 1000;

/// The tenants, and which listeners they say are theirs.
pub(super) struct Tenants {
    pub(super) list: Vec<Tenant>,
    pub(super) claims: Vec<Claim>,
    /// By what some caller may be known, beside its listener.
    pub(super) by: By,
    /// What the listeners are called.
    pub(super) listeners: Vec<String>,
    /// Whether one of them asks for a token.
    pub(super) is_vouched: bool,
    /// No name was lost to a mistake.
    pub(super) names_are_known: bool,
}

impl Tenants {
    fn new(list: Vec<Tenant>, names_are_known: bool) -> Self {
        let (listeners, is_vouched) = (Vec::new(), false);
        let by = By::default();
        Self { list, claims: Vec::new(), by, listeners, is_vouched, names_are_known }
    }
}

/// What callers show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct By {
    pub(super) token: bool,
    pub(super) uid: bool,
    pub(super) header: bool,
}

/// A tenant's caller that is known by its listener.
pub(super) struct Claim {
    pub(super) path: String,
    pub(super) listener: String,
    pub(super) tenant: usize,
}

impl Checker<'_> {
    /// The tenants; without any there is one, with every credential and every listener.
    pub(super) fn tenants(&mut self, raw: &Raw) -> Option<Tenants> {
        let names_are_known = self.names_are_known("tenants", "name");
        let Some(list) = raw.tenants.as_deref() else {
            if self.places.is_hole("tenants") {
                return None;
            }
            let count = raw.credentials.as_ref().map_or(0, Vec::len);
            let list = vec![tenant("default", (0..count).collect(), raw)];
            return Some(Tenants::new(list, names_are_known));
        };
        let empty = "lists nobody, so nobody could call; without this key there is one tenant, \
                     with every credential";
        let list = self.filled("tenants", Some(list), empty)?;
        let mut tenants = Tenants::new(Vec::new(), names_are_known);
        let mut names = Vec::new();
        tenants.listeners = self.listener_names(raw);
        let mut tokens = raw.listeners.iter().flatten().map(|one| one.caller_token.is_some());
        tenants.is_vouched = tokens.any(|token| token) || self.places.has_hole("listeners");
        for (at, written) in self.places.items("tenants").zip(list) {
            let name = self.required(&at, "name", written.name.as_deref());
            if let Some(name) = name
                && self.is_name(&join(&at, "name"), name)
            {
                names.push((join(&at, "name"), name));
            }
            let callers = self.callers(&at, written, &mut tenants);
            let credentials = self.credentials_of(&at, written, raw);
            let weight = self.weight(&join(&at, "weight"), written.weight);
            let limit = self.limit_of(&join(&at, "limit"), written.limit, &credentials, raw);
            // Even a tenant with mistakes can be referred to.
            let tenant = tenant(name.unwrap_or_default(), credentials, raw);
            tenants.list.push(Tenant { callers, weight, limit, ..tenant });
        }
        self.unique(&names);
        Some(tenants)
    }

    fn weight(&mut self, path: &str, weight: Option<u32>) -> u32 {
        let weight = weight.unwrap_or(1);
        if !(1..=WEIGHT_MAX).contains(&weight) {
            self.error(path, "is a whole number from 1 to 1000");
        }
        weight
    }

    /// A tenant's own limit, where it bounds something.
    fn limit_of(
        &mut self,
        path: &str,
        limit: Option<raw::Limit>,
        credentials: &[usize],
        raw: &Raw,
    ) -> Option<Rate> {
        let limit = limit?.0;
        if limit.is_none() {
            self.error(path, "leave `limit` out for a tenant without a limit of its own");
        }
        let list = raw.credentials.as_deref().unwrap_or_default();
        let has_quota = |index: &usize| list.get(*index).is_some_and(|one| one.quota.is_some());
        let is_known = !credentials.is_empty() && self.names_are_known("credentials", "quota");
        if is_known && !credentials.iter().any(has_quota) {
            self.error(path, "bounds nothing: none of this tenant's credentials has a quota");
        }
        limit
    }

    /// What the listeners are called, as far as it can be known.
    fn listener_names(&mut self, raw: &Raw) -> Vec<String> {
        // Mistakes in there are told at the listener.
        let before = self.problems.len();
        let mut names = Vec::new();
        for listener in raw.listeners.iter().flatten() {
            names.extend(self.expand("", listener.listen.as_deref().unwrap_or_default()));
        }
        self.problems.truncate(before);
        names
    }

    /// Indices of the credentials that a tenant names.
    fn credentials_of(&mut self, at: &str, written: &raw::Tenant, raw: &Raw) -> Vec<usize> {
        let path = join(at, "credentials");
        let list = self.required(at, "credentials", written.credentials.as_deref());
        let empty = "lists no credential, so every call of this tenant would be denied";
        let list = self.filled(&path, list, empty).unwrap_or_default();
        let known: Vec<&str> = raw
            .credentials
            .iter()
            .flatten()
            .map(|credential| credential.name.as_deref().unwrap_or_default())
            .collect();
        let mut indices = Vec::with_capacity(list.len());
        for (path, name) in self.places.items(&path).zip(list) {
            match known.iter().position(|known| known == name) {
                Some(index) if indices.contains(&index) => {
                    self.error(&path, "this credential is listed twice");
                }
                Some(index) => indices.push(index),
                None if self.names_are_known("credentials", "name") => {
                    self.unknown(&path, "credential", name, known.iter().copied());
                }
                None => {}
            }
        }
        indices
    }
}

/// Its credentials in the order in which they are tried: the least privileged first.
fn tenant(name: &str, mut credentials: Vec<usize>, raw: &Raw) -> Tenant {
    let level = |index: &usize| {
        raw.credentials.as_deref().and_then(|list| list.get(*index)).and_then(|item| item.level)
    };
    credentials.sort_by_key(level);
    let callers = Vec::new();
    Tenant { name: Arc::from(name), credentials, callers, weight: 1, limit: None }
}
