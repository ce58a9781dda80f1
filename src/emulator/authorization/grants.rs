//! What people granted: authorization codes (RFC 6749 §4.1.2, RFC 7636 §4.6), and refresh tokens that
//! are good once (RFC 9700 §4.14.2).
//!
//! Pure: moments and fresh values come from outside. All refresh tokens that come from one grant are
//! a family; when one that was used comes again, the family ends, without any grace.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokio::time::Instant;

use super::Right;
use crate::config::model::Level;

/// How long a code is good.
pub(super) const CODE_LIFE: Duration = Duration::from_secs(60);
const MAX_CODES: usize = 256;
const MAX_FAMILIES: usize = 1024;
/// Used tokens that are known again.
const MAX_USED: usize = 8192;

/// What a person approved.
#[derive(Debug, Clone)]
pub(super) struct Approved {
    pub(super) client: String,
    pub(super) level: Level,
    /// As it was written in the request.
    pub(super) redirect_uri: String,
    /// RFC 7636 §4.2, S256.
    pub(super) challenge: String,
}

struct Code {
    value: String,
    approved: Approved,
    expires: Instant,
    /// The grant that it was exchanged for.
    spent: Option<u64>,
}

struct Family {
    id: u64,
    client: String,
    level: Level,
    /// The one that is good.
    token: String,
}

struct Used {
    token: String,
    family: u64,
    client: String,
}

/// Codes and families.
#[derive(Default)]
pub(in super::super) struct Grants {
    codes: VecDeque<Code>,
    families: VecDeque<Family>,
    used: VecDeque<Used>,
    last: u64,
}

/// What a client shows for a grant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) client: &'a str,
    pub(super) code: &'a str,
    pub(super) redirect_uri: &'a str,
    pub(super) verifier: &'a str,
}

/// Why there is no token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Unknown, over, or another's.
    Grant,
    /// More than was granted.
    Scope,
    /// Used before: the family that ended of it, if it was still there.
    Reused(Option<u64>),
}

impl Grants {
    /// A person approved: this code stands for it.
    pub(super) fn approve(&mut self, approved: Approved, code: String, now: Instant) {
        push(
            &mut self.codes,
            MAX_CODES,
            Code { value: code, approved, expires: now + CODE_LIFE, spent: None },
        );
    }

    /// A code is exchanged for a grant, once. `token`: the family's first.
    pub(super) fn exchange(
        &mut self,
        shown: &Shown<'_>,
        token: String,
        now: Instant,
    ) -> Result<Right, Refused> {
        let codes = self.codes.iter();
        let found = codes
            .enumerate()
            .find(|(_, code)| code.value == shown.code && code.approved.client == shown.client);
        let (at, code) = found.ok_or(Refused::Grant)?;
        if let Some(family) = code.spent {
            return Err(Refused::Reused(self.remove(family)));
        }
        let Approved { client, level, redirect_uri, challenge } = code.approved.clone();
        let is_good = code.expires > now
            && redirect_uri == shown.redirect_uri
            && verifies(shown.verifier, &challenge);
        if !is_good {
            return Err(Refused::Grant);
        }
        let right = self.open(client, level, token);
        if let Some(code) = self.codes.get_mut(at) {
            code.spent = right.family;
        }
        Ok(right)
    }

    /// A new family.
    pub(super) fn open(&mut self, client: String, level: Level, token: String) -> Right {
        self.last += 1;
        let id = self.last;
        push(&mut self.families, MAX_FAMILIES, Family { id, client: client.clone(), level, token });
        Right { client, level, family: Some(id) }
    }

    /// A refresh token is used, by this client. `next`: what takes its place, where tokens rotate.
    pub(super) fn spend(
        &mut self,
        token: &str,
        client: &str,
        level: impl FnOnce(Level) -> Option<Level>,
        next: Option<String>,
    ) -> Result<Right, Refused> {
        let mut used = self.used.iter().rev();
        if let Some(used) = used.find(|used| used.token == token && used.client == client) {
            let family = used.family;
            return Err(Refused::Reused(self.remove(family)));
        }
        let mut families = self.families.iter_mut();
        let family = families
            .find(|family| family.token == token && family.client == client)
            .ok_or(Refused::Grant)?;
        let level = level(family.level).ok_or(Refused::Scope)?;
        let (id, client) = (family.id, family.client.clone());
        if let Some(next) = next {
            let token = mem::replace(&mut family.token, next);
            push(&mut self.used, MAX_USED, Used { token, family: id, client: client.clone() });
        }
        Ok(Right { client, level, family: Some(id) })
    }

    /// Ends the families of a client, or all: each with its client.
    pub(super) fn remove_of(&mut self, client: Option<&str>) -> Vec<(u64, String)> {
        let ends = |family: &Family| client.is_none_or(|client| client == family.client);
        let (ended, kept) = mem::take(&mut self.families).into_iter().partition(ends);
        self.families = kept;
        let ended: VecDeque<Family> = ended;
        ended.into_iter().map(|family| (family.id, family.client)).collect()
    }

    fn remove(&mut self, id: u64) -> Option<u64> {
        let at = self.families.iter().position(|family| family.id == id)?;
        self.families.remove(at).map(|family| family.id)
    }
}

