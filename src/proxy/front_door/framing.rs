//! How a request's body ends: the one thing that two readers must never see differently.
//!
//! Refuses where RFC 9112 section 6 lets a recipient repair; it never merges or drops a field.

use http::{Method, Version};

use crate::config::model::Choice;
use crate::proxy::reject::Rejection;

/// How the body of a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes; at least 1.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

/// The framing fields of one head, while it is read.
#[derive(Debug, Default)]
pub(super) struct FramingFields {
    length: Option<u64>,
    chunked: bool,
}

impl FramingFields {
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), Rejection> {
        const RULE: Rejection = Rejection::BadRequest(
            "Content-Length must be given once, as a decimal number without leading zeros",
        );
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let leading_zero = value.len() > 1 && value.starts_with(b"0");
        if self.length.is_some() || !digits || leading_zero {
            return Err(RULE);
        }
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        self.length = Some(number.ok_or(RULE)?);
        Ok(())
    }

    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Rejection> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Rejection::BadRequest(
                "Transfer-Encoding must be given once, as chunked and nothing else",
            ));
        }
        self.chunked = true;
        Ok(())
    }

    pub(super) fn judge(
        &self,
        method: &Method,
        version: Version,
        body_on_get: Choice,
    ) -> Result<Framing, Rejection> {
        let body = match (self.chunked, self.length) {
            (true, Some(_)) => {
                return Err(Rejection::BadRequest(
                    "Content-Length and Transfer-Encoding must not stand side by side",
                ));
            }
            (true, None) if version == Version::HTTP_10 => {
                return Err(Rejection::BadRequest("HTTP/1.0 has no Transfer-Encoding"));
            }
            (true, None) => Framing::Chunked,
            (false, None | Some(0)) => Framing::None,
            (false, Some(bytes)) => Framing::Length(bytes),
        };
        let is_get = *method == Method::GET || *method == Method::HEAD;
        if is_get && body != Framing::None && body_on_get == Choice::Refuse {
            return Err(Rejection::BadRequest(
                "a GET or HEAD must have no body (front_door.body_on_get)",
            ));
        }
        Ok(body)
    }
}
