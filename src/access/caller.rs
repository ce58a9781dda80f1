//! Whose call it is: by the secret that a caller sends, by a header that a listener's secret vouches
//! for, by its user, by the listener.
//!
//! Decided before the policy is asked. Secrets are compared in constant time, and none is shown.

use std::sync::Arc;

use crate::config::model::{Config, KnownBy, Listener};
use crate::secret::{SecretRef, SecretValue};

/// The callers that are known, and the conditions of each listener.
#[derive(Debug, Clone)]
pub struct Callers {
    listeners: Vec<Gate>,
    /// Secrets that tenants' callers send, with the tenant.
    tokens: Vec<(SecretValue, usize)>,
    /// Users that tenants' callers run as, with the tenant.
    uids: Vec<(u32, usize)>,
    /// The header that tells tenants apart, lower-case.
    header: Option<Arc<str>>,
    /// Its values, with the tenant.
    values: Vec<(Box<str>, usize)>,
}

#[derive(Debug, Clone)]
struct Gate {
    tenant: Option<usize>,
    token: Option<SecretValue>,
    allowed_uids: Option<Vec<u32>>,
}

/// What a caller shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown<'a> {
    /// Its user, on a unix socket.
    pub uid: Option<u32>,
    /// `X-DataPulse-Sidecar-Token`.
    pub token: Option<&'a SecretValue>,
    /// The value of [`Callers::header`].
    pub header: Option<&'a [u8]>,
}

/// How a caller was known: for the audit line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// By the listener where it called, and no more.
    Listener,
    /// By the listener's token, or a tenant's.
    Token,
    /// By its user.
    Uid(u32),
    /// By the header that tells tenants apart, beside the listener's token.
    Header,
}

/// Why a caller may not call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// The listener asks for a token, and none came.
    NoToken,
    /// The token that came is nobody's.
    WrongToken,
    /// The header that tells tenants apart has a value that is no tenant's.
    WrongHeader,
    /// The user is not in the listener's list.
    WrongUid,
    /// The listener has no tenant, and the caller is none that a tenant names.
    Unknown,
}

/// Why it would not be clear who may call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallersError {
    /// Two callers cannot be told apart: give each a secret of its own.
    #[error("{0} and {1} hold the same caller token; each caller needs its own")]
    SameToken(SecretRef, SecretRef),
    /// One of [`Callers::secrets`] was not handed in, which only a bug can do.
    #[error("{0}: no value was handed in")]
    NoValue(SecretRef),
}

