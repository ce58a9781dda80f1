//! What AWS says no with, told apart by its code. Statuses say little: AWS sends most refusals with
//! 400, and what stands in for it on laptops and in tests with others.
//!
//! Nothing of an answer is kept but what is listed here: messages name accounts and people.

use std::error::Error;

use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ConnectorError, ProvideErrorMetadata, SdkError};

use super::connector::NoAnswer;
use super::identity::IdentityProblem;
use crate::secret::{SecretProblem, SecretRef};
use crate::store::StoreError;
use crate::tls;

/// Why AWS Secrets Manager gave or took nothing.
#[derive(Debug)]
pub(super) enum Problem {
    /// There are no keys to sign a call with, or AWS does not take them.
    Identity(IdentityProblem),
    /// The role may not do this.
    Denied,
    /// The role may not use the secret's key, or the key is disabled.
    Undecryptable,
    /// There is no such secret, or no version with the stage.
    Missing,
    /// Scheduled for deletion.
    Deleted,
    /// Of another region than the one that is asked.
    OtherRegion,
    /// Bytes that are no text.
    Binary,
    /// Too many calls for the account and region.
    Throttled,
    /// A mistake of AWS's.
    Internal,
    /// Somebody else wrote the version that was to be written.
    Exists,
    /// No answer, or none that could be used.
    NoAnswer(NoAnswer),
    /// Something else answers there.
    Unexpected,
}

impl Problem {
    /// What an operation's failure is, with keys from `source_name`.
    pub(super) fn of<E>(error: SdkError<E, HttpResponse>, source_name: &'static str) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        if let Some(refusal) = error.as_service_error() {
            let (code, message) = (refusal.code(), refusal.message());
            return Self::by_code(
                code.unwrap_or_default(),
                message.unwrap_or_default(),
                source_name,
            );
        }
        // A failed exchange carries what the connector said.
        let inner = error.into_source().ok();
        let inner = inner.and_then(|source| source.downcast::<ConnectorError>().ok());
        let inner = inner.map(|error| error.into_source().downcast::<NoAnswer>());
        match inner {
            Some(Ok(no_answer)) => Self::NoAnswer(*no_answer),
            _ => Self::Unexpected,
        }
    }

    fn by_code(code: &str, message: &str, source_name: &'static str) -> Self {
        match code {
            // Where KMS refused, Secrets Manager says so in the message alone.
            "AccessDeniedException" | "AccessDenied"
                if message.starts_with("Access to KMS") || message.contains(" kms:") =>
            {
                Self::Undecryptable
            }
            "AccessDeniedException" | "AccessDenied" => Self::Denied,
            "DecryptionFailure" | "EncryptionFailure" => Self::Undecryptable,
            // AWS takes the name for none of its own: the reference is wrong.
            "ResourceNotFoundException" | "InvalidParameterException" | "ValidationException" => {
                Self::Missing
            }
            "InvalidRequestException" => Self::Deleted,
            "ResourceExistsException" => Self::Exists,
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "LimitExceededException" => Self::Throttled,
            "InternalServiceError"
            | "InternalServiceErrorException"
            | "InternalFailure"
            | "ServiceUnavailable"
            | "ServiceUnavailableException" => Self::Internal,
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "RequestExpired" => Self::Identity(IdentityProblem::Rejected { source_name }),
            _ => Self::Unexpected,
        }
    }

    /// The same, of one secret.
    pub(super) fn at(self, at: &SecretRef) -> StoreError {
        let at = at.clone();
        let unavailable = |at, reason| StoreError::Unavailable { at, reason, retry_after: None };
        match self {
            Self::Identity(IdentityProblem::Refused { .. }) => {
                StoreError::LoginRefused { at, reason: "identity_refused" }
            }
            Self::Identity(IdentityProblem::Rejected { .. }) => {
                StoreError::LoginRefused { at, reason: "identity_rejected" }
            }
            Self::Identity(problem) => StoreError::NoIdentity { at, source: problem.into() },
            Self::Denied => StoreError::Denied { at, reason: "denied" },
            Self::Undecryptable => StoreError::Denied { at, reason: "decryption_denied" },
            Self::Missing => StoreError::Missing { at },
            Self::Deleted => StoreError::Deleted { at },
            Self::OtherRegion => StoreError::OtherRegion { at },
            Self::Binary => StoreError::Unusable { at, problem: SecretProblem::Binary },
            Self::Throttled => unavailable(at, "throttled"),
            Self::Internal => unavailable(at, "internal"),
            Self::Exists => StoreError::Conflict { at },
            Self::NoAnswer(NoAnswer::TooLarge) => StoreError::TooLarge { at },
            Self::NoAnswer(NoAnswer::Redirect) => StoreError::Redirected { at },
            Self::NoAnswer(NoAnswer::Failed(cause)) if cause.is_timeout() => {
                StoreError::Timeout { at }
            }
            Self::NoAnswer(NoAnswer::Failed(cause)) => {
                let reason = tls::failure(&cause);
                StoreError::Unreachable { at, reason, source: cause.into() }
            }
            Self::NoAnswer(NoAnswer::Malformed | NoAnswer::Shunned) | Self::Unexpected => {
                StoreError::NotAnAnswer { at }
            }
        }
    }
}
