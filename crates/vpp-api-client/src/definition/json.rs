//! Definitions as VPP installs them (`*.api.json`) and as a running one tells them (`get_api_json`).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::crc::type_name;
use super::model::{Base, Definitions, Enum, Field, Head, Message, Preset, Service, Shape, Standing, Type, Value};
use super::text;

/// Definitions that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// No JSON.
    #[error("definitions are no JSON")]
    Json(#[from] serde_json::Error),
    /// JSON, but no definitions.
    #[error("{at}: expected {expected}, found {found}")]
    Form {
        /// Which part.
        at: String,
        /// What belongs there.
        expected: &'static str,
        /// What is there, cut short.
        found: String,
    },
    /// The parts do not make a whole.
    #[error("{0}")]
    Unsound(String),
    /// A file cannot be read.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A directory without definitions.
    #[error("{}: no *.api.json there; VPP installs them under share/vpp/api", .0.display())]
    None(PathBuf),
}

/// Directories deeper than this are not looked into.
const DEPTH: u32 = 4;
/// A file longer than this is none of VPP's.
const FILE: u64 = 64 << 20;

impl Definitions {
    /// Reads one module, or an array of them.
    ///
    /// # Errors
    /// It is not of VPP's form.
    pub fn from_json(text: &str) -> Result<Self, DefinitionError> {
        let mut definitions = Self::default();
        definitions.add(&serde_json::from_str(text)?)?;
        definitions.settle()?;
        Ok(definitions)
    }

    fn settle(&mut self) -> Result<(), DefinitionError> {
        self.check().map_err(DefinitionError::Unsound)?;
        self.take_cautions_of(&Self::ours());
        Ok(())
    }

    /// Reads every `*.api.json` of a directory and of those in it.
    ///
    /// # Errors
    /// One cannot be read, or there is none.
    pub fn from_directory(directory: &Path) -> Result<Self, DefinitionError> {
        let mut definitions = Self::default();
        definitions.add_directory(directory, DEPTH)?;
        if definitions.messages.is_empty() {
            return Err(DefinitionError::None(directory.into()));
        }
        definitions.settle()?;
        Ok(definitions)
    }

    fn add_directory(&mut self, directory: &Path, depth: u32) -> Result<(), DefinitionError> {
        let failed = |path: &Path, source| DefinitionError::File { path: path.into(), source };
        for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))? {
            let path = entry.map_err(|error| failed(directory, error))?.path();
            if path.is_dir() && depth > 0 {
                self.add_directory(&path, depth - 1)?;
            } else if path.to_string_lossy().ends_with(".api.json") {
                let length = fs::metadata(&path).map_err(|error| failed(&path, error))?.len();
                if length > FILE {
                    return Err(form(&path.to_string_lossy(), "at most 64 MiB", &json!(length)));
                }
                let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
                let json = serde_json::from_str(&text).map_err(|error| failed(&path, error.into()))?;
                self.add(&json).map_err(|error| failed(&path, std::io::Error::other(error)))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, json: &Json) -> Result<(), DefinitionError> {
        match json {
            Json::Array(modules) => modules.iter().try_for_each(|module| self.add(module)),
            Json::Object(module) => self.add_module(module),
            other => Err(form("definitions", "a module or an array of modules", other)),
        }
    }

    fn add_module(&mut self, module: &Map<String, Json>) -> Result<(), DefinitionError> {
        for (key, flags) in [("enums", false), ("enumflags", true)] {
            for entry in list(module, key)? {
                let (name, of) = enumeration(entry)?;
                // VPP declares flags as plain enums, and names them so.
                let flags = flags || name.ends_with("_flags");
                self.types.insert(name, if flags { Type::Flags(of) } else { Type::Enum(of) });
            }
        }
        for (key, union) in [("types", false), ("unions", true)] {
            for entry in list(module, key)? {
                let (name, fields) = block(entry)?;
                self.types.insert(name, if union { Type::Union(fields) } else { Type::Struct(fields) });
            }
        }
        for (name, alias) in object(module, "aliases")? {
            let base = base(alias.get("type").unwrap_or(&Json::Null))?;
            let shape = alias.get("length").map_or(Ok(Shape::One), |length| shape(&base, Some(length), None))?;
            self.types.insert(name.clone(), Type::Alias(base, shape));
        }
        for entry in list(module, "messages")? {
            let message = message(entry)?;
            self.messages.insert(message.name.clone(), message);
        }
        for (request, answers) in object(module, "services")? {
            self.services.insert(request.clone(), service(request, answers));
        }
        Ok(())
    }

    /// One module with everything, in VPP's form.
    pub fn to_json(&self, module: &str) -> Json {
        let of_kind = |wanted: fn(&Type) -> Option<Json>| -> Vec<Json> {
            self.types.iter().filter_map(|(name, of)| Some(named(name, wanted(of)?))).collect()
        };
        let aliases = self.types.iter().filter_map(|(name, of)| match of {
            Type::Alias(base, Shape::Fixed(length)) => {
                Some((name.clone(), json!({ "type": type_name(base), "length": length })))
            }
            Type::Alias(base, _) => Some((name.clone(), json!({ "type": type_name(base) }))),
            _ => None,
        });
        let services = self.services.iter().map(|(request, of)| (request.clone(), service_json(of)));
        json!({
            "module": module,
            "types": of_kind(|of| match of { Type::Struct(fields) => Some(fields_json(fields)), _ => None }),
            "unions": of_kind(|of| match of { Type::Union(fields) => Some(fields_json(fields)), _ => None }),
            "enums": of_kind(|of| match of { Type::Enum(of) => Some(values_json(of)), _ => None }),
            "enumflags": of_kind(|of| match of { Type::Flags(of) => Some(values_json(of)), _ => None }),
            "aliases": aliases.collect::<Map<_, _>>(),
            "messages": self.messages.values().map(message_json).collect::<Vec<_>>(),
            "services": services.collect::<Map<_, _>>(),
            "options": {}, "imports": [], "vl_api_version": "0x0",
        })
    }
}

