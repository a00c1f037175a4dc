//! Bytes to JSON.

use serde_json::{Map, Value as Json, json};

use super::known::{self, kind};
use crate::definition::{Base, Definitions, Enum, Field, Shape, Type};
use crate::wire::{DecodeError, DecodeProblem, Input, Wire, take_fixed_string, take_string};

/// What JSON takes in memory, about: a value in a list that grows, a string beside its bytes, an object, and each of its fields beside its name.
const VALUE: usize = 64;
const STRING: usize = 32;
const OBJECT: usize = 640;
const MEMBER: usize = 128;

/// What JSON takes that is read from a text, about: known before it is read.
pub(crate) fn memory_of_text(text: &str) -> usize {
    let of = |byte| match byte {
        b'{' => OBJECT,
        b',' | b':' => MEMBER,
        _ => 1,
    };
    text.bytes().map(of).sum()
}

/// Bytes of messages take up to some hundred times as much as JSON, so it is counted.
pub(super) struct Decoder<'a> {
    definitions: &'a Definitions,
    most: usize,
    left: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(definitions: &'a Definitions, most: usize) -> Self {
        Self { definitions, most, left: most }
    }

    pub(super) fn used(&self) -> usize {
        self.most - self.left
    }

    fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.left = self.left.checked_sub(bytes).ok_or(DecodeProblem::Large { most: self.most })?;
        Ok(())
    }

    fn string(&mut self, text: String) -> Result<Json, DecodeError> {
        self.charge(STRING + text.len())?;
        Ok(Json::String(text))
    }

    pub(super) fn fields(&mut self, fields: &[Field], input: &mut Input<'_>) -> Result<Map<String, Json>, DecodeError> {
        self.charge(OBJECT)?;
        let mut all = Map::new();
        for field in fields {
            self.charge(MEMBER + field.name.len())?;
            let value =
                self.shaped(&field.base, &field.shape, &all, input).map_err(|error| error.inside(&field.name))?;
            all.insert(field.name.clone(), value);
        }
        Ok(all)
    }

    fn shaped(
        &mut self,
        base: &Base,
        shape: &Shape,
        before: &Map<String, Json>,
        input: &mut Input<'_>,
    ) -> Result<Json, DecodeError> {
        let count = match shape {
            Shape::One => return self.one(base, input),
            Shape::Fixed(room) if *base == Base::String => {
                return take_fixed_string(input, *room).and_then(|text| self.string(text));
            }
            _ if *base == Base::String => return take_string(input).and_then(|text| self.string(text)),
            Shape::Fixed(count) => Some(*count),
            Shape::Counted(by) => {
                Some(before.get(by).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX))
            }
            Shape::Open => None,
        };
        if *base == Base::U8 {
            let bytes = input.bytes(count.unwrap_or(input.left()))?;
            return self.string(known::hex(bytes));
        }
        let mut list = Vec::new();
        while count.map_or(input.left() > 0, |count| list.len() < count) {
            let left = input.left();
            self.charge(VALUE)?;
            list.push(self.one(base, input)?);
            if input.left() == left {
                return Err(DecodeProblem::Empty { count: u64::try_from(list.len()).unwrap_or(0) }.into());
            }
        }
        Ok(Json::Array(list))
    }

    fn one(&mut self, base: &Base, input: &mut Input<'_>) -> Result<Json, DecodeError> {
        Ok(match base {
            Base::U8 => json!(u8::take(input)?),
            Base::U16 => json!(u16::take(input)?),
            Base::U32 => json!(u32::take(input)?),
            Base::U64 => json!(u64::take(input)?),
            Base::I8 => json!(i8::take(input)?),
            Base::I16 => json!(i16::take(input)?),
            Base::I32 => json!(i32::take(input)?),
            Base::I64 => json!(i64::take(input)?),
            Base::F64 => json!(f64::take(input)?),
            Base::Bool => json!(bool::take(input)?),
            Base::String => return Err(DecodeProblem::Unknown("a string without a length".into()).into()),
            Base::Named(name) => match kind(self.definitions, name) {
                Some(known) => {
                    self.charge(STRING + known::LONGEST)?;
                    known.take(input)?
                }
                None => self.named(name, input)?,
            },
        })
    }

    fn named(&mut self, name: &str, input: &mut Input<'_>) -> Result<Json, DecodeError> {
        let undefined = || DecodeProblem::Unknown(format!("type {name} is not defined"));
        match self.definitions.types.get(name).ok_or_else(undefined)? {
            Type::Enum(of) => {
                let number = self.one(&of.width, input)?;
                let known = of.values.iter().find(|value| number.as_i64() == Some(value.number));
                known.map_or(Ok(number), |value| self.string(value.name.clone()))
            }
            Type::Flags(of) => {
                let number = self.one(&of.width, input)?;
                self.flags(of, &number)
            }
            Type::Alias(base, shape) => self.shaped(base, shape, &Map::new(), input),
            Type::Struct(inner) => self.fields(inner, input).map(Json::Object),
            Type::Union(_) => {
                let size = self.definitions.size(&Base::Named(name.into())).ok_or_else(undefined)?;
                let bytes = input.bytes(size)?;
                self.charge(OBJECT + MEMBER)?;
                // The one union whose reader nobody has to guess: IPv4 leaves the rest zero.
                let (member, text) = match bytes {
                    [a, b, c, d, rest @ ..] if name == "address_union" && rest.iter().all(|byte| *byte == 0) => {
                        ("ip4", format!("{a}.{b}.{c}.{d}"))
                    }
                    _ => ("bytes", known::hex(bytes)),
                };
                Ok(json!({ member: self.string(text)? }))
            }
        }
    }

    /// Names, or the number where a bit has none, or has several.
    fn flags(&mut self, of: &Enum, number: &Json) -> Result<Json, DecodeError> {
        let Some(bits) = number.as_i64() else { return Ok(number.clone()) };
        let single = of.values.iter().filter(|value| value.number.count_ones() == 1 && bits & value.number != 0);
        let (mut covered, mut names) = (0, Vec::new());
        for value in single {
            covered |= value.number;
            self.charge(VALUE)?;
            names.push(self.string(value.name.clone())?);
        }
        Ok(if covered == bits { Json::Array(names) } else { number.clone() })
    }
}
