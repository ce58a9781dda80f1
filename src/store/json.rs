//! One key of a JSON object: taken out, or replaced. Its neighbours may be secrets too.
//!
//! serde's own errors are dropped: they quote values.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::StoreError;
use crate::secret::{SecretRef, SecretValue};

/// One top-level string of a JSON object.
pub(super) fn field(
    at: &SecretRef,
    content: &SecretValue,
    key: &str,
) -> Result<Vec<u8>, StoreError> {
    field_at(at, content, &[], key)
}

/// As [`field`], of an object that is itself found under `within`.
pub(super) fn field_at(
    at: &SecretRef,
    content: &SecretValue,
    within: &[&str],
    key: &str,
) -> Result<Vec<u8>, StoreError> {
    let mut json = serde_json::Deserializer::from_slice(content.expose());
    let Ok(found) = Pick { within, key }.deserialize(&mut json) else {
        return Err(StoreError::NotJson { at: at.clone() });
    };
    if json.end().is_err() {
        return Err(StoreError::NotJson { at: at.clone() });
    }
    match found {
        Some(serde_json::Value::String(text)) => Ok(text.into_bytes()),
        Some(_) => Err(StoreError::NotAString { at: at.clone() }),
        None => Err(StoreError::NoSuchKey { at: at.clone() }),
    }
}

/// Picks one key of an object and builds nothing of its neighbours.
#[derive(Clone, Copy)]
struct Pick<'k> {
    within: &'k [&'k str],
    key: &'k str,
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Option<serde_json::Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Option<serde_json::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (wanted, deeper) = match self.within {
            [first, deeper @ ..] => (*first, Some(Self { within: deeper, ..self })),
            [] => (self.key, None),
        };
        let (mut found, mut is_there) = (None, false);
        while let Some(key) = map.next_key::<String>()? {
            if key != wanted {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if std::mem::replace(&mut is_there, true) {
                return Err(A::Error::custom("the key is there twice"));
            }
            found = match deeper {
                Some(deeper) => map.next_value_seed(deeper)?,
                None => Some(map.next_value()?),
            };
        }
        Ok(found)
    }
}

/// The JSON object with one field changed; the others stay.
pub(super) fn with_field(
    at: &SecretRef,
    content: &SecretValue,
    key: &str,
    new: &SecretValue,
) -> Result<SecretValue, StoreError> {
    let not_json = || StoreError::NotJson { at: at.clone() };
    let Ok(mut fields) =
        serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(content.expose())
    else {
        return Err(not_json());
    };
    let text = new.expose_str().ok_or_else(not_json)?;
    fields.insert(key.to_owned(), text.into());
    serde_json::to_vec(&fields).map(SecretValue::new).map_err(|_unwritable| not_json())
}