/// RFC 7636 §4.6, S256 alone; a verifier has 43 to 128 characters (§4.1).
fn verifies(verifier: &str, challenge: &str) -> bool {
    let is_one = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let hash = ring::digest::digest(&ring::digest::SHA256, verifier.as_bytes());
    (43..=128).contains(&verifier.len())
        && verifier.bytes().all(is_one)
        && BASE64_URL_SAFE_NO_PAD.encode(hash) == challenge
}

/// The oldest makes room.
fn push<T>(queue: &mut VecDeque<T>, most: usize, one: T) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(one);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636 appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const THERE: &str = "http://127.0.0.1:1/callback";
    const GOOD: Shown<'_> =
        Shown { client: "web", code: "code", redirect_uri: THERE, verifier: VERIFIER };

    fn approved(now: Instant) -> Grants {
        let mut grants = Grants::default();
        let approved = Approved {
            client: "web".to_owned(),
            level: Level::ReadWrite,
            redirect_uri: THERE.to_owned(),
            challenge: CHALLENGE.to_owned(),
        };
        grants.approve(approved, "code".to_owned(), now);
        grants
    }

    fn spend(grants: &mut Grants, token: &str, next: &str) -> Result<Right, Refused> {
        grants.spend(token, "web", Some, Some(next.to_owned()))
    }

    #[test]
    fn a_code_is_bound_to_client_address_verifier_and_time_and_a_second_use_ends_the_grant() {
        let now = Instant::now();
        let other = VERIFIER.replace('d', "e");
        for (shown, after) in [
            (Shown { client: "other", ..GOOD }, Duration::ZERO),
            (Shown { code: "other", ..GOOD }, Duration::ZERO),
            (Shown { redirect_uri: "http://127.0.0.1:2/callback", ..GOOD }, Duration::ZERO),
            (Shown { verifier: &other, ..GOOD }, Duration::ZERO),
            (Shown { verifier: CHALLENGE, ..GOOD }, Duration::ZERO),
            (Shown { verifier: "", ..GOOD }, Duration::ZERO),
            (GOOD, CODE_LIFE),
        ] {
            let got = approved(now).exchange(&shown, "r1".to_owned(), now + after);
            assert_eq!(got, Err(Refused::Grant), "{shown:?}");
        }
        let mut grants = approved(now);
        let right = grants.exchange(&GOOD, "r1".to_owned(), now).unwrap();
        let want = Right { client: "web".to_owned(), level: Level::ReadWrite, family: Some(1) };
        assert_eq!(right, want);
        let again = grants.exchange(&GOOD, "r2".to_owned(), now);
        assert_eq!(again, Err(Refused::Reused(Some(1))));
        assert_eq!(spend(&mut grants, "r1", "r3"), Err(Refused::Grant), "the family is gone");
    }

    #[test]
    fn a_used_refresh_token_ends_its_family_and_no_other() {
        let mut grants = Grants::default();
        let first = grants.open("web".to_owned(), Level::Admin, "a1".to_owned()).family;
        grants.open("web".to_owned(), Level::Admin, "b1".to_owned());
        spend(&mut grants, "a1", "a2").unwrap();
        spend(&mut grants, "a2", "a3").unwrap();
        let another = grants.spend("a1", "other", Some, None);
        assert_eq!(another, Err(Refused::Grant), "another client cannot end it");
        assert_eq!(spend(&mut grants, "a1", "x"), Err(Refused::Reused(first)));
        assert_eq!(spend(&mut grants, "a3", "x"), Err(Refused::Grant));
        assert_eq!(spend(&mut grants, "a1", "x"), Err(Refused::Reused(None)));
        spend(&mut grants, "b1", "b2").unwrap();
    }

    #[test]
    fn too_large_a_scope_spends_nothing_and_without_rotation_a_token_stays() {
        let mut grants = Grants::default();
        grants.open("web".to_owned(), Level::ReadOnly, "a".to_owned());
        let refused = grants.spend("a", "web", |_| None, Some("b".to_owned()));
        assert_eq!(refused, Err(Refused::Scope));
        for _ in 0..2 {
            grants.spend("a", "web", Some, None).unwrap();
        }
        assert_eq!(grants.remove_of(Some("other")), []);
        assert_eq!(grants.remove_of(Some("web")), [(1, "web".to_owned())]);
        assert_eq!(grants.spend("a", "web", Some, None), Err(Refused::Grant));
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let (mut grants, now) = (approved(Instant::now()), Instant::now());
        for at in 0..MAX_FAMILIES * 2 {
            grants.open("web".to_owned(), Level::ReadOnly, format!("f{at}"));
            let approved = grants.codes.back().unwrap().approved.clone();
            grants.approve(approved, format!("c{at}"), now);
        }
        let mut token = format!("f{}", MAX_FAMILIES * 2 - 1);
        for at in 0..MAX_USED + 1 {
            let next = format!("u{at}");
            spend(&mut grants, &token, &next).unwrap();
            token = next;
        }
        let sizes = (grants.codes.len(), grants.families.len(), grants.used.len());
        assert_eq!(sizes, (MAX_CODES, MAX_FAMILIES, MAX_USED));
    }
}
