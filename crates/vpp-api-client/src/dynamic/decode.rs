//! Bytes to JSON.

use serde_json::{Map, Value as Json, json};

use super::known::{self, kind};
use crate::definition::{Base, Definitions, Enum, Field, Shape, Type};
use crate::wire::{DecodeError, DecodeProblem, Input, Wire, take_fixed_string, take_string};

pub(super) fn fields(
    definitions: &Definitions,
    fields: &[Field],
    input: &mut Input<'_>,
) -> Result<Map<String, Json>, DecodeError> {
    let mut all = Map::new();
    for field in fields {
        let value =
            shaped(definitions, &field.base, &field.shape, &all, input).map_err(|error| error.inside(&field.name))?;
        all.insert(field.name.clone(), value);
    }
    Ok(all)
}

fn shaped(
    definitions: &Definitions,
    base: &Base,
    shape: &Shape,
    before: &Map<String, Json>,
    input: &mut Input<'_>,
) -> Result<Json, DecodeError> {
    let count = match shape {
        Shape::One => return one(definitions, base, input),
        Shape::Fixed(room) if *base == Base::String => return take_fixed_string(input, *room).map(Json::from),
        _ if *base == Base::String => return take_string(input).map(Json::from),
        Shape::Fixed(count) => Some(*count),
        Shape::Counted(by) => {
            Some(before.get(by).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX))
        }
        Shape::Open => None,
    };
    if *base == Base::U8 {
        return input.bytes(count.unwrap_or(input.left())).map(|bytes| json!(known::hex(bytes)));
    }
    let mut list = Vec::new();
    while count.map_or(input.left() > 0, |count| list.len() < count) {
        let left = input.left();
        list.push(one(definitions, base, input)?);
        if input.left() == left {
            return Err(DecodeProblem::Empty { count: u64::try_from(list.len()).unwrap_or(0) }.into());
        }
    }
    Ok(Json::Array(list))
}

fn one(definitions: &Definitions, base: &Base, input: &mut Input<'_>) -> Result<Json, DecodeError> {
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
        Base::Named(name) => match kind(definitions, name) {
            Some(known) => known.take(input)?,
            None => named(definitions, name, input)?,
        },
    })
}

fn named(definitions: &Definitions, name: &str, input: &mut Input<'_>) -> Result<Json, DecodeError> {
    let undefined = || DecodeProblem::Unknown(format!("type {name} is not defined"));
    match definitions.types.get(name).ok_or_else(undefined)? {
        Type::Enum(of) => {
            let number = one(definitions, &of.width, input)?;
            let known = of.values.iter().find(|value| number.as_i64() == Some(value.number));
            Ok(known.map_or(number, |value| json!(value.name)))
        }
        Type::Flags(of) => one(definitions, &of.width, input).map(|number| flags(of, &number)),
        Type::Alias(base, shape) => shaped(definitions, base, shape, &Map::new(), input),
        Type::Struct(inner) => fields(definitions, inner, input).map(Json::Object),
        Type::Union(_) => {
            let size = definitions.size(&Base::Named(name.into())).ok_or_else(undefined)?;
            let bytes = input.bytes(size)?;
            // The one union whose reader nobody has to guess: IPv4 leaves the rest zero.
            match bytes {
                [a, b, c, d, rest @ ..] if name == "address_union" && rest.iter().all(|byte| *byte == 0) => {
                    Ok(json!({ "ip4": format!("{a}.{b}.{c}.{d}") }))
                }
                _ => Ok(json!({ "bytes": known::hex(bytes) })),
            }
        }
    }
}

/// Names, or the number where a bit has none, or has several.
fn flags(of: &Enum, number: &Json) -> Json {
    let Some(bits) = number.as_i64() else { return number.clone() };
    let single = of.values.iter().filter(|value| value.number.count_ones() == 1 && bits & value.number != 0);
    let mut covered = 0;
    let names: Vec<Json> = single
        .map(|value| {
            covered |= value.number;
            json!(value.name)
        })
        .collect();
    if covered == bits { Json::Array(names) } else { number.clone() }
}
