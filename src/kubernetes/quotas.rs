//! A pod begins with a new volume, and does not know what the one before it sent: its configuration
//! says so, in each quota that says nothing itself. Nothing else of the text is touched.

use super::edit::{Editor, Part};
use super::error::ManifestError;
use super::manifest::{self, Node};
use crate::config::Config;

/// The text of a configuration, whose limited quotas begin paced.
///
/// # Errors
/// A quota is written in a way that nothing can be added to.
pub(super) fn begin_paced(text: &str, config: &Config) -> Result<String, ManifestError> {
    let documents = manifest::read(text)?;
    let quotas = documents.first().and_then(|document| document.at(&["quotas"]));
    let Some(Node::Mapping(quotas)) = quotas else { return Ok(text.to_owned()) };
    let mut editor = Editor::new(text);
    for quota in quotas {
        let is_limited = config.quotas.get(&quota.key).is_some_and(|known| known.limit.is_some());
        // What an alias stands for is written where its anchor is.
        let is_here = quota.value_at.is_some();
        if is_limited && is_here && quota.value.entry("cold_start").is_none() {
            editor.add_under(quota, &Part(vec!["cold_start: paced".to_owned()]))?;
        }
    }
    Ok(editor.write())
}
