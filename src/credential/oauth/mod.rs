//! OAuth 2.0 as far as a client needs it.

mod endpoint;

pub(super) use endpoint::TokenEndpoint;

#[cfg(test)]
mod tests;
