//! The kinds of credential: how each obtains its bearer token.

mod api_key;
mod client_credentials;
mod session_token;

pub(super) use api_key::ApiKey;
pub(super) use client_credentials::ClientCredentialsGrant;
pub(super) use session_token::SessionToken;
