//! JSON to bytes.

use serde_json::{Map, Value as Json};

use super::known::{self, kind};
use super::unfit;
use crate::definition::{Base, Definitions, Enum, Field, Preset, Shape, Standing, Type, is_count};
use crate::wire::{EncodeError, EncodeProblem, Wire, no_longer, put_fixed_string, put_string, within};

pub(super) fn fields(
    definitions: &Definitions,
    fields: &[Field],
    values: &Map<String, Json>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if let Some(stranger) = values.keys().find(|key| !fields.iter().any(|field| field.name == **key)) {
        let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(EncodeProblem::Unfit(format!("there is no {stranger}; the fields are: {known}")).into());
    }
    for field in fields {
        let value = values.get(&field.name).unwrap_or(&Json::Null);
        one_field(definitions, fields, values, field, value, out).map_err(|error| {
            // What is wrong with it may quote it.
            let secret = field.secret && matches!(error.problem(), EncodeProblem::Unfit(_));
            if secret { unfit_secret(field) } else { error }.inside(&field.name)
        })?;
    }
    Ok(())
}

fn one_field(
    definitions: &Definitions,
    fields: &[Field],
    values: &Map<String, Json>,
    field: &Field,
    value: &Json,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if is_count(fields, &field.name) {
        return count(definitions, fields, values, field, value, out);
    }
    if let (Some(preset), Json::Null) = (&field.default, value) {
        return put_preset(definitions, preset, &field.base, out);
    }
    let from = out.len();
    shaped(definitions, &field.base, &field.shape, value, out)?;
    match (field.range, &field.base) {
        (Some((_, most)), Base::String) => no_longer(value.as_str().unwrap_or_default(), most),
        (Some((low, high)), _) => as_number(&out[from..]).map_or(Ok(()), |number| within(number, low, high)),
        (None, _) => Ok(()),
    }
}

fn unfit_secret(field: &Field) -> EncodeError {
    let expected = match (&field.base, &field.shape) {
        (Base::String, _) => "a string".into(),
        (Base::U8, Shape::Fixed(count)) => format!("up to {count} bytes, in hexadecimal digits or an array"),
        (base, _) => format!("what makes a {base}"),
    };
    EncodeProblem::Unfit(format!("expected {expected}; what was given is secret, and not shown")).into()
}

