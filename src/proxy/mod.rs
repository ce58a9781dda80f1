//! A call: front door, access, shaping, injection, upstream, answer.

pub mod reject;
