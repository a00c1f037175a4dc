//! Our own form of definitions, in `api/*.txt`: what is sent, in which order, and what comes back. Head fields are left out.
//!
//! ```text
//! enum memif_mode u32                 flags, alias, struct, union alike
//!   MEMIF_MODE_API_IP 1               `open` behind the width: numbers without a name mean something, too; `kills` behind a value: VPP does not survive it; `later`: newer than the CRC
//! call memif_delete f9e6675e          `dump`: ends with a ping; `get`: has a cursor
//!   sw_if_index interface_index = ~0  default; `in 0..=9`: range, of a string its length; `secret`: not shown; `// words`: documentation
//! each NAME CRC                       what comes any number of times
//! returns NAME CRC                    what comes last
//! event NAME CRC                      what comes later
//! ```

use super::model::{Base, Definitions, Enum, Field, Head, Message, Preset, Service, Shape, Standing, Type, Value};

/// Adds what a text defines.
///
/// # Errors
/// The line, and what is wrong with it.
pub(crate) fn read(text: &str, into: &mut Definitions) -> Result<(), String> {
    let mut block: Option<Block> = None;
    let mut request = String::new();
    for (number, line) in text.lines().enumerate() {
        let (words, doc) = line.split_once("//").unwrap_or((line, ""));
        let at = |error: String| format!("line {}: {error}: {line:?}", number + 1);
        let doc = doc.trim();
        if words.trim().is_empty() || words.starts_with('#') {
            continue;
        }
        if words.starts_with(' ') {
            block.as_mut().ok_or_else(|| at("a field without a block".into()))?.line(words, doc).map_err(at)?;
            continue;
        }
        if let Some(done) = block.take() {
            done.close(into, &mut request).map_err(at)?;
        }
        block = Some(Block::open(words, doc).map_err(at)?);
    }
    block.map_or(Ok(()), |done| done.close(into, &mut request))
}

struct Block {
    keyword: String,
    name: String,
    rest: Vec<String>,
    doc: String,
    fields: Vec<Field>,
    values: Vec<Value>,
}

impl Block {
    fn open(words: &str, doc: &str) -> Result<Self, String> {
        let mut words = words.split_whitespace().map(str::to_owned);
        let keyword = words.next().ok_or("nothing")?;
        let name = words.next().ok_or("no name")?;
        Ok(Self { keyword, name, rest: words.collect(), doc: doc.into(), fields: Vec::new(), values: Vec::new() })
    }

    fn line(&mut self, line: &str, doc: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if ["enum", "flags"].contains(&self.keyword.as_str()) {
            self.values.push(value(&words)?);
        } else {
            self.fields.push(field(&words, doc)?);
        }
        Ok(())
    }

    fn close(self, into: &mut Definitions, request: &mut String) -> Result<(), String> {
        let first = self.rest.first().map_or("", String::as_str);
        let known = match self.keyword.as_str() {
            "enum" | "flags" => {
                let open = match self.rest.get(1..) {
                    None | Some([]) => false,
                    Some([word]) if word == "open" => true,
                    Some(_) => return Err("expected a width, and perhaps `open`".into()),
                };
                let of = Enum { width: base(first), values: self.values, open };
                if self.keyword == "enum" { Type::Enum(of) } else { Type::Flags(of) }
            }
            "alias" => {
                let (base, shape) = shaped(first)?;
                Type::Alias(base, shape)
            }
            "struct" => Type::Struct(self.fields),
            "union" => Type::Union(self.fields),
            _ => return self.message(into, request),
        };
        match into.types.insert(self.name.clone(), known) {
            Some(_) => Err(format!("{} is there twice", self.name)),
            None => Ok(()),
        }
    }

