//! Where DataPulse delivers: paths, the secrets that sign, and the app behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::Checker;
use crate::config::collect::join;
use crate::config::model::{Dedupe, Endpoint, Webhooks};
use crate::config::raw::{self, Size, Span};
use crate::secret::SecretRef;

/// Each delivery is compared with each secret.
const SECRETS_MAX: usize = 8;
const BODY_BYTES: usize = 1024 * 1024;
/// A delivery is kept whole until it is verified.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
const ENTRIES: u32 = 100_000;
const ENTRIES_MAX: u32 = 1_000_000;
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);
const TIMEOUT_S: u64 = 15;

impl Checker<'_> {
    /// The section as a whole, where there is one. What is wrong with it is noted.
    pub(super) fn webhooks(&mut self, written: Option<&raw::Webhooks>) -> Option<Webhooks> {
        let written = written?;
        let listen = self.required("webhooks", "listen", written.listen.as_deref());
        let listen = listen.and_then(|text| self.own_address("webhooks.listen", Some(text), text));
        let path = "webhooks.endpoints";
        let list = self.required("webhooks", "endpoints", written.endpoints.as_deref());
        let empty = "lists no endpoint, so every delivery would be refused";
        let list = self.filled(path, list, empty).unwrap_or_default();
        let mut endpoints = Vec::with_capacity(list.len());
        let mut paths = Vec::new();
        for (at, one) in self.places.items(path).zip(list) {
            if let Some(own) = &one.path {
                paths.push((join(&at, "path"), own.as_str()));
            }
            endpoints.extend(self.endpoint(&at, one, listen));
        }
        self.unique(&paths);
        Some(Webhooks { listen: listen?, endpoints })
    }

    fn endpoint(
        &mut self,
        at: &str,
        written: &raw::Endpoint,
        listen: Option<SocketAddr>,
    ) -> Option<Endpoint> {
        let path = self.required(at, "path", written.path.as_deref());
        let path = path.and_then(|text| self.plain_path(&join(at, "path"), text));
        let secrets = self.signing_secrets(at, written);
        let forward_to = self.forward_to(at, written, listen);
        let Size(body_bytes_max) = written.max_body.unwrap_or(Size(BODY_BYTES));
        if !(1..=BODY_BYTES_MAX).contains(&body_bytes_max) {
            let text = "is from 1B to 16MiB: a delivery is kept whole until it is verified";
            self.error(&join(at, "max_body"), text);
        }
        let timeout = self.timeout(&join(at, "timeout"), written.timeout, TIMEOUT_S);
        let dedupe = written.dedupe.as_ref();
        let dedupe = dedupe.and_then(|one| self.dedupe(&join(at, "dedupe"), one));
        Some(Endpoint {
            path: Arc::from(path?),
            secrets: secrets?,
            forward_to: forward_to?,
            body_bytes_max,
            timeout: timeout?,
            dedupe,
        })
    }

    fn signing_secrets(&mut self, at: &str, written: &raw::Endpoint) -> Option<Vec<SecretRef>> {
        let path = join(at, "secrets");
        let list = self.required(at, "secrets", written.secrets.as_deref());
        let empty = "lists no secret, so no delivery could be verified";
        let list = self.filled(&path, list, empty)?;
        if list.len() > SECRETS_MAX {
            self.error(&path, "lists more than 8 secrets: a current one and its predecessor do");
        }
        let mut secrets = Vec::with_capacity(list.len());
        for (path, text) in self.places.items(&path).zip(list) {
            let Some(secret) = self.secret(&path, text) else { continue };
            if secrets.contains(&secret) {
                self.error(&path, "this secret is listed twice");
            }
            secrets.push(secret);
        }
        Some(secrets)
    }

    fn forward_to(
        &mut self,
        at: &str,
        written: &raw::Endpoint,
        listen: Option<SocketAddr>,
    ) -> Option<url::Url> {
        let path = join(at, "forward_to");
        let text = self.required(at, "forward_to", written.forward_to.as_deref())?;
        let url = self.any_url(&path, text)?;
        let is_here = match url.host()? {
            url::Host::Domain(name) => name == "localhost",
            url::Host::Ipv4(ip) => ip.is_loopback() || ip.is_unspecified(),
            url::Host::Ipv6(ip) => ip.is_loopback() || ip.is_unspecified(),
        };
        let port = url.port_or_known_default();
        if is_here && listen.is_some_and(|own| own.port() != 0 && Some(own.port()) == port) {
            self.error(&path, "is webhooks.listen itself: name the app's port");
            return None;
        }
        Some(url)
    }

    fn dedupe(&mut self, at: &str, written: &raw::Dedupe) -> Option<Dedupe> {
        let path = join(at, "header");
        let header = match written.header.as_deref().map(str::parse::<HeaderName>) {
            None => None,
            Some(Ok(name)) => Some(name),
            Some(Err(_)) => {
                self.error(&path, "expected the name of a header, such as X-Datapulse-Delivery");
                return None;
            }
        };
        let entries = written.entries.unwrap_or(ENTRIES);
        if !(1..=ENTRIES_MAX).contains(&entries) {
            self.error(&join(at, "entries"), "is from 1 to 1000000: each takes memory");
        }
        let path = join(at, "for");
        let keep = self.timeout(&path, written.duration.or(Some(Span(KEEP))), 0)?;
        Some(Dedupe { header, entries: usize::try_from(entries).ok()?, keep })
    }
}
