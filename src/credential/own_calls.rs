//! The calls that the sidecar itself makes to the API host: they count there as those of apps do, so
//! each needs the right to be made. Whoever runs the credentials says who gives it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;

use super::MintError;
use crate::{clock, retry_after};

/// Who may call the API host when.
#[async_trait]
pub trait OwnCalls: std::fmt::Debug + Send + Sync {
    /// Waits for the right to send one request with this credential now; `None`: there is no room in
    /// time.
    async fn permit(&self, credential: &str) -> Option<Box<dyn OwnCall>>;
}

/// The right to send one request. Dropping it says that no answer came.
pub trait OwnCall: std::fmt::Debug + Send {
    /// What became of it.
    fn ended(self: Box<Self>, how: Ended);
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// There was no connection: it did not leave.
    NotSent,
    /// It may have arrived.
    Unanswered,
    /// The API answered.
    Answered {
        /// The HTTP status.
        status: u16,
        /// How long the API wants to be left alone.
        retry_after: Option<Duration>,
    },
}

impl Ended {
    /// As a client saw it.
    pub(super) fn of(outcome: &Result<reqwest::Response, reqwest::Error>) -> Self {
        match outcome {
            Ok(answer) => Self::answered(answer.status().as_u16(), answer.headers()),
            Err(error) if error.is_connect() => Self::NotSent,
            Err(_broken) => Self::Unanswered,
        }
    }

    /// As its outcome tells.
    pub(super) const fn of_mint<T>(outcome: &Result<T, MintError>) -> Self {
        match outcome {
            Ok(_) => Self::Answered { status: 200, retry_after: None },
            Err(MintError::Refused { status, retry_after, .. }) => {
                Self::Answered { status: *status, retry_after: *retry_after }
            }
            Err(MintError::Unreachable(_)) => Self::NotSent,
            Err(_broken) => Self::Unanswered,
        }
    }

    fn answered(status: u16, headers: &HeaderMap) -> Self {
        Self::Answered { status, retry_after: retry_after::parse(headers, clock::wall()) }
    }
}

/// Lets every call be made at once: where nothing is shaped.
#[derive(Debug, Clone, Copy)]
pub struct Free;

#[async_trait]
impl OwnCalls for Free {
    async fn permit(&self, _credential: &str) -> Option<Box<dyn OwnCall>> {
        Some(Box::new(Self))
    }
}

impl OwnCall for Free {
    fn ended(self: Box<Self>, _how: Ended) {}
}

/// Who gives one credential its permits.
#[derive(Debug, Clone)]
pub(super) struct Permits {
    pub(super) calls: Arc<dyn OwnCalls>,
    pub(super) credential: Arc<str>,
}

impl Permits {
    /// The right to send one request now.
    pub(super) async fn next(&self) -> Result<Box<dyn OwnCall>, MintError> {
        self.calls.permit(&self.credential).await.ok_or(MintError::NoRoom)
    }
}
