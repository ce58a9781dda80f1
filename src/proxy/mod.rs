//! A call: front door, access, shaping, injection, upstream, answer.

pub mod front_door;
pub mod headers;
pub mod reject;
pub mod rewrite;