fn form(at: &str, expected: &'static str, found: &Json) -> DefinitionError {
    let found: String = found.to_string().chars().take(80).collect();
    DefinitionError::Form { at: at.into(), expected, found }
}

fn list<'a>(module: &'a Map<String, Json>, key: &str) -> Result<&'a [Json], DefinitionError> {
    match module.get(key) {
        None => Ok(&[]),
        Some(Json::Array(list)) => Ok(list),
        Some(other) => Err(form(key, "an array", other)),
    }
}

fn object<'a>(
    module: &'a Map<String, Json>,
    key: &str,
) -> Result<impl Iterator<Item = (&'a String, &'a Json)>, DefinitionError> {
    match module.get(key) {
        None => Ok(None.into_iter().flatten()),
        Some(Json::Object(object)) => Ok(Some(object).into_iter().flatten()),
        Some(other) => Err(form(key, "an object", other)),
    }
}

/// The name that an entry begins with, and the rest of it.
fn entry(json: &Json) -> Result<(&str, &[Json]), DefinitionError> {
    match json.as_array().map(Vec::as_slice) {
        Some([Json::String(name), rest @ ..]) => Ok((name, rest)),
        _ => Err(form("entry", "an array that begins with a name", json)),
    }
}

fn enumeration(json: &Json) -> Result<(String, Enum), DefinitionError> {
    let (name, rest) = entry(json)?;
    let mut of = Enum { width: Base::U32, values: Vec::new(), open: false };
    for part in rest {
        match part {
            Json::Object(options) => of.width = options.get("enumtype").map_or(Ok(Base::U32), base)?,
            Json::Array(pair) => match pair.as_slice() {
                [Json::String(value), number, ..] => {
                    let number = number.as_i64().ok_or_else(|| form(name, "a number", number))?;
                    of.values.push(Value { name: value.clone(), number, standing: Standing::Usual });
                }
                _ => return Err(form(name, "a name and a number", part)),
            },
            other => return Err(form(name, "values and an enumtype", other)),
        }
    }
    Ok((name.into(), of))
}

fn block(json: &Json) -> Result<(String, Vec<Field>), DefinitionError> {
    let (name, rest) = entry(json)?;
    let fields = rest.iter().filter(|part| part.is_array()).map(field).collect::<Result<_, _>>()?;
    Ok((name.into(), fields))
}

fn field(json: &Json) -> Result<Field, DefinitionError> {
    let parts = json.as_array().map_or(&[][..], Vec::as_slice);
    let [kind, Json::String(name), more @ ..] = parts else {
        return Err(form("field", "a type and a name", json));
    };
    let base = base(kind)?;
    let options = more.iter().find_map(Json::as_object);
    let length = more.iter().find(|part| part.is_number());
    let counted = more.iter().find_map(Json::as_str);
    Ok(Field {
        name: name.clone(),
        shape: shape(&base, length, counted)?,
        base,
        default: options.and_then(|options| preset(options.get("default")?)),
        range: None,
        secret: false,
        doc: String::new(),
    })
}

fn shape(base: &Base, length: Option<&Json>, counted: Option<&str>) -> Result<Shape, DefinitionError> {
    match (length, counted) {
        (_, Some(by)) => Ok(Shape::Counted(by.into())),
        (None, None) if *base == Base::String => Ok(Shape::Open),
        (None, None) => Ok(Shape::One),
        (Some(length), None) => match length.as_u64().and_then(|length| usize::try_from(length).ok()) {
            Some(0) => Ok(Shape::Open),
            Some(length) if length <= 1 << 20 => Ok(Shape::Fixed(length)),
            _ => Err(form("length", "a number of elements", length)),
        },
    }
}

