//! The head of an answer on its way back to the caller.
//!
//! What belongs to the connection or to the vendor's browser users is taken off, links to the
//! upstream lead back through us, and no header may carry a live secret.

use http::HeaderValue;
use http::header::{HeaderName, LINK, LOCATION};
use pingora::http::ResponseHeader;

use super::call::Call;
use super::{headers, inject, rewrite};
use crate::config::model::Origin;

/// Cleans the head and adds what is ours.
///
/// # Errors
/// A header value that cannot stand in a response.
pub(super) fn clean(response: &mut ResponseHeader, call: &Call) -> Result<(), pingora::BError> {
    for name in headers::response_drop_list(&response.headers) {
        response.remove_header(&name);
    }
    drop_reflected_token(response, call);
    // Only the number says what happened; the words could be anything, the token too.
    response.set_reason_phrase(None)?;
    let origin = &call.snapshot.config.upstream.origin;
    rewrite_each(response, origin, &call.caller_base)?;
    response.insert_header(inject::REQUEST_ID, &*call.request_id)?;
    Ok(())
}

/// A header whose value holds the token that was just sent would hand it to the app.
fn drop_reflected_token(response: &mut ResponseHeader, call: &Call) {
    let Some(token) = &call.token else { return };
    let secret = token.expose();
    let telling: Vec<_> = response
        .headers
        .iter()
        .filter(|(_, value)| headers::contains_secret(value.as_bytes(), &[secret]))
        .map(|(name, _)| name.clone())
        .collect();
    for name in telling {
        tracing::warn!(request_id = &*call.request_id, header = %name,
            "the upstream sent the credential back in a header, which was dropped");
        response.remove_header(&name);
    }
}

fn rewrite_each(
    response: &mut ResponseHeader,
    origin: &Origin,
    caller_base: &str,
) -> Result<(), pingora::BError> {
    type Rewrite = fn(&HeaderValue, &Origin, &str) -> Option<HeaderValue>;
    let rewrites: [(HeaderName, Rewrite); 2] =
        [(LOCATION, rewrite::location), (LINK, rewrite::link)];
    for (name, rewrite) in rewrites {
        let old: Vec<HeaderValue> = response.headers.get_all(&name).iter().cloned().collect();
        let new: Vec<_> = old.iter().map(|value| rewrite(value, origin, caller_base)).collect();
        if new.iter().any(Option::is_some) {
            response.remove_header(&name);
            for (old, new) in old.into_iter().zip(new) {
                response.append_header(&name, new.unwrap_or(old))?;
            }
        }
    }
    Ok(())
}
