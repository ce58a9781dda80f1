//! A serde deserializer over the tree: its errors know their place and path, and hold no value.
//!
//! Stricter than most: a list is never taken for a mapping, and text that YAML reads as a number
//! has to stand in quotes.

use std::collections::BTreeSet;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer as _, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::{Fault, one_of};
use super::join;
use super::tree::{Kind, Node, Place};

/// A value on its way to a type.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) path: &'a str,
    /// Paths that are passed over.
    pub(super) holes: &'a BTreeSet<String>,
}

impl At<'_> {
    fn found(&self) -> Unexpected<'_> {
        match &self.node.kind {
            Kind::Null => Unexpected::Unit,
            Kind::Bool(value) => Unexpected::Bool(*value),
            Kind::Integer(value) => Unexpected::Signed(*value),
            Kind::Float(value) => Unexpected::Float(*value),
            Kind::Text(_) => Unexpected::Str(""),
            Kind::List(_) => Unexpected::Seq,
            Kind::Mapping(_) => Unexpected::Map,
        }
    }
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let visited = match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Integer(value) => visitor.visit_i64(*value),
            Kind::Float(value) => visitor.visit_f64(*value),
            Kind::Text(value) => visitor.visit_str(value),
            Kind::List(items) => {
                visitor.visit_seq(Items { at: self, rest: items.iter().enumerate() })
            }
            Kind::Mapping(entries) => {
                visitor.visit_map(Entries { at: self, rest: entries.iter(), value: None })
            }
        };
        visited.map_err(|fault| fault.at(self.node.place, self.path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.node.kind {
            Kind::Mapping(_) => self.deserialize_any(visitor),
            _ => {
                Err(Fault::invalid_type(self.found(), &"a mapping").at(self.node.place, self.path))
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let read = match &self.node.kind {
            Kind::Text(text) => visitor.visit_enum(Name(text)),
            _ => {
                let want = one_of(variants);
                Err(Fault::invalid_type(self.found(), &want.as_str()))
            }
        };
        read.map_err(|fault| fault.at(self.node.place, self.path))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'a> {
    at: At<'a>,
    rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        for (index, node) in self.rest.by_ref() {
            let path = format!("{}[{index}]", self.at.path);
            if !self.at.holes.contains(&path) {
                let item = At { node, path: &path, holes: self.at.holes };
                return seed.deserialize(item).map(Some).map_err(|f| f.at(node.place, &path));
            }
        }
        Ok(None)
    }
}

struct Entries<'a> {
    at: At<'a>,
    rest: std::slice::Iter<'a, (String, Place, Node)>,
    value: Option<(String, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        for (key, place, node) in self.rest.by_ref() {
            let path = join(self.at.path, key);
            if !self.at.holes.contains(&path) {
                let name: StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
                let read = seed.deserialize(name).map_err(|fault| fault.at(*place, &path));
                self.value = Some((path, node));
                return read.map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((path, node)) = self.value.take() else {
            return Err(Fault::custom("a value without its key"));
        };
        let value = At { node, path: &path, holes: self.at.holes };
        seed.deserialize(value).map_err(|fault| fault.at(node.place, &path))
    }
}

/// The name of an enum's variant, which holds nothing more.
struct Name<'a>(&'a str);

impl<'de> EnumAccess<'de> for Name<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Name<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Fault> {
        Err(Fault::custom("expected a name"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(Fault::custom("expected a name"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault> {
        Err(Fault::custom("expected a name"))
    }
}