fn preset(json: &Json) -> Option<Preset> {
    match json {
        Json::Bool(value) => Some(Preset::Bool(*value)),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Some(Preset::Integer(value.into())),
            None => number
                .as_u64()
                .map(|value| Preset::Integer(value.into()))
                .or_else(|| number.as_f64().map(Preset::Float)),
        },
        Json::String(word) if word == "true" || word == "false" => Some(Preset::Bool(word == "true")),
        Json::String(word) => {
            let hex = word.strip_prefix("0x").and_then(|digits| i128::from_str_radix(digits, 16).ok());
            hex.or_else(|| word.parse().ok()).map(Preset::Integer)
        }
        _ => None,
    }
}

fn base(json: &Json) -> Result<Base, DefinitionError> {
    let name = json.as_str().ok_or_else(|| form("type", "a name", json))?;
    let short = name.strip_prefix("vl_api_").and_then(|name| name.strip_suffix("_t"));
    Ok(short.map_or_else(|| text::base(name), |short| Base::Named(short.into())))
}

fn message(json: &Json) -> Result<Message, DefinitionError> {
    let (name, mut fields) = block(json)?;
    let crc = json.as_array().and_then(|parts| parts.iter().find_map(|part| part.get("crc")?.as_str()));
    let crc = crc.and_then(|crc| u32::from_str_radix(crc.trim_start_matches("0x"), 16).ok());
    let crc = crc.ok_or_else(|| form(&name, "a crc", json))?;
    let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).take(3).collect();
    let (head, length) = match names.as_slice() {
        ["_vl_msg_id", "client_index", "context"] => (Head::ClientContext, 3),
        ["_vl_msg_id", "client_index", ..] => (Head::Client, 2),
        ["_vl_msg_id", "context", ..] => (Head::Context, 2),
        ["_vl_msg_id", ..] => (Head::Bare, 1),
        _ => return Err(form(&name, "_vl_msg_id as its first field", json)),
    };
    fields.drain(..length);
    Ok(Message { name, crc, head, fields, doc: String::new() })
}

fn service(request: &str, json: &Json) -> Service {
    let word = |key: &str| json.get(key).and_then(Json::as_str).filter(|name| *name != "null").map(str::to_owned);
    let events = json.get("events").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let events = events.iter().filter_map(Json::as_str).map(str::to_owned).collect();
    let streams = json.get("stream").and_then(Json::as_bool).unwrap_or(false) || request.ends_with("_dump");
    match word("stream_msg") {
        Some(details) => Service { reply: word("reply"), details: Some(details), events },
        None if streams => Service { reply: None, details: word("reply"), events },
        None => Service { reply: word("reply"), details: None, events },
    }
}

fn named(name: &str, rest: Json) -> Json {
    let mut all = vec![json!(name)];
    match rest {
        Json::Array(parts) => all.extend(parts),
        other => all.push(other),
    }
    Json::Array(all)
}

fn values_json(of: &Enum) -> Json {
    let mut all: Vec<Json> = of.values.iter().map(|value| json!([value.name, value.number])).collect();
    all.push(json!({ "enumtype": type_name(&of.width) }));
    Json::Array(all)
}

fn fields_json(fields: &[Field]) -> Json {
    let one = |field: &Field| {
        let mut parts = vec![json!(type_name(&field.base)), json!(field.name)];
        match &field.shape {
            Shape::One => {}
            Shape::Fixed(length) => parts.push(json!(length)),
            Shape::Counted(by) => parts.extend([json!(0), json!(by)]),
            Shape::Open => parts.push(json!(0)),
        }
        match &field.default {
            Some(Preset::Integer(-1)) => parts.push(json!({ "default": u32::MAX })),
            Some(Preset::Integer(value)) => parts.push(json!({ "default": i64::try_from(*value).unwrap_or(0) })),
            Some(Preset::Float(value)) => parts.push(json!({ "default": value })),
            Some(Preset::Bool(value)) => parts.push(json!({ "default": value })),
            None => {}
        }
        Json::Array(parts)
    };
    Json::Array(fields.iter().map(one).collect())
}

fn message_json(message: &Message) -> Json {
    let mut parts = vec![json!(message.name), json!(["u16", "_vl_msg_id"])];
    if matches!(message.head, Head::Client | Head::ClientContext) {
        parts.push(json!(["u32", "client_index"]));
    }
    if matches!(message.head, Head::Context | Head::ClientContext) {
        parts.push(json!(["u32", "context"]));
    }
    if let Json::Array(fields) = fields_json(&message.fields) {
        parts.extend(fields);
    }
    parts.push(json!({ "crc": format!("{:#010x}", message.crc), "options": {} }));
    Json::Array(parts)
}

fn service_json(of: &Service) -> Json {
    match (&of.reply, &of.details) {
        (Some(reply), Some(details)) => json!({ "reply": reply, "stream": true, "stream_msg": details }),
        (Some(reply), None) if of.events.is_empty() => json!({ "reply": reply }),
        (Some(reply), None) => json!({ "reply": reply, "events": of.events }),
        (None, Some(details)) => json!({ "reply": details, "stream": true }),
        (None, None) => json!({ "reply": "null" }),
    }
}
