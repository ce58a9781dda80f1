//! `login`: what a person allowed is exchanged for a refresh token, which goes straight into its
//! store.
//!
//! Whatever can be known to fail is found out before the person is asked. The token is never told.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::advice::{to_read, to_write};
use super::build::StartError;
use super::clients::authorization_server;
use super::keep::keep;
use super::stores;
use crate::config::Config;
use crate::config::model::RefreshToken;
use crate::credential::{AuthorizationServer, MintError, NoRandomness, Question};
use crate::secret::SecretValue;
use crate::store::{SecretStore, StoreError, Stores};
use crate::telemetry::Metrics;

/// Ready to ask a person.
#[derive(Debug)]
pub struct Login {
    grant: RefreshToken,
    stores: Arc<Stores>,
    server: AuthorizationServer,
    /// What the client shows; `None`: it is a public one.
    shown: Option<SecretValue>,
}

/// Why nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// See the cause.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The refresh token could not be kept: correct that first, see [`Self::advice`].
    #[error("the refresh token could not be kept")]
    Keep(#[source] StoreError),
    /// What the client shows at the token endpoint cannot be read.
    #[error("the client's own secret cannot be read")]
    Client(#[source] StoreError),
    /// See the cause.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The token endpoint gives nothing for the code.
    #[error("the code was not exchanged for a token")]
    Exchange(#[source] MintError),
    /// There is a token, and none to renew it with.
    #[error(
        "the issuer gave no refresh token: the client may have to be allowed the grant type \
         refresh_token, or to ask for a scope such as offline_access"
    )]
    NoRefreshToken,
    /// The refresh token is there and could not be kept: it is lost, so log in again.
    #[error("the refresh token was obtained and could not be kept; log in again")]
    Lost(#[source] StoreError),
    /// Whether the refresh token was kept is not known, and what is there by now is not overwritten: it
    /// may be what the kept one was renewed to.
    #[error(
        "the store did not say whether it kept the refresh token, and holds another one by now: look \
         at `status`, and log in again where it says login_required"
    )]
    Overtaken,
}

impl Login {
    /// Finds out whether what comes of a login could be exchanged and kept.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn prepare(
        config: &Config,
        grant: &RefreshToken,
        metrics: &Metrics,
    ) -> Result<Self, LoginError> {
        let stores = stores::open(config, metrics)?;
        let server = authorization_server(config)?;
        stores.may_put(&grant.token).await.map_err(LoginError::Keep)?;
        let shown = match &grant.auth {
            None => None,
            Some(auth) if auth.has_document() => Some(stores.read_document(auth.secret()).await),
            Some(auth) => Some(stores.read(auth.secret()).await),
        };
        let shown = shown.transpose().map_err(LoginError::Client)?.map(|found| found.value);
        Ok(Self { grant: grant.clone(), stores, server, shown })
    }

    /// What to ask, so that the answer comes to `redirect_uri`.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn question(&self, redirect_uri: Url) -> Result<Question, LoginError> {
        Ok(Question::new(&self.grant, &self.server.auth, redirect_uri)?)
    }

    /// Exchanges the code that answers the question, and keeps the refresh token.
    ///
    /// # Errors
    /// Why there is none, or why it is lost.
    pub async fn finish(&self, question: &Question, code: &SecretValue) -> Result<(), LoginError> {
        let exchanged =
            self.server.exchange(&self.grant, self.shown.as_ref(), question, code).await;
        let token = exchanged.map_err(LoginError::Exchange)?.ok_or(LoginError::NoRefreshToken)?;
        keep(&*self.stores, &self.grant.token, &token).await
    }

    /// How long until a running sidecar looks for another secret there; `None`: it notices at once.
    #[must_use]
    pub fn noticed_within(&self) -> Option<Duration> {
        self.stores.poll(&self.grant.token)
    }
}

impl LoginError {
    /// What to do about it, where that is not said yet.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Keep(error) | Self::Lost(error) => to_write(error),
            Self::Client(error) => to_read(error),
            Self::Exchange(_) => Some(
                "look at auth.token_url and at what the credential says of its client, and log in \
                 again"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
