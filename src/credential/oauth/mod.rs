//! OAuth 2.0 as far as a client needs it.

mod jwt;
mod endpoint;
mod login;
mod pkce;
mod request;

pub(super) use endpoint::TokenEndpoint;
pub(super) use jwt::Account;
pub use jwt::KeyProblem;
pub use login::{AuthorizationServer, Question, Returned};
pub use pkce::NoRandomness;
pub(super) use request::{Shown, asking, assertion};

#[cfg(test)]
mod tests;
