//! Where we listen: for apps, for probes, for operators.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::Checker;
use super::tenants::{By, Tenants};
use crate::config::collect::join;
use crate::config::model::{Listener, ListenerTls, Socket};
use crate::config::raw::{self, Raw};
use crate::secret::SecretRef;

impl Checker<'_> {
    /// The listeners where apps call.
    pub(super) fn listeners(
        &mut self,
        raw: &Raw,
        tenants: Option<&Tenants>,
    ) -> Option<Vec<Listener>> {
        let list = self.required("", "listeners", raw.listeners.as_deref())?;
        let list = self.filled("listeners", Some(list), "without a listener no app can call")?;
        let mut listeners = Vec::with_capacity(list.len());
        for (at, written) in self.places.items("listeners").zip(list) {
            let path = format!("{at}.listen");
            let name = self
                .required(&at, "listen", written.listen.as_deref())
                .and_then(|text| self.expand(&path, text));
            let socket = name.as_deref().and_then(|name| self.socket(&at, name, written));
            let allowed_hosts = self.allowed_hosts(&at, written);
            let tenant = match (tenants, name.as_deref()) {
                (Some(tenants), Some(name)) => self.tenant_of(&at, name, written, tenants),
                _ => None,
            };
            let token_path = join(&at, "caller_token");
            let token = written.caller_token.as_deref();
            let caller_token = token.and_then(|text| self.secret(&token_path, text));
            self.vouches_for_one(&token_path, caller_token.as_ref(), tenants);
            let empty = "lists nobody, so nobody could call; without this key whoever can open \
                         the socket may call";
            let uids = written.allowed_uids.as_deref();
            let uids = self.filled(&join(&at, "allowed_uids"), uids, empty);
            let tls = self.listener_tls(&at, written);
            if let Some(Socket::Tcp(addresses)) = &socket {
                self.reachable(&at, addresses, written, tenants);
            }
            if let (Some(name), Some(socket)) = (name, socket) {
                listeners.push(Listener {
                    name: Arc::from(name),
                    socket,
                    tenant,
                    caller_token,
                    allowed_uids: uids.map(<[u32]>::to_vec),
                    tls,
                    allowed_hosts,
                });
            }
        }
        Some(listeners)
    }

    fn socket(&mut self, at: &str, text: &str, written: &raw::Listener) -> Option<Socket> {
        if let Some(file) = text.strip_prefix("unix:") {
            return self.unix_socket(at, file, written);
        }
        self.without_unix(at, written);
        self.app_addresses(&join(at, "listen"), text).map(Socket::Tcp)
    }

    fn app_addresses(&mut self, path: &str, text: &str) -> Option<Vec<SocketAddr>> {
        let Some(addresses) = addresses(text) else {
            self.error(path, "expected localhost:PORT, an IP address and a port, or unix:/PATH");
            return None;
        };
        self.ports.extend(addresses.first().map(|address| (path.to_owned(), address.port())));
        Some(addresses)
    }

    fn listener_tls(&mut self, at: &str, written: &raw::Listener) -> Option<ListenerTls> {
        let at = join(at, "tls");
        let written = written.tls.as_ref()?;
        let mut file = |key: &str, file: Option<&str>| {
            let given = self.required(&at, key, file);
            given.and_then(|file| self.required_file(&join(&at, key), file))
        };
        let cert_file = file("cert_file", written.cert_file.as_deref());
        let key_file = file("key_file", written.key_file.as_deref());
        Some(ListenerTls { cert_file: cert_file?, key_file: key_file? })
    }

    /// An address that others can reach is for callers that are known, and for nobody who listens in.
    fn reachable(
        &mut self,
        at: &str,
        addresses: &[SocketAddr],
        written: &raw::Listener,
        tenants: Option<&Tenants>,
    ) {
        if addresses.iter().all(|address| address.ip().is_loopback()) {
            return;
        }
        let is_there = |key: &str, written: bool| written || self.places.is_hole(&join(at, key));
        let has_tls = is_there("tls", written.tls.is_some());
        // Without a tenant of its own, each caller has to be known by a token.
        let each_is_known = written.tenant.is_none() && tenants.is_some_and(|all| all.by.token);
        let knows = is_there("caller_token", written.caller_token.is_some()) || each_is_known;
        let missing = match (knows, has_tls) {
            (true, true) => {
                if written.allowed_hosts.is_none() {
                    let text = "callers reach this address by a name: list it in `allowed_hosts`, \
                                or they get 421";
                    self.warn(&join(at, "listen"), text);
                }
                return;
            }
            (false, true) => "caller authentication (`caller_token`)",
            (true, false) => "`tls`",
            (false, false) => "caller authentication (`caller_token`) and `tls`",
        };
        let text =
            format!("an address that others can reach needs {missing}; or use localhost:PORT");
        self.error(&join(at, "listen"), text);
    }

    fn allowed_hosts(&mut self, at: &str, written: &raw::Listener) -> Vec<String> {
        let list = format!("{at}.allowed_hosts");
        let hosts = written.allowed_hosts.as_deref().unwrap_or_default();
        for (path, host) in self.places.items(&list).zip(hosts) {
            let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let fits = match bracketed {
                Some(address) => address.parse::<Ipv6Addr>().is_ok(),
                None => {
                    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
                    !host.is_empty() && host.bytes().all(word)
                }
            };
            if !fits {
                self.error(&path, "expected a host name alone: no port, no scheme, no `*`");
            }
        }
        hosts.iter().map(|host| host.to_ascii_lowercase()).collect()
    }

    /// Which tenant calls at a listener: its own `tenant`, else a tenant's `callers`.
    fn tenant_of(
        &mut self,
        at: &str,
        name: &str,
        written: &raw::Listener,
        tenants: &Tenants,
    ) -> Option<usize> {
        let path = format!("{at}.tenant");
        let claims: Vec<_> = tenants.claims.iter().filter(|claim| claim.listener == name).collect();
        for later in claims.iter().skip(1) {
            if claims.first().is_some_and(|first| first.tenant != later.tenant) {
                self.error(&later.path, "another tenant has this listener already");
            }
        }
        let claimed = claims.first().map(|claim| claim.tenant);
        let Some(given) = written.tenant.as_deref() else {
            if self.places.is_hole(&path) {
                return None;
            }
            let each_is_known = tenants.by.token
                || tenants.by.uid && name.starts_with("unix:")
                || tenants.by.header && written.caller_token.is_some();
            let nobody_else = tenants.by == By::default();
            let alone = tenants.list.len() == 1 && nobody_else;
            // Where a caller was left out as a mistake, it may have named this one.
            let unclear = self.places.has_hole("tenants");
            if claimed.is_none() && !alone && !each_is_known && !unclear {
                self.error(
                    at,
                    "no tenant has this listener: give it a `tenant`, or name it in `callers` of one",
                );
            }
            return claimed.or_else(|| alone.then_some(0));
        };
        let Some(index) = tenants.list.iter().position(|tenant| &*tenant.name == given) else {
            if tenants.names_are_known {
                let names: Vec<&str> = tenants.list.iter().map(|tenant| &*tenant.name).collect();
                self.unknown(&path, "tenant", given, names);
            }
            return None;
        };
        if claimed.is_some_and(|claimed| claimed != index) {
            self.error(&path, "another tenant names this listener in its `callers`");
        }
        Some(index)
    }

    /// The addresses of the health and admin listeners.
    pub(super) fn own_listeners(&mut self, raw: &Raw) -> Option<(SocketAddr, SocketAddr)> {
        let health = raw.health.as_ref().and_then(|health| health.listen.as_deref());
        let health = self.own_address("health.listen", health, "[::]:9464");
        let admin = raw.admin.as_ref().and_then(|admin| admin.listen.as_deref());
        let admin = self.own_address("admin.listen", admin, "127.0.0.1:9465");
        if admin.is_some_and(|admin| !admin.ip().is_loopback()) {
            self.error("admin.listen", "the admin listener is for this machine: 127.0.0.1:PORT");
        }
        Some((health?, admin?))
    }

    /// What operators send to change something.
    pub(super) fn admin_token(&mut self, raw: &Raw) -> Option<SecretRef> {
        let token = raw.admin.as_ref()?.token.as_deref()?;
        self.secret("admin.token", token)
    }

    /// Notes each port that is asked for twice, on whatever address: which of two listeners
    /// `localhost` reaches would be up to a resolver.
    pub(super) fn same_ports(&mut self) {
        let mut ports = std::mem::take(&mut self.ports);
        // A default has no line of its own: whoever wrote the same port is told.
        ports.sort_by_key(|(path, _)| self.places.is_written(path));
        for (index, (path, port)) in ports.iter().enumerate() {
            // Port 0 is whatever is free.
            let other = ports.iter().take(index).find(|(_, other)| other == port && *port != 0);
            if let Some((other, _)) = other {
                self.error(path, format!("this port is taken by {other}"));
            }
        }
    }

    pub(super) fn own_address(
        &mut self,
        path: &str,
        text: Option<&str>,
        default: &str,
    ) -> Option<SocketAddr> {
        let text = match text {
            Some(text) => self.expand(path, text)?,
            None if self.places.is_hole(path) => return None,
            None => default.to_owned(),
        };
        let address = addresses(&text).and_then(|all| all.first().copied());
        if address.is_none() {
            self.error(path, "expected an address and a port, such as 127.0.0.1:9465");
        }
        self.ports.extend(address.map(|address| (path.to_owned(), address.port())));
        address
    }
}

/// `localhost:PORT` is both loopback addresses.
fn addresses(text: &str) -> Option<Vec<SocketAddr>> {
    let Some(port) = text.strip_prefix("localhost:") else {
        return Some(vec![text.parse().ok()?]);
    };
    let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse::<u16>().ok())??;
    let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    Some(both.map(|ip| SocketAddr::new(ip, port)).to_vec())
}
