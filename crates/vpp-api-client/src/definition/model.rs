//! What an API consists of: messages, the types of their fields, and which message answers which.

use std::collections::BTreeMap;
use std::fmt;

/// A whole API, or a part of one.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Definitions {
    /// By name, without `vl_api_` and `_t`.
    pub types: BTreeMap<String, Type>,
    /// By name.
    pub messages: BTreeMap<String, Message>,
    /// By the name of the request.
    pub services: BTreeMap<String, Service>,
}

impl Definitions {
    /// Takes requests and their replies from others, where there is none of that name. They have no types of their own.
    pub(crate) fn take_missing(&mut self, others: &Self, requests: &[&str]) {
        for request in requests {
            let Some(service) = others.services.get(*request) else { continue };
            self.services.entry((*request).into()).or_insert_with(|| service.clone());
            for name in std::iter::once(*request).chain(service.reply.as_deref()) {
                if let Some(message) = others.messages.get(name) {
                    self.messages.entry(name.into()).or_insert_with(|| message.clone());
                }
            }
        }
    }
}

/// A type with a name.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Type {
    /// One of some values.
    Enum(Enum),
    /// Any of some bits.
    Flags(Enum),
    /// Another name for a type, or for an array of it.
    Alias(Base, Shape),
    /// Fields one after another.
    Struct(Vec<Field>),
    /// One of the fields, in the room of the largest.
    Union(Vec<Field>),
}

/// The values of an enum or of flags.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enum {
    /// What it is on the wire.
    pub width: Base,
    /// In order.
    pub values: Vec<Value>,
    /// VPP takes other numbers as well, and they mean something.
    pub open: bool,
}

/// A value with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Value {
    /// VPP's name.
    pub name: String,
    /// On the wire.
    pub number: i64,
    /// Whether it may be sent, and whether it counts for the CRC.
    pub standing: Standing,
}

/// What is to be known of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Nothing.
    #[default]
    Usual,
    /// VPP does not survive it: it is never sent.
    Kills,
    /// It came later, without a change of the CRC.
    Later,
}

/// The type of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Base {
    /// One byte.
    U8,
    /// Two bytes, big-endian.
    U16,
    /// Four bytes, big-endian.
    U32,
    /// Eight bytes, big-endian.
    U64,
    /// One byte, signed.
    I8,
    /// Two bytes, big-endian, signed.
    I16,
    /// Four bytes, big-endian, signed.
    I32,
    /// Eight bytes, big-endian, signed.
    I64,
    /// Eight bytes in the host's order.
    F64,
    /// One byte, 0 or 1.
    Bool,
    /// Characters; only in arrays.
    String,
    /// A type with a name.
    Named(String),
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F64 => "f64",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Named(name) => name,
        })
    }
}

/// How many of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// One.
    One,
    /// So many; of a string, so many bytes with its NUL.
    Fixed(usize),
    /// As many as another field of the same block says.
    Counted(String),
    /// Of a string, as many bytes as the four before say; of anything else, as many as are left.
    Open,
}

/// A field of a message, struct or union.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Field {
    /// VPP's name.
    pub name: String,
    /// What it holds.
    pub base: Base,
    /// How many.
    pub shape: Shape,
    /// What a request has unless it says otherwise.
    pub default: Option<Preset>,
    /// The values that make sense, where VPP does not check; of a string, how many bytes.
    pub range: Option<(u64, u64)>,
    /// A key or the like: not for logs.
    pub secret: bool,
    /// What there is to say of it.
    pub doc: String,
}

/// A field's value unless something else is said.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Preset {
    /// An integer, cut to the field's width: -1 is all ones.
    Integer(i128),
    /// A float.
    Float(f64),
    /// A bool.
    Bool(bool),
}

/// What stands between a message's id and its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Nothing.
    Bare,
    /// The context: replies.
    Context,
    /// The client's index: events.
    Client,
    /// Both, in this order: requests, and a few replies.
    ClientContext,
}

impl Head {
    /// Bytes from the message's begin to the first field.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bare => 2,
            Self::Context | Self::Client => 6,
            Self::ClientContext => 10,
        }
    }

    /// Where the context is, if it has one.
    pub const fn context_at(self) -> Option<usize> {
        match self {
            Self::Bare | Self::Client => None,
            Self::Context => Some(2),
            Self::ClientContext => Some(6),
        }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// VPP's name.
    pub name: String,
    /// Of its definition, with the types in it: eight hexadecimal digits.
    pub crc: u32,
    /// What comes before its fields.
    pub head: Head,
    /// All but the head.
    pub fields: Vec<Field>,
    /// What there is to say of it.
    pub doc: String,
}

/// What comes back for a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// The last message; none for a dump, which ends with the answer to a ping behind it.
    pub reply: Option<String>,
    /// The messages before it.
    pub details: Option<String>,
    /// What comes at any time once it is asked for.
    pub events: Vec<String>,
}

impl Definitions {
    /// The fixed bytes that a value of this type has; `None` when that depends on the value.
    pub fn size(&self, base: &Base) -> Option<usize> {
        match base {
            Base::U8 | Base::I8 | Base::Bool => Some(1),
            Base::U16 | Base::I16 => Some(2),
            Base::U32 | Base::I32 => Some(4),
            Base::U64 | Base::I64 | Base::F64 => Some(8),
            Base::String => None,
            Base::Named(name) => match self.types.get(name)? {
                Type::Enum(of) | Type::Flags(of) => self.size(&of.width),
                Type::Alias(base, shape) => self.size_of(base, shape),
                Type::Struct(fields) => {
                    fields.iter().try_fold(0, |sum, field| Some(sum + self.size_of(&field.base, &field.shape)?))
                }
                Type::Union(fields) => {
                    fields.iter().try_fold(0, |most, field| Some(self.size_of(&field.base, &field.shape)?.max(most)))
                }
            },
        }
    }

    /// As [`Definitions::size`], of a field.
    pub fn size_of(&self, base: &Base, shape: &Shape) -> Option<usize> {
        match (base, shape) {
            (Base::String, Shape::Fixed(length)) => Some(*length),
            (_, Shape::One) => self.size(base),
            (_, Shape::Fixed(count)) => self.size(base)?.checked_mul(*count),
            (_, Shape::Counted(_) | Shape::Open) => None,
        }
    }
}

/// Whether a field only says how many another one has.
pub fn is_count(fields: &[Field], name: &str) -> bool {
    fields.iter().any(|field| matches!(&field.shape, Shape::Counted(by) if by == name))
}
