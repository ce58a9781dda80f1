//! The configuration's JSON Schema, for editors. Nothing is checked by it.

use schemars::Schema;
use schemars::generate::SchemaSettings;

use super::raw::Raw;

/// What editors know the schema by.
const ID: &str = "urn:datapulse-sidecar:config:1";
const TITLE: &str = "Configuration of datapulse-sidecar";

/// The JSON Schema (draft 2020-12) of a configuration file, as indented text.
///
/// It has the whole format, with what is part of it and not supported yet.
#[must_use]
pub fn schema() -> String {
    format!("{:#}\n", document().to_value())
}

pub(super) fn document() -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Raw>();
    schema.insert("$id".to_owned(), ID.into());
    schema.insert("title".to_owned(), TITLE.into());
    schema
}
