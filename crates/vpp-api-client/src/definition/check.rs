//! Definitions of others, before anything is read by them: complete, finite, and with what we know to be dangerous.

use std::collections::HashMap;

use super::model::{Base, Definitions, Enum, Field, Shape, Standing, Type};

/// No type of VPP's has that many bytes.
const SIZE: usize = 1 << 24;

enum Seen {
    /// On the way down: to meet it again is a circle.
    Open,
    /// The least bytes of a value.
    Done(usize),
}

impl Definitions {
    /// Every type that is named is there, none contains itself, none is without bytes or larger than memory.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut seen = HashMap::new();
        for name in self.types.keys() {
            self.size_of_type(name, &mut seen)?;
        }
        for message in self.messages.values() {
            self.sum(&message.fields, &mut seen).map_err(|error| format!("message {}: {error}", message.name))?;
        }
        Ok(())
    }

    fn size_of_type<'a>(&'a self, name: &'a str, seen: &mut HashMap<&'a str, Seen>) -> Result<usize, String> {
        match seen.get(name) {
            Some(Seen::Done(size)) => return Ok(*size),
            Some(Seen::Open) => return Err(format!("type {name} contains itself")),
            None => {}
        }
        seen.insert(name, Seen::Open);
        let size = match self.types.get(name).ok_or_else(|| format!("type {name} is not defined"))? {
            Type::Enum(of) | Type::Flags(of) => self.size(&of.width).ok_or_else(|| format!("{name} has no width"))?,
            Type::Alias(base, shape) => self.least(base, shape, seen)?,
            Type::Struct(fields) => self.sum(fields, seen)?,
            Type::Union(fields) => {
                let mut most = 0;
                for field in fields {
                    most = most.max(self.least(&field.base, &field.shape, seen)?);
                    if self.size_of(&field.base, &field.shape).is_none() {
                        return Err(format!("union {name} has a member without a fixed size: {}", field.name));
                    }
                }
                most
            }
        };
        if size == 0 || size > SIZE {
            return Err(format!("a {name} has {size} bytes, expected 1 to {SIZE}"));
        }
        seen.insert(name, Seen::Done(size));
        Ok(size)
    }

    fn sum<'a>(&'a self, fields: &'a [Field], seen: &mut HashMap<&'a str, Seen>) -> Result<usize, String> {
        let mut sum: usize = 0;
        for (at, field) in fields.iter().enumerate() {
            if let Shape::Counted(by) = &field.shape
                && !fields[..at].iter().any(|of| of.name == *by && of.shape == Shape::One && is_integer(&of.base))
            {
                return Err(format!("{} is counted by {by}, which is no number before it", field.name));
            }
            sum = sum.saturating_add(self.least(&field.base, &field.shape, seen)?);
        }
        if sum > SIZE { Err(format!("{sum} bytes, expected at most {SIZE}")) } else { Ok(sum) }
    }

    fn least<'a>(
        &'a self,
        base: &'a Base,
        shape: &'a Shape,
        seen: &mut HashMap<&'a str, Seen>,
    ) -> Result<usize, String> {
        let one = match base {
            Base::Named(name) => self.size_of_type(name, seen)?,
            Base::String if *shape == Shape::One => return Err("a string that is no array".into()),
            Base::String => 1,
            other => self.size(other).unwrap_or(1),
        };
        match shape {
            Shape::One => Ok(one),
            Shape::Fixed(count) => Ok(one.saturating_mul(*count)),
            // Its length comes before it.
            Shape::Open if *base == Base::String => Ok(4),
            Shape::Counted(_) | Shape::Open => Ok(0),
        }
    }

    /// What we know of values and fields, where these definitions have the same.
    pub(super) fn take_cautions_of(&mut self, ours: &Self) {
        for (name, of) in &ours.types {
            match (of, self.types.get_mut(name)) {
                (Type::Enum(ours), Some(Type::Enum(theirs))) => take_deadly(theirs, ours),
                (Type::Struct(ours), Some(Type::Struct(theirs))) => take_fields(theirs, ours),
                _ => {}
            }
        }
        for (name, ours) in &ours.messages {
            if let Some(theirs) = self.messages.get_mut(name) {
                take_fields(&mut theirs.fields, &ours.fields);
            }
        }
    }
}

fn take_deadly(theirs: &mut Enum, ours: &Enum) {
    let deadly = |number| ours.values.iter().any(|v| v.number == number && v.standing == Standing::Kills);
    for value in theirs.values.iter_mut().filter(|value| deadly(value.number)) {
        value.standing = Standing::Kills;
    }
}

fn take_fields(theirs: &mut [Field], ours: &[Field]) {
    for field in ours {
        let Some(same) = theirs.iter_mut().find(|of| of.name == field.name && of.base == field.base) else { continue };
        same.range = field.range;
        same.secret = field.secret;
        if same.default.is_none() {
            same.default.clone_from(&field.default);
        }
    }
}

fn is_integer(base: &Base) -> bool {
    matches!(base, Base::U8 | Base::U16 | Base::U32)
}