    fn message(self, into: &mut Definitions, request: &mut String) -> Result<(), String> {
        let crc = self.rest.first().map_or("", String::as_str);
        let crc = u32::from_str_radix(crc, 16).map_err(|_| format!("{} has no CRC", self.name))?;
        let with_client = self.rest.get(1..).is_some_and(|rest| rest == ["with", "client_index"]);
        let service = match self.keyword.as_str() {
            "call" | "dump" | "get" => {
                request.clone_from(&self.name);
                into.services.entry(self.name.clone()).or_default()
            }
            _ => into.services.get_mut(request).ok_or("an answer without a request")?,
        };
        let head = match self.keyword.as_str() {
            "call" | "dump" | "get" => Head::ClientContext,
            "each" | "returns" if with_client => Head::ClientContext,
            "each" | "returns" => Head::Context,
            "event" => Head::Client,
            other => return Err(format!("{other} is no keyword")),
        };
        match self.keyword.as_str() {
            "each" => service.details = Some(self.name.clone()),
            "returns" => service.reply = Some(self.name.clone()),
            "event" => service.events.push(self.name.clone()),
            _ => *service = Service::default(),
        }
        let message = Message { name: self.name.clone(), crc, head, fields: self.fields, doc: self.doc };
        into.messages.insert(self.name, message);
        Ok(())
    }
}

fn value(words: &[&str]) -> Result<Value, String> {
    let [name, number, standing @ ..] = words else { return Err("expected a name and a number".into()) };
    let number = number.parse().map_err(|_| format!("{number} is no number"))?;
    let standing = match standing {
        [] => Standing::Usual,
        ["kills"] => Standing::Kills,
        ["later"] => Standing::Later,
        _ => return Err("expected nothing, `kills` or `later`".into()),
    };
    Ok(Value { name: (*name).into(), number, standing })
}

fn field(words: &[&str], doc: &str) -> Result<Field, String> {
    let [name, kind, more @ ..] = words else { return Err("expected a name and a type".into()) };
    let (base, shape) = shaped(kind)?;
    let (mut default, mut range) = (None, None);
    let secret = more.last() == Some(&"secret");
    for pair in more[..more.len() - usize::from(secret)].chunks(2) {
        match pair {
            ["=", value] => default = Some(parse_default(value)?),
            ["in", value] => {
                let ends =
                    value.split_once("..=").and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
                range = Some(ends.ok_or_else(|| format!("{value} is no range"))?);
            }
            _ => return Err("expected `= default`, `in low..=high` or, at the end, `secret`".into()),
        }
    }
    Ok(Field { name: (*name).into(), base, shape, default, range, secret, doc: doc.into() })
}

fn parse_default(word: &str) -> Result<Preset, String> {
    match word {
        "true" => Ok(Preset::Bool(true)),
        "false" => Ok(Preset::Bool(false)),
        "~0" => Ok(Preset::Integer(-1)),
        _ if word.contains('.') => word.parse().map(Preset::Float).map_err(|_| format!("{word} is no number")),
        _ => word.parse().map(Preset::Integer).map_err(|_| format!("{word} is no number")),
    }
}

fn shaped(word: &str) -> Result<(Base, Shape), String> {
    let Some((name, count)) = word.split_once('[') else { return Ok((base(word), Shape::One)) };
    let count = count.strip_suffix(']').ok_or("a [ without ]")?;
    let shape = match count.parse() {
        Ok(number) => Shape::Fixed(number),
        Err(_) if count.is_empty() => Shape::Open,
        Err(_) => Shape::Counted(count.into()),
    };
    Ok((base(name), shape))
}

/// The type of that name.
pub(crate) fn base(name: &str) -> Base {
    match name {
        "u8" => Base::U8,
        "u16" => Base::U16,
        "u32" => Base::U32,
        "u64" => Base::U64,
        "i8" => Base::I8,
        "i16" => Base::I16,
        "i32" => Base::I32,
        "i64" => Base::I64,
        "f64" => Base::F64,
        "bool" => Base::Bool,
        "string" => Base::String,
        other => Base::Named(other.into()),
    }
}
