//! How callers are known: by the listener where they call, by a secret, by their user, by a header
//! that a listener's secret vouches for.

use super::Checker;
use super::tenants::{Claim, Tenants};
use crate::config::collect::join;
use crate::config::header_names::has_a_meaning;
use crate::config::model::{CallerHeader, KnownBy, Listener, Socket};
use crate::config::raw;
use crate::secret::SecretRef;

/// The mode of a unix socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// A longer path does not fit into the system's address of a socket, macOS' included.
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// Characters of a header's name.
const HEADER_NAME_CHARS_MAX: usize = 63;
/// Characters of the value that a tenant is known by.
const HEADER_VALUE_CHARS_MAX: usize = 128;

impl Checker<'_> {
    /// What the callers of a tenant are known by; claims of listeners are added to `tenants`.
    pub(super) fn callers(
        &mut self,
        at: &str,
        written: &raw::Tenant,
        tenants: &mut Tenants,
    ) -> Vec<KnownBy> {
        let path = join(at, "callers");
        let empty = "lists no caller, so this tenant could not call; leave the key out where \
                     `listeners[].tenant` names it";
        let callers = self.filled(&path, written.callers.as_deref(), empty).unwrap_or_default();
        let mut known = Vec::new();
        for (at, caller) in self.places.items(&path).zip(callers) {
            let given = [
                caller.listener.is_some(),
                caller.caller_token.is_some(),
                caller.uid.is_some(),
                caller.header.is_some(),
            ];
            match given.into_iter().filter(|given| *given).count() {
                1 => {}
                0 => {
                    self.nothing_known(&at);
                    continue;
                }
                _ => {
                    let text =
                        "is known by one thing: a listener, a caller_token, a uid or a header";
                    self.error(&at, text);
                    continue;
                }
            }
            if let Some(listener) = &caller.listener {
                self.claim(&join(&at, "listener"), listener, tenants);
            }
            if let Some(one) = self.known_by(&at, caller, tenants) {
                let all = || tenants.list.iter().flat_map(|tenant| &tenant.callers).chain(&known);
                if all().any(|other| *other == one) {
                    self.error(&at, "a tenant has this caller already");
                } else if all().any(|other| has_another_name(other, &one)) {
                    let text = "another caller is known by another header: one name for all";
                    self.error(&join(&at, "header.name"), text);
                }
                known.push(one);
            }
        }
        known
    }

    /// What a caller shows, wherever it calls.
    fn known_by(
        &mut self,
        at: &str,
        caller: &raw::Caller,
        tenants: &mut Tenants,
    ) -> Option<KnownBy> {
        if let Some(uid) = caller.uid {
            tenants.by.uid = true;
            let no_unix = !tenants.listeners.iter().any(|name| name.starts_with("unix:"));
            if no_unix && self.names_are_known("listeners", "listen") {
                let text = "a user is known on a unix socket only, and no listener is one";
                self.error(&join(at, "uid"), text);
            }
            return Some(KnownBy::Uid(uid));
        }
        if let Some(token) = caller.caller_token.as_deref() {
            tenants.by.token = true;
            return self.secret(&join(at, "caller_token"), token).map(KnownBy::Token);
        }
        let written = caller.header.as_ref()?;
        tenants.by.header = true;
        let at = join(at, "header");
        if !tenants.is_vouched {
            let text = "is believed only beside the `caller_token` of a listener, and none has one";
            self.error(&at, text);
        }
        self.caller_header(&at, written).map(KnownBy::Header)
    }

    fn caller_header(&mut self, at: &str, written: &raw::CallerHeader) -> Option<CallerHeader> {
        let name = self.required(at, "name", written.name.as_deref());
        let name = name.map(str::to_ascii_lowercase).filter(|name| {
            let path = join(at, "name");
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            let fits = (1..=HEADER_NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(word);
            let own = has_a_meaning(name);
            if !fits {
                self.error(&path, "a header's name here is 1 to 63 letters, digits and `-`");
            } else if own {
                let text = "this header has a meaning of its own; take another, such as X-Tenant";
                self.error(&path, text);
            }
            fits && !own
        });
        let value = self.required(at, "value", written.value.as_deref()).filter(|value| {
            let word = |b: u8| b.is_ascii_graphic() && b != b',';
            let fits = (1..=HEADER_VALUE_CHARS_MAX).contains(&value.len())
                && value.bytes().all(word)
                && !value.contains("${");
            if !fits {
                let text = "is 1 to 128 visible characters of ASCII without a comma; nothing is \
                            replaced in it";
                self.error(&join(at, "value"), text);
            }
            fits
        });
        Some(CallerHeader { name: name?.into(), value: value?.into() })
    }

    /// Notes a listener's token that a tenant holds as its own: by the header, which is believed
    /// beside the listener's token, it could speak for every other tenant.
    pub(super) fn vouches_for_one(
        &mut self,
        path: &str,
        token: Option<&SecretRef>,
        tenants: Option<&Tenants>,
    ) {
        let (Some(token), Some(tenants)) = (token, tenants) else { return };
        let all = tenants.list.iter().flat_map(|tenant| &tenant.callers);
        let mut tokens = all.filter(|known| matches!(known, KnownBy::Token(at) if at == token));
        if tenants.by.header && tokens.next().is_some() {
            let text = "a tenant's callers send this token, too, and could name every other tenant \
                        in the header; give the listener a token of its own";
            self.error(path, text);
        }
    }

    fn nothing_known(&mut self, at: &str) {
        // What was a mistake was refused for that.
        let keys = ["listener", "caller_token", "uid", "header"];
        if !keys.iter().any(|key| self.places.is_hole(&join(at, key))) {
            self.error(at, "missing key `listener`, `caller_token`, `uid` or `header`");
        }
    }

    fn claim(&mut self, path: &str, listener: &str, tenants: &mut Tenants) {
        let Some(listener) = self.expand(path, listener) else { return };
        if tenants.listeners.contains(&listener) {
            let tenant = tenants.list.len();
            tenants.claims.push(Claim { path: path.to_owned(), listener, tenant });
        } else if self.names_are_known("listeners", "listen") {
            self.unknown(path, "listener", &listener, tenants.listeners.iter().map(String::as_str));
        }
    }

    /// The file of `unix:PATH`, with its mode.
    pub(super) fn unix_socket(
        &mut self,
        at: &str,
        file: &str,
        written: &raw::Listener,
    ) -> Option<Socket> {
        let mode = match written.socket_mode.as_deref() {
            None => Some(SOCKET_MODE),
            Some(text) => octal(text),
        };
        if mode.is_none() {
            let text = "expected permission bits in quotes, such as \"0660\"";
            self.error(&join(at, "socket_mode"), text);
        }
        if written.tls.is_some() {
            self.error(&join(at, "tls"), "a unix socket does not leave the machine: no tls there");
        }
        let fits = file.starts_with('/')
            && !file.ends_with('/')
            && file.len() <= SOCKET_PATH_BYTES_MAX
            && !file.contains(char::is_control);
        if !fits {
            let text = "expected unix: and an absolute path of at most 103 bytes";
            self.error(&join(at, "listen"), text);
        }
        Some(Socket::Unix { path: file.into(), mode: mode? }).filter(|_| fits)
    }

    /// Notes what only a unix socket has.
    pub(super) fn without_unix(&mut self, at: &str, written: &raw::Listener) {
        let text = "only a unix socket has this: listen: unix:/PATH";
        if written.socket_mode.is_some() {
            self.error(&join(at, "socket_mode"), text);
        }
        if written.allowed_uids.is_some() {
            self.error(&join(at, "allowed_uids"), text);
        }
    }

    /// Notes each file that two listeners would bind.
    pub(super) fn same_sockets(&mut self, listeners: Option<&[Listener]>) {
        let mut paths = Vec::new();
        for listener in listeners.into_iter().flatten() {
            let Socket::Unix { path, .. } = &listener.socket else { continue };
            if paths.contains(&path) {
                self.error("listeners", format!("two of them listen on {}", listener.name));
            }
            paths.push(path);
        }
    }
}

fn has_another_name(one: &KnownBy, other: &KnownBy) -> bool {
    matches!((one, other), (KnownBy::Header(one), KnownBy::Header(other)) if one.name != other.name)
}

/// `0660` or `660`.
fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
    if digits.len() != 3 || !digits.bytes().all(|digit| matches!(digit, b'0'..=b'7')) {
        return None;
    }
    u32::from_str_radix(digits, 8).ok()
}
