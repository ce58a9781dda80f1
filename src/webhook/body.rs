//! Reads a delivery's body whole, as it came, within a bound for each and one for all together.
//!
//! Memory is taken as bytes arrive, not as they are announced: who announces much and sends nothing
//! takes nothing from others.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::outcome::Refusal;

/// Bodies of all deliveries together, in bytes.
pub(crate) const BUDGET_BYTES: usize = 64 * 1024 * 1024;
/// For a whole body.
const BODY_TIME: Duration = Duration::from_secs(30);
/// What is read of a body that is refused, so that its sender is not still sending when the answer
/// comes, and for how long.
const UNWANTED_BYTES: usize = 1024 * 1024;
const UNWANTED_TIME: Duration = Duration::from_secs(2);

/// Memory for the bodies of deliveries.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES)))
    }
}

/// A whole body, and its part of the budget.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _budget: Option<OwnedSemaphorePermit>,
}

/// Reads a body of at most `bytes_max` bytes.
///
/// # Errors
/// [`Refusal::TooLarge`], [`Refusal::Busy`], [`Refusal::TooSlow`] or [`Refusal::Broken`].
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    bytes_max: usize,
    budget: &Budget,
) -> Result<Whole, Refusal> {
    let is_large = announced(headers) > bytes_max;
    if is_large && headers.contains_key(EXPECT) {
        // It asks before it sends.
        return Err(Refusal::TooLarge);
    }
    let read = if is_large {
        Err(Refusal::TooLarge)
    } else {
        timeout(BODY_TIME, whole(&mut body, bytes_max, budget))
            .await
            .unwrap_or(Err(Refusal::TooSlow))
    };
    if read.is_err() {
        drop(timeout(UNWANTED_TIME, pour_away(&mut body)).await);
    }
    read
}

/// 0 where nothing is announced: the body is counted in any case.
fn announced(headers: &HeaderMap) -> usize {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn whole(body: &mut Body, bytes_max: usize, budget: &Budget) -> Result<Whole, Refusal> {
    let mut bytes = BytesMut::new();
    let mut taken: Option<OwnedSemaphorePermit> = None;
    while let Some(piece) = next(body).await.map_err(|Broken| Refusal::Broken)? {
        if bytes.len().saturating_add(piece.len()) > bytes_max {
            return Err(Refusal::TooLarge);
        }
        let permits = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&budget.0).try_acquire_many_owned(permits) else {
            return Err(Refusal::Busy);
        };
        match &mut taken {
            Some(taken) => taken.merge(more),
            None => taken = Some(more),
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Whole { bytes: bytes.freeze(), _budget: taken })
}

async fn pour_away(body: &mut Body) {
    let mut left = UNWANTED_BYTES;
    while let Ok(Some(piece)) = next(body).await {
        left = left.saturating_sub(piece.len());
        if left == 0 {
            return;
        }
    }
}

/// The connection ended inside the body, or its framing is wrong.
struct Broken;

/// The next bytes; trailers are passed over.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Broken> {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(Broken),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn body(pieces: &[usize]) -> Body {
        let pieces: Vec<_> =
            pieces.iter().map(|&length| Ok::<_, std::io::Error>(vec![b'x'; length])).collect();
        Body::from_stream(stream::iter(pieces))
    }

    async fn check(
        pieces: &[usize],
        budget: &Budget,
        want: Result<usize, Refusal>,
    ) -> Option<Whole> {
        let whole = read(&HeaderMap::new(), body(pieces), 10, budget).await;
        assert_eq!(whole.as_ref().map(|whole| whole.bytes.len()).map_err(|error| *error), want);
        whole.ok()
    }

    #[tokio::test]
    async fn a_body_is_kept_up_to_its_limit_however_it_is_split() {
        let budget = Budget::default();
        for pieces in [&[10][..], &[1; 10], &[0, 4, 0, 6], &[]] {
            check(pieces, &budget, Ok(pieces.iter().sum())).await;
        }
        for pieces in [&[11][..], &[10, 1], &[5, 5, 5]] {
            check(pieces, &budget, Err(Refusal::TooLarge)).await;
        }
    }

    #[tokio::test]
    async fn an_announced_length_over_the_limit_is_refused_unread() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, 11.into());
        let read = read(&headers, body(&[1]), 10, &Budget::default()).await;
        assert_eq!(read.unwrap_err(), Refusal::TooLarge);
    }

    #[tokio::test]
    async fn all_bodies_share_a_budget_and_give_it_back() {
        let budget = Budget(Arc::new(Semaphore::new(15)));
        let held = check(&[4, 4], &budget, Ok(8)).await;
        check(&[4, 4], &budget, Err(Refusal::Busy)).await;
        check(&[7], &budget, Ok(7)).await;
        drop(held);
        check(&[10], &budget, Ok(10)).await;
        assert_eq!(budget.0.available_permits(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up() {
        let endless = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let read = read(&HeaderMap::new(), endless, 10, &Budget::default()).await;
        assert_eq!(read.unwrap_err(), Refusal::TooSlow);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_no_delivery() {
        let pieces = [Ok(vec![b'x']), Err(std::io::Error::other("gone"))];
        let broken = Body::from_stream(stream::iter(pieces));
        let read = read(&HeaderMap::new(), broken, 10, &Budget::default()).await;
        assert_eq!(read.unwrap_err(), Refusal::Broken);
    }
}
