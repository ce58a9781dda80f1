//! The two servers of DataPulse: its API and its authorization server.

use url::{Host, Url};

use super::Checker;
use crate::config::collect::join;
use crate::config::model::{Auth, ClientCert, Http2, Origin, TokenRequest, Upstream};
use crate::config::path_pattern::PathPattern;
use crate::config::raw::{self, Raw, Size};

/// What all kept bodies together may take, in bytes; one body cannot take more.
const REPLAY_BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const RETRIES_MAX: u32 = 10;
const BASE_URL: &str = "https://api.datapulse.ai";
const TOKEN_URL: &str = "https://auth.datapulse.ai/oauth/token";
const AUTHORIZE_URL: &str = "https://auth.datapulse.ai/oauth/authorize";

impl Checker<'_> {
    /// The API that calls are sent to.
    pub(super) fn upstream(&mut self, written: Option<&raw::Upstream>) -> Option<Upstream> {
        let default = raw::Upstream::default();
        let written = written.unwrap_or(&default);
        let plaintext = self.takes_plaintext(Some(written));
        let origin = self.origin(written.base_url.as_deref(), plaintext);
        let replay_body = written.replay_body.map_or(1024 * 1024, |Size(bytes)| bytes);
        if replay_body > REPLAY_BODY_BYTES_MAX {
            self.error("upstream.replay_body", "is at most 64MiB, which all calls share");
        }
        let retries = written.retries.unwrap_or(3);
        if retries > RETRIES_MAX {
            self.error("upstream.retries", "is at most 10: each one is a wait for the caller");
        }
        let ca_file = self.file("upstream.ca_file", written.ca_file.as_deref());
        let client_cert = self.client_cert(written.client_cert.as_ref());
        if client_cert.is_some() && origin.as_ref().is_some_and(|origin| !origin.tls) {
            let text = "a certificate is shown over TLS alone, and `base_url` is http";
            self.error("upstream.client_cert", text);
        }
        let connect_timeout = self.timeout("upstream.connect_timeout", written.connect_timeout, 5);
        let request_timeout = self.timeout("upstream.request_timeout", written.request_timeout, 30);
        let idle_timeout = self.timeout("upstream.idle_timeout", written.idle_timeout, 60);
        Some(Upstream {
            origin: origin?,
            ca_file,
            client_cert,
            connect_timeout: connect_timeout?,
            request_timeout: request_timeout?,
            idle_timeout: idle_timeout?,
            retries,
            replay_body_bytes_max: replay_body,
            http2: written.http2.unwrap_or(Http2::Auto),
        })
    }

    fn client_cert(&mut self, written: Option<&raw::ClientCert>) -> Option<ClientCert> {
        let (at, written) = ("upstream.client_cert", written?);
        let certificate = self.required(at, "cert_file", written.cert_file.as_deref());
        let path = join(at, "cert_file");
        let cert_file = certificate.and_then(|file| self.required_file(&path, file));
        let key = self.required(at, "key", written.key.as_deref());
        let key = key.and_then(|key| self.secret(&join(at, "key"), key));
        Some(ClientCert { cert_file: cert_file?, key: key? })
    }

    /// Where what is written is a mistake, that is enough to tell.
    pub(super) fn takes_plaintext(&self, upstream: Option<&raw::Upstream>) -> bool {
        upstream.and_then(|upstream| upstream.allow_plaintext).unwrap_or(false)
            || self.places.is_hole("upstream")
            || self.places.is_hole("upstream.allow_plaintext")
    }

    fn origin(&mut self, written: Option<&str>, plaintext: bool) -> Option<Origin> {
        let path = "upstream.base_url";
        let url = self.url(path, written, BASE_URL, plaintext)?;
        if url.path() != "/" || url.query().is_some() {
            self.error(path, "is scheme, host and port alone: no path, no query");
            return None;
        }
        let host = match url.host()? {
            Host::Domain(name) => name.to_ascii_lowercase(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        Some(Origin { tls: url.scheme() == "https", host, port: url.port_or_known_default()? })
    }

    /// The authorization server.
    pub(super) fn auth(&mut self, raw: &Raw) -> Option<Auth> {
        let default = raw::Auth::default();
        let written = raw.auth.as_ref().unwrap_or(&default);
        let upstream = raw.upstream.as_ref();
        let plaintext = self.takes_plaintext(upstream);
        let token_url =
            self.url("auth.token_url", written.token_url.as_deref(), TOKEN_URL, plaintext);
        let authorize_url = written.authorize_url.as_deref();
        let authorize_url = self.url("auth.authorize_url", authorize_url, AUTHORIZE_URL, plaintext);
        let redirect_uri = self.redirect_uri(written.redirect_uri.as_deref());
        let refresh_path =
            self.api_path("auth.refresh_path", written.refresh_path.as_deref(), "/auth/refresh");
        let verify_path =
            self.api_path("auth.verify_path", written.verify_path.as_deref(), "/auth/verify");
        let upstreams = upstream.and_then(|upstream| upstream.ca_file.as_ref());
        let ca_file = self
            .file("auth.ca_file", written.ca_file.as_deref())
            .or_else(|| upstreams.filter(|file| !file.is_empty()).map(Into::into));
        Some(Auth {
            token_url: token_url?,
            authorize_url: authorize_url?,
            redirect_uri,
            refresh_path: refresh_path?,
            verify_path: verify_path?,
            token_request: written.token_request.unwrap_or(TokenRequest::Json),
            ca_file,
        })
    }

    /// Where people come back to (RFC 6749 section 3.1.2): it may be an app's own scheme.
    fn redirect_uri(&mut self, written: Option<&str>) -> Option<Url> {
        let (path, text) = ("auth.redirect_uri", written.filter(|text| !text.is_empty())?);
        let text = self.expand(path, text)?;
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
        let Some(uri) = Url::parse(&text).ok().filter(|_| plain) else {
            self.error(path, "expected an absolute URI such as http://127.0.0.1:8765/callback");
            return None;
        };
        if let Some(wrong) = unsendable(&uri) {
            self.error(path, wrong);
            return None;
        }
        Some(uri)
    }

    pub(super) fn url(
        &mut self,
        path: &str,
        written: Option<&str>,
        default: &str,
        plaintext: bool,
    ) -> Option<Url> {
        let url = self.any_url(path, written.unwrap_or(default))?;
        if url.scheme() == "http" && !plaintext {
            let text = "use https; http is for tests, and needs `upstream.allow_plaintext: true`";
            self.error(path, text);
            return None;
        }
        if url.scheme() == "http" {
            self.warn(path, "credentials travel in plain text: for tests only");
        }
        Some(url)
    }

    /// A URL of either scheme that says what it means, and holds nothing that is never sent.
    pub(super) fn any_url(&mut self, path: &str, written: &str) -> Option<Url> {
        let text = self.expand(path, written)?;
        // `Url` mends backslashes, line breaks and other scripts; a configuration says what it means.
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
        let url = Url::parse(&text).ok().filter(|url| plain && url.has_host());
        let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) else {
            self.error(path, "expected a URL such as https://datapulse.example");
            return None;
        };
        let Some(wrong) = unsendable(&url) else { return Some(url) };
        self.error(path, wrong);
        None
    }

    /// A path of the API that the sidecar itself calls: plain, so that the policy can name it.
    fn api_path(&mut self, path: &str, written: Option<&str>, default: &str) -> Option<String> {
        self.plain_path(path, written.unwrap_or(default))
    }

    /// A path that has one spelling alone.
    pub(super) fn plain_path(&mut self, path: &str, text: &str) -> Option<String> {
        let plain = text.parse::<PathPattern>().is_ok() && !text.contains(['*', '%']);
        if !plain || text.trim_end_matches('/').is_empty() {
            self.error(
                path,
                "expected a plain path such as /auth/verify: no `%`, `*`, `?` or `..`",
            );
            return None;
        }
        Some(text.to_owned())
    }
}

/// What a URL holds that is never sent.
fn unsendable(url: &Url) -> Option<&'static str> {
    if !url.username().is_empty() || url.password().is_some() {
        Some("holds a user name or a password; credentials belong under `credentials`")
    } else if url.fragment().is_some() {
        Some("a fragment (`#`) is never sent")
    } else {
        None
    }
}
