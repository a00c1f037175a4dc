//! Definitions of others, before anything is read by them: complete, finite, and with what we know to be dangerous.

use std::collections::HashMap;

use super::model::{Base, Definitions, Enum, Field, Shape, Standing, Type};

/// No type of VPP's has that many bytes.
const SIZE: usize = 1 << 24;
/// Types in types in types. VPP's are nested four deep; whatever reads by definitions calls itself as often.
const DEPTH: usize = 64;
/// VPP's largest messages have some tens of fields.
const FIELDS: usize = 1024;

impl Definitions {
    /// Every type that is named is there, none contains itself, is nested without end, is without bytes or larger than memory.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut check = Check { definitions: self, seen: HashMap::new(), open: 0 };
        for name in self.types.keys() {
            check.named(name)?;
        }
        for message in self.messages.values() {
            check.block(&message.fields).map_err(|error| format!("message {}: {error}", message.name))?;
        }
        Ok(())
    }
}

/// What is known of a type, so that none is measured twice.
#[derive(Clone, Copy)]
struct Measure {
    /// The least bytes of a value.
    least: usize,
    /// The bytes of every value, where all have the same.
    size: Option<usize>,
    /// How many types deep.
    depth: usize,
}

impl Measure {
    fn of(bytes: usize) -> Self {
        Self { least: bytes, size: Some(bytes), depth: 0 }
    }

    fn times(self, count: usize) -> Self {
        let all = |bytes: usize| bytes.saturating_mul(count);
        Self { least: all(self.least), size: self.size.map(all), ..self }
    }

    /// As many as a message says.
    fn any(self, least: usize) -> Self {
        Self { least, size: None, ..self }
    }
}

enum Seen {
    /// On the way down: to meet it again is a circle.
    Open,
    Done(Measure),
}

struct Check<'a> {
    definitions: &'a Definitions,
    seen: HashMap<&'a str, Seen>,
    open: usize,
}

impl<'a> Check<'a> {
    fn named(&mut self, name: &'a str) -> Result<Measure, String> {
        match self.seen.get(name) {
            Some(Seen::Done(measure)) => return Ok(*measure),
            Some(Seen::Open) => return Err(format!("type {name} contains itself")),
            None => {}
        }
        let deep = || format!("type {name}: expected at most {DEPTH} types in one another");
        if self.open == DEPTH {
            return Err(deep());
        }
        self.seen.insert(name, Seen::Open);
        self.open += 1;
        let mut measure = self.kind(name)?;
        self.open -= 1;
        // Those in it may have been measured before, from less deep.
        measure.depth += 1;
        if measure.depth > DEPTH {
            return Err(deep());
        }
        if measure.least == 0 || measure.least > SIZE {
            return Err(format!("a {name} has {} bytes, expected 1 to {SIZE}", measure.least));
        }
        self.seen.insert(name, Seen::Done(measure));
        Ok(measure)
    }

    fn kind(&mut self, name: &'a str) -> Result<Measure, String> {
        match self.definitions.types.get(name).ok_or_else(|| format!("type {name} is not defined"))? {
            Type::Enum(of) | Type::Flags(of) => match &of.width {
                Base::Named(_) | Base::String | Base::F64 | Base::Bool => {
                    Err(format!("{name} has the width {}, expected an integer", of.width))
                }
                width => self.one(width),
            },
            Type::Alias(base, shape) => self.shaped(base, shape),
            Type::Struct(fields) => self.block(fields),
            Type::Union(fields) => {
                let mut all = Measure::of(0);
                for field in fields {
                    let member = self.shaped(&field.base, &field.shape)?;
                    let size = member
                        .size
                        .ok_or_else(|| format!("union {name} has a member without a fixed size: {}", field.name))?;
                    all = Measure { depth: all.depth.max(member.depth), ..Measure::of(all.least.max(size)) };
                }
                Ok(all)
            }
        }
    }

    fn block(&mut self, fields: &'a [Field]) -> Result<Measure, String> {
        if fields.len() > FIELDS {
            return Err(format!("{} fields, expected at most {FIELDS}", fields.len()));
        }
        let mut all = Measure::of(0);
        for (at, field) in fields.iter().enumerate() {
            if let Shape::Counted(by) = &field.shape
                && !fields[..at].iter().any(|of| of.name == *by && of.shape == Shape::One && is_integer(&of.base))
            {
                return Err(format!("{} is counted by {by}, which is no number before it", field.name));
            }
            let more = self.shaped(&field.base, &field.shape)?;
            all = Measure {
                least: all.least.saturating_add(more.least),
                size: all.size.zip(more.size).map(|(all, more)| all.saturating_add(more)),
                depth: all.depth.max(more.depth),
            };
        }
        if all.least > SIZE { Err(format!("{} bytes, expected at most {SIZE}", all.least)) } else { Ok(all) }
    }

    fn shaped(&mut self, base: &'a Base, shape: &Shape) -> Result<Measure, String> {
        let one = match base {
            Base::String if *shape == Shape::One => return Err("a string that is no array".into()),
            Base::String => Measure::of(1),
            other => self.one(other)?,
        };
        Ok(match shape {
            Shape::One => one,
            Shape::Fixed(count) => one.times(*count),
            // Its length comes before it.
            Shape::Open if *base == Base::String => one.any(4),
            Shape::Counted(_) | Shape::Open => one.any(0),
        })
    }

    fn one(&mut self, base: &'a Base) -> Result<Measure, String> {
        match base {
            Base::Named(name) => self.named(name),
            other => Ok(Measure::of(self.definitions.size(other).unwrap_or(1))),
        }
    }
}

impl Definitions {
    /// What we know of values and fields, where these definitions have the same.
    pub(super) fn take_cautions_of(&mut self, ours: &Self) {
        for (name, of) in &ours.types {
            match (of, self.types.get_mut(name)) {
                (Type::Enum(ours), Some(Type::Enum(theirs))) => take_values(theirs, ours),
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

fn take_values(theirs: &mut Enum, ours: &Enum) {
    theirs.open = ours.open;
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
