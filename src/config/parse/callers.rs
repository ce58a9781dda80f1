//! How callers are known: by the listener where they call, by a secret, by their user.

use super::Checker;
use super::tenants::{Claim, Tenants};
use crate::config::collect::join;
use crate::config::model::{KnownBy, Listener, Socket};
use crate::config::raw;

/// The mode of a unix socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// A longer path does not fit into the system's address of a socket, macOS' included.
const SOCKET_PATH_BYTES_MAX: usize = 103;

impl Checker<'_> {
    /// What the callers of a tenant are known by; claims of listeners are added to `tenants`.
    pub(super) fn callers(
        &mut self,
        at: &str,
        written: &raw::Tenant,
        listeners: &[String],
        tenants: &mut Tenants,
    ) -> Vec<KnownBy> {
        let path = join(at, "callers");
        let empty = "lists no caller, so this tenant could not call; leave the key out where \
                     `listeners[].tenant` names it";
        let callers = self.filled(&path, written.callers.as_deref(), empty).unwrap_or_default();
        let mut known = Vec::new();
        for (at, caller) in self.places.items(&path).zip(callers) {
            let given =
                [caller.listener.is_some(), caller.caller_token.is_some(), caller.uid.is_some()];
            match given.into_iter().filter(|given| *given).count() {
                1 => {}
                0 => {
                    self.nothing_known(&at);
                    continue;
                }
                _ => {
                    self.error(&at, "is known by one thing: a listener, a caller_token or a uid");
                    continue;
                }
            }
            if let Some(listener) = &caller.listener {
                self.claim(&join(&at, "listener"), listener, listeners, tenants);
            }
            let no_unix = !listeners.iter().any(|name| name.starts_with("unix:"));
            if caller.uid.is_some() && no_unix && self.names_are_known("listeners", "listen") {
                let text = "a user is known on a unix socket only, and no listener is one";
                self.error(&join(&at, "uid"), text);
            }
            let token = caller.caller_token.as_deref();
            let token_path = join(&at, "caller_token");
            tenants.by_token |= token.is_some();
            tenants.by_uid |= caller.uid.is_some();
            let token = token.and_then(|text| self.secret(&token_path, text)).map(KnownBy::Token);
            for one in token.into_iter().chain(caller.uid.map(KnownBy::Uid)) {
                let taken = known.contains(&one)
                    || tenants.list.iter().any(|tenant| tenant.callers.contains(&one));
                if taken {
                    self.error(&at, "a tenant has this caller already");
                }
                known.push(one);
            }
        }
        known
    }

    fn nothing_known(&mut self, at: &str) {
        // What was a mistake, or is not supported yet, was refused for that.
        let keys = ["listener", "caller_token", "uid", "header"];
        if !keys.iter().any(|key| self.places.is_hole(&join(at, key))) {
            self.error(at, "missing key `listener`, `caller_token` or `uid`");
        }
    }

    fn claim(&mut self, path: &str, listener: &str, known: &[String], tenants: &mut Tenants) {
        let Some(listener) = self.expand(path, listener) else { return };
        if known.contains(&listener) {
            let tenant = tenants.list.len();
            tenants.claims.push(Claim { path: path.to_owned(), listener, tenant });
        } else if self.names_are_known("listeners", "listen") {
            self.unknown(path, "listener", &listener, known.iter().map(String::as_str));
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

/// `0660` or `660`.
fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
    if digits.len() != 3 || !digits.bytes().all(|digit| matches!(digit, b'0'..=b'7')) {
        return None;
    }
    u32::from_str_radix(digits, 8).ok()
}
