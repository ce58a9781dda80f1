//! Keys for a service account's token (IRSA): `AssumeRoleWithWebIdentity` at the security token
//! service.
//!
//! The token's file is read anew each time; the kubelet replaces it about once an hour. The request
//! is not signed, and goes to the configured endpoint or AWS's own, whatever the environment says.

use std::path::PathBuf;

use aws_credential_types::Credentials;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::config::timeout::TimeoutConfig;
use aws_sdk_sts::config::{BehaviorVersion, Config, IdentityCache, Region};
use aws_sdk_sts::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError as Refusal;

use super::connector::Connector;
use super::identity::IdentityProblem;
use crate::store::env;

/// The largest token that is read, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// What the environment says, and where to ask.
#[derive(Debug)]
pub(super) struct WebIdentity {
    /// `None`: there is no web identity here.
    role: Option<Role>,
    sts: Client,
}

#[derive(Debug)]
struct Role {
    arn: String,
    token_file: PathBuf,
    session_name: String,
}

impl WebIdentity {
    /// As it is named in errors.
    pub(super) const NAME: &'static str = "the web identity";

    pub(super) fn new(connector: &Connector, region: &Region, endpoint: Option<&str>) -> Self {
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .http_client(connector.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .identity_cache(IdentityCache::no_cache());
        config.set_endpoint_url(endpoint.map(str::to_owned));
        Self { role: Role::from_environment(), sts: Client::from_conf(config.build()) }
    }

    /// `None`: there is no web identity here.
    pub(super) async fn credentials(&self) -> Result<Option<Credentials>, IdentityProblem> {
        let Some(role) = &self.role else { return Ok(None) };
        let token = role.token().await?;
        let asked = self
            .sts
            .assume_role_with_web_identity()
            .role_arn(&role.arn)
            .role_session_name(&role.session_name)
            .web_identity_token(token)
            .send()
            .await;
        let given = asked.map_err(|error| problem(&error))?.credentials;
        let given = given.ok_or(IdentityProblem::Unavailable { source_name: Self::NAME })?;
        Ok(Some(Credentials::new(
            given.access_key_id,
            given.secret_access_key,
            Some(given.session_token),
            given.expiration.try_into().ok(),
            Self::NAME,
        )))
    }
}

impl Role {
    fn from_environment() -> Option<Self> {
        Some(Self {
            arn: env::variable("AWS_ROLE_ARN")?,
            token_file: env::variable("AWS_WEB_IDENTITY_TOKEN_FILE")?.into(),
            session_name: env::variable("AWS_ROLE_SESSION_NAME")
                .unwrap_or_else(|| "datapulse-sidecar".to_owned()),
        })
    }

    async fn token(&self) -> Result<String, IdentityProblem> {
        let unreadable = IdentityProblem::Misconfigured { source_name: WebIdentity::NAME };
        let found = tokio::fs::metadata(&self.token_file).await;
        if !found.is_ok_and(|file| file.is_file() && file.len() <= TOKEN_BYTES_MAX) {
            return Err(unreadable);
        }
        let token = tokio::fs::read_to_string(&self.token_file).await;
        token.map(|token| token.trim_end().to_owned()).map_err(|_unreadable| unreadable)
    }
}

/// A plain no is told apart from a service that cannot answer now.
fn problem<R>(error: &SdkError<Refusal, R>) -> IdentityProblem {
    let source_name = WebIdentity::NAME;
    let code = error.as_service_error().and_then(|error| error.code());
    match code {
        Some(
            "AccessDenied"
            | "ExpiredTokenException"
            | "IDPRejectedClaim"
            | "InvalidIdentityToken"
            | "RegionDisabledException"
            | "ValidationError",
        ) => IdentityProblem::Refused { source_name },
        _ => IdentityProblem::Unavailable { source_name },
    }
}