impl Callers {
    /// The secrets that [`Self::new`] asks for.
    #[must_use]
    pub fn secrets(config: &Config) -> Vec<SecretRef> {
        let tenants = config.tenants.iter().flat_map(|tenant| &tenant.callers);
        let tenants = tenants.filter_map(|known| match known {
            KnownBy::Token(at) => Some(at),
            KnownBy::Uid(_) | KnownBy::Header(_) => None,
        });
        let listeners = config.listeners.iter().filter_map(|one| one.caller_token.as_ref());
        let mut all: Vec<SecretRef> = tenants.chain(listeners).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// What `config` says, with the value of each of its [`Self::secrets`].
    ///
    /// # Errors
    /// See [`CallersError`]: a door whose token is not known stays shut.
    pub fn new(
        config: &Config,
        secrets: &[(SecretRef, SecretValue)],
    ) -> Result<Self, CallersError> {
        for (index, (at, value)) in secrets.iter().enumerate() {
            let before = secrets.iter().take(index).find(|(_, other)| other == value);
            if let Some((other, _)) = before {
                return Err(CallersError::SameToken(other.clone(), at.clone()));
            }
        }
        let value = |at: &SecretRef| {
            let found = secrets.iter().find(|(known, _)| known == at);
            found.map(|(_, value)| value.clone()).ok_or_else(|| CallersError::NoValue(at.clone()))
        };
        let gate = |listener: &Listener| {
            Ok(Gate {
                tenant: listener.tenant,
                token: listener.caller_token.as_ref().map(value).transpose()?,
                allowed_uids: listener.allowed_uids.clone(),
            })
        };
        let (mut tokens, mut uids, mut header, mut values) = (vec![], vec![], None, vec![]);
        for (index, tenant) in config.tenants.iter().enumerate() {
            for known in &tenant.callers {
                match known {
                    KnownBy::Token(at) => tokens.push((value(at)?, index)),
                    KnownBy::Uid(uid) => uids.push((*uid, index)),
                    KnownBy::Header(known) => {
                        header = Some(Arc::clone(&known.name));
                        values.push((known.value.clone(), index));
                    }
                }
            }
        }
        let listeners = config.listeners.iter().map(gate).collect::<Result<_, _>>()?;
        Ok(Self { listeners, tokens, uids, header, values })
    }

    /// The header that tells tenants apart, by its lower-case name. It ends here: whoever sends it,
    /// it is not sent on.
    #[must_use]
    pub fn header(&self) -> Option<&str> {
        self.header.as_deref()
    }

    /// The index of the tenant whose call it is. The header says more than a tenant's token, but is
    /// read only beside the listener's own; a token says more than a user, and a user more than the
    /// listener. A token that is nobody's is refused, also where none is asked for.
    ///
    /// # Errors
    /// The caller may not call here.
    pub fn tenant_of(
        &self,
        listener: usize,
        shown: Shown<'_>,
    ) -> Result<(usize, Identity), Stranger> {
        let Shown { uid, token, header } = shown;
        let gate = self.listeners.get(listener).ok_or(Stranger::Unknown)?;
        let by_uid = self.uids.iter().find(|(known, _)| Some(*known) == uid);
        if let Some(allowed) = &gate.allowed_uids {
            let listed = uid.is_some_and(|uid| allowed.contains(&uid));
            if !listed && by_uid.is_none() {
                return Err(Stranger::WrongUid);
            }
        }
        let mut known_token = false;
        if let Some(token) = token {
            // Every one is compared, so that the time tells nothing.
            let mut tenant = None;
            for (known, index) in &self.tokens {
                if known == token {
                    tenant = Some(*index);
                }
            }
            known_token = gate.token.as_ref() == Some(token);
            if let Some(value) = header.filter(|_| known_token) {
                return self.tenant_in(value);
            }
            if let Some(tenant) = tenant {
                return Ok((tenant, Identity::Token));
            }
            if !known_token {
                return Err(Stranger::WrongToken);
            }
        } else if gate.token.is_some() {
            return Err(Stranger::NoToken);
        }
        match (by_uid, gate.tenant) {
            (Some(&(uid, tenant)), _) => Ok((tenant, Identity::Uid(uid))),
            (None, Some(tenant)) if known_token => Ok((tenant, Identity::Token)),
            (None, Some(tenant)) => {
                let listed = gate.allowed_uids.as_ref().and(uid);
                Ok((tenant, listed.map_or(Identity::Listener, Identity::Uid)))
            }
            (None, None) => Err(Stranger::Unknown),
        }
    }

    fn tenant_in(&self, value: &[u8]) -> Result<(usize, Identity), Stranger> {
        let found = self.values.iter().find(|(known, _)| known.as_bytes() == value);
        found.map(|(_, tenant)| (*tenant, Identity::Header)).ok_or(Stranger::WrongHeader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes().to_vec())
    }

    /// Listeners 0: open, tenant 0; 1: behind a token, tenant 0; 2: users 7 and 8 only, tenant 0;
    /// 3: no tenant of its own; 4: behind a token, no tenant of its own. Tenant 1 is known by token
    /// `one`, user 9 and header `b`, tenant 2 by header `c`.
    fn callers() -> Callers {
        let gate = |tenant, token: Option<&str>, uids: Option<&[u32]>| Gate {
            tenant,
            token: token.map(secret),
            allowed_uids: uids.map(<[u32]>::to_vec),
        };
        Callers {
            listeners: vec![
                gate(Some(0), None, None),
                gate(Some(0), Some("door"), None),
                gate(Some(0), None, Some(&[7, 8])),
                gate(None, None, None),
                gate(None, Some("door"), None),
            ],
            tokens: vec![(secret("one"), 1)],
            uids: vec![(9, 1)],
            header: Some("x-tenant".into()),
            values: vec![("b".into(), 1), ("c".into(), 2)],
        }
    }

    #[test]
    fn a_token_says_more_than_a_user_and_a_user_more_than_the_listener() {
        use Identity::{Listener, Token, Uid};
        for (listener, uid, token, want) in [
            (0, None, None, Ok((0, Listener))),
            (0, Some(7), None, Ok((0, Listener))),
            (0, Some(9), None, Ok((1, Uid(9)))),
            (0, None, Some("one"), Ok((1, Token))),
            (0, None, Some("on"), Err(Stranger::WrongToken)),
            (0, None, Some(""), Err(Stranger::WrongToken)),
            (0, None, Some("door"), Err(Stranger::WrongToken)),
            (1, None, None, Err(Stranger::NoToken)),
            (1, Some(9), None, Err(Stranger::NoToken)),
            (1, None, Some("door"), Ok((0, Token))),
            (1, Some(9), Some("door"), Ok((1, Uid(9)))),
            (1, Some(9), Some("one"), Ok((1, Token))),
            (1, None, Some("doors"), Err(Stranger::WrongToken)),
            (2, Some(7), None, Ok((0, Uid(7)))),
            (2, Some(6), None, Err(Stranger::WrongUid)),
            (2, None, None, Err(Stranger::WrongUid)),
            (2, Some(6), Some("one"), Err(Stranger::WrongUid)),
            (2, Some(9), None, Ok((1, Uid(9)))),
            (3, Some(7), None, Err(Stranger::Unknown)),
            (3, Some(9), None, Ok((1, Uid(9)))),
            (3, None, Some("one"), Ok((1, Token))),
            (4, None, Some("door"), Err(Stranger::Unknown)),
            (5, None, None, Err(Stranger::Unknown)),
        ] {
            let token = token.map(secret);
            let shown = Shown { uid, token: token.as_ref(), header: None };
            let got = callers().tenant_of(listener, shown);
            assert_eq!(got, want, "listener {listener}, uid {uid:?}, token {token:?}");
        }
    }

    #[test]
    fn a_header_is_believed_beside_the_listeners_own_token_only() {
        use Identity::{Header, Listener, Token, Uid};
        for (listener, uid, token, header, want) in [
            (1, None, Some("door"), "b", Ok((1, Header))),
            (1, None, Some("door"), "c", Ok((2, Header))),
            (1, Some(9), Some("door"), "c", Ok((2, Header))),
            (4, None, Some("door"), "b", Ok((1, Header))),
            (1, None, Some("door"), "", Err(Stranger::WrongHeader)),
            (1, None, Some("door"), "B", Err(Stranger::WrongHeader)),
            (1, None, Some("door"), "b, c", Err(Stranger::WrongHeader)),
            (1, None, None, "b", Err(Stranger::NoToken)),
            (1, None, Some("doors"), "b", Err(Stranger::WrongToken)),
            (4, None, None, "b", Err(Stranger::NoToken)),
            // A tenant's own token says who calls; nothing but the listener's vouches for others.
            (1, None, Some("one"), "c", Ok((1, Token))),
            (0, None, Some("one"), "c", Ok((1, Token))),
            (0, None, None, "c", Ok((0, Listener))),
            (2, Some(7), None, "c", Ok((0, Uid(7)))),
            (3, None, None, "c", Err(Stranger::Unknown)),
        ] {
            let token = token.map(secret);
            let shown = Shown { uid, token: token.as_ref(), header: Some(header.as_bytes()) };
            let got = callers().tenant_of(listener, shown);
            assert_eq!(got, want, "listener {listener}, token {token:?}, header {header}");
        }
    }

    #[test]
    fn no_token_is_printed() {
        assert!(!format!("{:?}", callers()).contains("door"));
    }
}