/// A number as it was just written.
fn as_number(bytes: &[u8]) -> Result<u64, ()> {
    if bytes.len() > 8 {
        return Err(());
    }
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// As many as the arrays have that it counts; if it is given as well, it has to agree.
fn count(
    definitions: &Definitions,
    fields: &[Field],
    values: &Map<String, Json>,
    field: &Field,
    given: &Json,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let counted = fields.iter().find(|of| matches!(&of.shape, Shape::Counted(by) if *by == field.name));
    let length = match counted.and_then(|of| values.get(&of.name)) {
        Some(Json::Array(list)) => list.len(),
        Some(Json::String(digits)) => known::bytes(digits).map_or(0, |bytes| bytes.len()),
        _ => 0,
    };
    if !given.is_null() && given.as_u64() != u64::try_from(length).ok() {
        return Err(EncodeProblem::Unfit(format!("{given} for {length} elements: leave it out")).into());
    }
    shaped(definitions, &field.base, &Shape::One, &length.into(), out)
}

fn put_preset(definitions: &Definitions, preset: &Preset, base: &Base, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let json = match preset {
        Preset::Integer(value) if *base == Base::Bool => Json::from(*value != 0),
        Preset::Integer(value) => {
            let width = definitions.size(base).unwrap_or(4).min(8);
            out.extend_from_slice(&value.to_be_bytes()[16 - width..]);
            return Ok(());
        }
        Preset::Float(value) => Json::from(*value),
        Preset::Bool(value) => Json::from(*value),
    };
    shaped(definitions, base, &Shape::One, &json, out)
}

fn shaped(
    definitions: &Definitions,
    base: &Base,
    shape: &Shape,
    value: &Json,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match (base, shape) {
        (Base::String, _) => {
            let text = if value.is_null() { "" } else { value.as_str().ok_or_else(|| unfit("a string", value))? };
            if let Shape::Fixed(room) = shape { put_fixed_string(text, *room, out) } else { put_string(text, out) }
        }
        (_, Shape::One) => one(definitions, base, value, out),
        (Base::U8, _) if value.is_string() => {
            let text = value.as_str().unwrap_or_default();
            let bytes = known::bytes(text).ok_or_else(|| unfit("hexadecimal digits, two a byte", value))?;
            pad(
                definitions,
                base,
                shape,
                bytes.len(),
                |out| {
                    out.extend_from_slice(&bytes);
                    Ok(())
                },
                out,
            )
        }
        _ => {
            let list = match value {
                Json::Null => &[],
                Json::Array(list) => list.as_slice(),
                other => return Err(unfit("an array", other)),
            };
            pad(
                definitions,
                base,
                shape,
                list.len(),
                |out| {
                    list.iter().enumerate().try_for_each(|(at, item)| {
                        one(definitions, base, item, out).map_err(|error| error.inside(&at.to_string()))
                    })
                },
                out,
            )
        }
    }
}

/// Writes what there is, and of an array of fixed length the rest.
fn pad(
    definitions: &Definitions,
    base: &Base,
    shape: &Shape,
    given: usize,
    put: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let Shape::Fixed(length) = *shape else { return put(out) };
    if given > length {
        return Err(EncodeProblem::Unfit(format!("{given} elements where {length} fit")).into());
    }
    put(out)?;
    (given..length).try_for_each(|_| one(definitions, base, &Json::Null, out))
}

fn one(definitions: &Definitions, base: &Base, value: &Json, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match base {
        Base::U8 => integer::<u8>(value)?.put(out),
        Base::U16 => integer::<u16>(value)?.put(out),
        Base::U32 => integer::<u32>(value)?.put(out),
        Base::U64 => integer::<u64>(value)?.put(out),
        Base::I8 => integer::<i8>(value)?.put(out),
        Base::I16 => integer::<i16>(value)?.put(out),
        Base::I32 => integer::<i32>(value)?.put(out),
        Base::I64 => integer::<i64>(value)?.put(out),
        Base::F64 if value.is_null() => 0.0_f64.put(out),
        Base::F64 => value.as_f64().ok_or_else(|| unfit("a number", value))?.put(out),
        Base::Bool if value.is_null() => false.put(out),
        Base::Bool => value.as_bool().ok_or_else(|| unfit("true or false", value))?.put(out),
        Base::String => Err(unfit("a definition that says how long the string is", value)),
        Base::Named(name) => match kind(definitions, name) {
            Some(known) => known.put(value, out),
            None => named(definitions, name, value, out),
        },
    }
}

trait Integer: TryFrom<i128> {
    const ALL_ONES: i128;
    const EXPECTED: &'static str;
}

macro_rules! integers {
    ($($type:ident $ones:expr, $expected:literal;)*) => {$(
        impl Integer for $type {
            const ALL_ONES: i128 = $ones;
            const EXPECTED: &'static str = $expected;
        }
    )*};
}

integers! {
    u8 0xff, "a number from 0 to 255";
    u16 0xffff, "a number from 0 to 65535";
    u32 0xffff_ffff, "a number from 0 to 4294967295";
    u64 0xffff_ffff_ffff_ffff, "a number from 0 to 18446744073709551615";
    i8 -1, "a number from -128 to 127";
    i16 -1, "a number from -32768 to 32767";
    i32 -1, "a number from -2147483648 to 2147483647";
    i64 -1, "a number from -9223372036854775808 to 9223372036854775807";
}

fn integer<T: Integer>(value: &Json) -> Result<T, EncodeError> {
    let number: Option<i128> = match value {
        Json::Null => Some(0),
        Json::String(text) if text == "~0" => Some(T::ALL_ONES),
        Json::Number(number) => number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)),
        _ => None,
    };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| unfit(T::EXPECTED, value))
}

