//! Any message by its definition: JSON in, JSON out.
//!
//! | field | JSON |
//! |---|---|
//! | number | number; `"~0"` is all ones |
//! | enum | VPP's name, or a number that has one; an IP protocol may be any number |
//! | flags | array of names, one name, or a number of bits that have names |
//! | `mac_address`, `address`, `prefix` and the like | as people write them |
//! | `u8[…]` | hexadecimal digits, or an array |
//! | array | array; one of fixed length may be shorter |
//! | struct | object; what is left out has VPP's default, or that of our types, or is zero |
//! | union | object with one member, or with `bytes` |
//!
//! A key that no field has is refused. So is a value that VPP is known not to survive, where the definitions have it, too.

use serde_json::{Map, Value as Json};

use crate::definition::{Definitions, Message};
use crate::wire::{DecodeError, EncodeError, EncodeProblem, Input};

/// Of JSON that is made of one message, unless the caller says.
const MEMORY: usize = 256 << 20;

mod decode;
mod encode;
mod known;

impl Definitions {
    /// The bytes of a message's fields.
    ///
    /// # Errors
    /// A field is not what its definition says.
    pub fn encode(&self, message: &Message, fields: &Json) -> Result<Vec<u8>, EncodeError> {
        let empty = Map::new();
        let fields = match fields {
            Json::Null => &empty,
            Json::Object(fields) => fields,
            other => return Err(unfit("an object", other)),
        };
        let mut out = Vec::new();
        encode::fields(self, &message.fields, fields, &mut out)?;
        Ok(out)
    }

    /// The fields of a message.
    ///
    /// # Errors
    /// The message is cut, or lacks a definition, or would take more than 256 MiB.
    pub fn decode(&self, message: &Message, body: &[u8]) -> Result<Json, DecodeError> {
        self.decode_within(message, body, MEMORY).map(|(fields, _)| fields)
    }

    /// As [`Definitions::decode`], with another limit, and how much of it was needed. Both are estimates.
    ///
    /// # Errors
    /// The message is cut, or lacks a definition, or would take more memory than that.
    pub fn decode_within(&self, message: &Message, body: &[u8], most: usize) -> Result<(Json, usize), DecodeError> {
        let mut decoder = decode::Decoder::new(self, most);
        let fields = decoder.fields(&message.fields, &mut Input::new(body))?;
        Ok((Json::Object(fields), decoder.used()))
    }
}

pub(crate) use decode::memory_of_text;

fn unfit(expected: &str, found: &Json) -> EncodeError {
    let found: String = found.to_string().chars().take(60).collect();
    EncodeProblem::Unfit(format!("expected {expected}, found {found}")).into()
}
