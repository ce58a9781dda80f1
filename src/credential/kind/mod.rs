//! The kinds of credential: how each obtains its bearer token.

mod api_key;
mod client_credentials;

pub(super) use api_key::ApiKey;
pub(super) use client_credentials::ClientCredentialsGrant;
