//! A DataPulse on loopback, for development, tests and the demo.
//!
//! Never for production, and never part of the request path: its credentials are public.

mod assertions;
mod authorization;
mod body;
mod control;
mod counters;
mod faults;
mod limiter;
mod limits;
mod resources;
mod streams;
mod webhooks;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, sync::watch};

#[cfg(test)]
pub(crate) use self::assertions::signer;
pub use self::{
    assertions::{ClientKey, new_key},
    control::Control,
    counters::{Counters, Record},
    faults::{Effect, Fault, Scope},
    limiter::{Kind, Limiter, Rate},
    limits::RateHeaders,
    webhooks::{Delivery, FLAWS, Flaw},
};
use crate::{config::model::Level, serve};

/// A token lives so long, at least and at most.
pub const TOKEN_LIFE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// An API key that the emulator knows.
#[derive(Clone)]
pub struct Key {
    /// What counters call it.
    pub name: String,
    /// The value.
    pub key: String,
    /// What it may do.
    pub level: Level,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An OAuth client that the emulator knows.
#[derive(Clone)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// `client_secret`; `None`: a client that signs (see [`ClientKey`]), or a public one.
    pub secret: Option<String>,
    /// The most that its tokens may do.
    pub level: Level,
    /// Where people are sent back to with a code; on loopback the port does not count (RFC 8252
    /// section 7.3).
    pub redirect_uris: Vec<String>,
}

impl Client {
    /// A client of an app on the person's own machine, sent back to `/callback` on loopback.
    #[must_use]
    pub fn native(id: &str, secret: Option<&str>, level: Level) -> Self {
        let redirect_uris =
            vec!["http://127.0.0.1/callback".into(), "http://[::1]/callback".into()];
        Self { id: id.to_owned(), secret: secret.map(str::to_owned), level, redirect_uris }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A limit for each credential.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// How it is counted.
    pub kind: Kind,
    /// How much.
    pub rate: Rate,
}

/// What an emulator starts with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// API keys; by default one a level, `dp_live_emulator_<level>`.
    pub keys: Vec<Key>,
    /// OAuth clients; by default one a level, `emulator-<level>` with `emulator-secret`, and the
    /// public `emulator-cli`.
    pub clients: Vec<Client>,
    /// Keys that clients sign assertions with: service accounts, and clients without a secret.
    pub client_keys: Vec<ClientKey>,
    /// A refresh token is good once, and the answer has the next one; the default.
    pub rotate_refresh_tokens: bool,
    /// From a second to 24 h.
    pub token_life: Duration,
    /// Off by default.
    pub limit: Option<Limit>,
    /// `Retry-After` as a date instead of seconds.
    pub retry_after_date: bool,
    /// Each answer tells what is left of the limit; off by default.
    pub rate_headers: Option<RateHeaders>,
    /// Listen on an address that others can reach.
    pub beyond_loopback: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let levels = [Level::ReadOnly, Level::ReadWrite, Level::Admin];
        let key = |level: Level| {
            let name = level.as_str().to_owned();
            Key { key: format!("dp_live_emulator_{name}"), name, level }
        };
        let client = |level: Level| {
            let id = format!("emulator-{}", level.as_str());
            Client::native(&id, Some("emulator-secret"), level)
        };
        let mut clients = Vec::from(levels.map(client));
        clients.push(Client::native("emulator-cli", None, Level::ReadWrite));
        Self {
            keys: levels.map(key).into(),
            clients,
            client_keys: Vec::new(),
            rotate_refresh_tokens: true,
            token_life: Duration::from_secs(3600),
            limit: None,
            retry_after_date: false,
            rate_headers: None,
            beyond_loopback: false,
        }
    }
}

/// A bound emulator; [`Self::run`] serves it.
#[derive(Debug)]
pub struct Emulator {
    listener: TcpListener,
    address: SocketAddr,
    control: Arc<Control>,
}

impl Emulator {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// `InvalidInput` for an address beyond loopback without the setting; what binding says.
    pub async fn bind(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        if !address.ip().is_loopback() && !settings.beyond_loopback {
            let text = "the emulator listens on loopback only, unless told otherwise";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let life = settings.token_life;
        let control = Arc::new(Control::new(settings));
        control.set_token_life(life);
        Ok(Self { listener, address, control })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The handle that steers it.
    #[must_use]
    pub fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// Its answers, for a test that serves them over TLS or HTTP/2 itself.
    pub fn router(&self) -> Router {
        Router::new().fallback(resources::handle).with_state(self.control())
    }

    /// Serves until `stop` holds true.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        tracing::warn!(address = %self.address, "the emulator is not for production");
        let app = self.router();
        let limits = serve::Limits {
            connections: 4096,
            head_timeout: Duration::from_secs(75),
            keep_alive: true,
            drain: Duration::from_secs(5),
        };
        serve::serve(self.listener, app, limits, stop).await;
    }
}