fn named(definitions: &Definitions, name: &str, value: &Json, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let undefined = || EncodeProblem::Unfit(format!("type {name} is not defined"));
    match definitions.types.get(name).ok_or_else(undefined)? {
        Type::Enum(of) => {
            let number = if value.is_null() { initial(of) } else { enumerator(of, name, value)? };
            one(definitions, &of.width, &number.into(), out)
        }
        Type::Flags(of) => flags(definitions, of, value, out),
        Type::Alias(base, shape) => shaped(definitions, base, shape, value, out),
        Type::Struct(inner) => match value {
            Json::Null => fields(definitions, inner, &Map::new(), out),
            Json::Object(values) => fields(definitions, inner, values, out),
            other => Err(unfit("an object", other)),
        },
        Type::Union(members) => union(definitions, name, members, value, out),
    }
}

fn initial(of: &Enum) -> i64 {
    let zero = of.values.iter().find(|value| value.number == 0);
    zero.or_else(|| of.values.first()).map_or(0, |value| value.number)
}

fn enumerator(of: &Enum, name: &str, value: &Json) -> Result<i64, EncodeError> {
    let found = of.values.iter().find(|known| match value {
        Json::String(text) => known.name == *text,
        other => other.as_i64() == Some(known.number),
    });
    match found {
        Some(found) if found.standing == Standing::Kills => {
            Err(EncodeProblem::Unfit(format!("{value} ends VPP's process: choose another {name}")).into())
        }
        Some(found) => Ok(found.number),
        None if of.open && value.is_i64() => Ok(value.as_i64().unwrap_or_default()),
        None => {
            let usable = of.values.iter().filter(|known| known.standing != Standing::Kills);
            let names: Vec<&str> = usable.map(|known| known.name.as_str()).collect();
            Err(unfit(&format!("one of {}", names.join(", ")), value))
        }
    }
}

fn flags(definitions: &Definitions, of: &Enum, value: &Json, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let usable = || of.values.iter().filter(|known| known.standing != Standing::Kills);
    let unfit = |found: &Json| {
        let names: Vec<&str> = usable().map(|known| known.name.as_str()).collect();
        unfit(&format!("an array of names out of {}, or a number of their bits", names.join(", ")), found)
    };
    let bit = |name: &Json| {
        let known = usable().find(|known| name.as_str() == Some(&known.name));
        known.map(|known| known.number).ok_or_else(|| unfit(name))
    };
    let bits = match value {
        Json::Null => 0,
        Json::Array(names) => names.iter().try_fold(0, |bits, name| Ok::<_, EncodeError>(bits | bit(name)?))?,
        Json::String(_) => bit(value)?,
        other => {
            let number = other.as_i64().ok_or_else(|| unfit(other))?;
            let all = usable().fold(0, |all, known| all | known.number);
            if number & !all != 0 && !of.open {
                return Err(unfit(other));
            }
            number
        }
    };
    one(definitions, &of.width, &bits.into(), out)
}

fn union(
    definitions: &Definitions,
    name: &str,
    members: &[Field],
    value: &Json,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let size = definitions.size(&Base::Named(name.into())).unwrap_or(0);
    let from = out.len();
    match value {
        Json::Null => {}
        Json::Object(values) if values.len() == 1 => {
            let (key, value) = values.iter().next().unwrap_or_else(|| unreachable!("it has one"));
            if let (true, Some(text)) = (key == "bytes", value.as_str()) {
                let bytes = known::bytes(text).filter(|bytes| bytes.len() <= size);
                out.extend(bytes.ok_or_else(|| unfit("hexadecimal digits of the union's bytes", value))?);
            } else {
                let member = members.iter().find(|member| member.name == *key);
                let member = member.ok_or_else(|| unfit(&one_of(members), &Json::from(key.as_str())))?;
                shaped(definitions, &member.base, &member.shape, value, out).map_err(|error| error.inside(key))?;
            }
        }
        other => return Err(unfit(&format!("an object with {}", one_of(members)), other)),
    }
    out.resize(from + size, 0);
    Ok(())
}

fn one_of(members: &[Field]) -> String {
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    format!("one of {}", names.join(", "))
}
