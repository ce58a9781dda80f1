//! The kinds of credential: how each obtains its bearer token.

mod api_key;
mod client_credentials;
mod refresh_token;
mod service_account;
mod session_token;

pub(super) use api_key::ApiKey;
pub(super) use client_credentials::ClientCredentialsGrant;
pub(super) use refresh_token::RefreshTokenGrant;
pub(super) use service_account::ServiceAccountGrant;
pub(super) use session_token::SessionToken;
