//! Rust for messages and their types.

use std::fmt::Write;

use crate::model::{Base, Definitions, Enum, Field, Head, Message, Preset, Service, Shape, Standing, Type, is_count};
use crate::names::{camel, field as rust_field, without_common};

/// Types that are written by hand, in `src/types.rs` and by Rust's library.
const BY_HAND: &[(&str, &str)] = &[
    ("interface_index", "crate::types::InterfaceIndex"),
    ("mac_address", "crate::types::MacAddress"),
    ("ip4_address", "std::net::Ipv4Addr"),
    ("ip6_address", "std::net::Ipv6Addr"),
    ("address", "std::net::IpAddr"),
    ("prefix", "crate::types::Prefix"),
    ("address_with_prefix", "crate::types::Prefix"),
];

/// The generated file.
pub(crate) fn messages(definitions: &Definitions) -> String {
    let mut out = String::new();
    for (name, of) in &definitions.types {
        if by_hand(name).is_none() {
            out += &kind(definitions, name, of);
        }
    }
    for message in definitions.messages.values() {
        out += &message_struct(message);
    }
    for (request, service) in &definitions.services {
        out += &service_impls(definitions, request, service);
    }
    let messages = || definitions.messages.values();
    let list: String = messages().map(|message| format!("({:?}, {:#010x}),", message.name, message.crc)).collect();
    let arms: String =
        messages().map(|message| format!("{:?} => again::<{}>(body),\n", message.name, camel(&message.name))).collect();
    write!(
        out,
        "/// Every message's name and CRC.\npub(crate) const ALL: &[(&str, u32)] = &[{list}];\n\
         /// A body of the message of that name, read and written again.\n\
         pub(crate) fn read_and_written(name: &str, body: &[u8]) -> Option<Result<Vec<u8>, String>> {{\n\
         Some(match name {{\n{arms}_ => return None,\n}})\n}}\n"
    )
    .expect(ALL);
    out
}

const ALL: &str = "a string takes all";

fn by_hand(name: &str) -> Option<&'static str> {
    BY_HAND.iter().find(|(known, _)| *known == name).map(|(_, rust)| *rust)
}

fn scalar(base: &Base) -> String {
    match base {
        Base::U8 => "u8".into(),
        Base::U16 => "u16".into(),
        Base::U32 => "u32".into(),
        Base::U64 => "u64".into(),
        Base::I8 => "i8".into(),
        Base::I16 => "i16".into(),
        Base::I32 => "i32".into(),
        Base::I64 => "i64".into(),
        Base::F64 => "f64".into(),
        Base::Bool => "bool".into(),
        Base::String => panic!("a string is an array"),
        Base::Named(name) => by_hand(name).map_or_else(|| camel(name), str::to_owned),
    }
}

fn rust_type(base: &Base, shape: &Shape) -> String {
    match (base, shape) {
        (Base::String, _) => "String".into(),
        (_, Shape::One) => scalar(base),
        (_, Shape::Fixed(count)) => format!("[{}; {count}]", scalar(base)),
        (_, Shape::Counted(_) | Shape::Open) => format!("Vec<{}>", scalar(base)),
    }
}

fn field_type(field: &Field) -> String {
    if field.name == "retval" { "crate::retval::Retval".into() } else { rust_type(&field.base, &field.shape) }
}

fn kind(definitions: &Definitions, name: &str, of: &Type) -> String {
    match of {
        Type::Enum(values) if values.open => numbers(name, values),
        Type::Enum(values) => enumeration(name, values),
        Type::Flags(values) => flags(name, values),
        Type::Alias(base, shape) => {
            format!("/// `{name}`.\npub type {} = {};\n", camel(name), rust_type(base, shape))
        }
        Type::Struct(fields) => block(name, "", fields) + &wire(&camel(name), fields),
        Type::Union(fields) => union(definitions, name, fields),
    }
}

fn enumeration(name: &str, of: &Enum) -> String {
    let (rust, width) = (camel(name), scalar(&of.width));
    let names: Vec<&str> = of.values.iter().map(|value| value.name.as_str()).collect();
    let usable: Vec<_> =
        of.values.iter().zip(without_common(&names)).filter(|(value, _)| value.standing != Standing::Kills).collect();
    let each = |line: &dyn Fn(&str, i64, &str) -> String| {
        usable.iter().map(|(value, short)| line(&camel(short), value.number, &value.name)).collect::<String>()
    };
    format!(
        "/// `{name}`.\n#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]\n#[non_exhaustive]\npub enum {rust} {{\n{}\
         /// VPP sent a value without a name here. It cannot be sent back.\nUndeclared(crate::bits::Undeclared),\n}}\n\
         impl crate::wire::Wire for {rust} {{\n\
         fn put(&self, out: &mut Vec<u8>) -> Result<(), crate::wire::EncodeError> {{\nlet value: {width} = match self {{\n{}\
         Self::Undeclared(value) => return Err(crate::wire::EncodeProblem::Undeclared {{ name: {name:?}, value: value.value() }}.into()),\n}};\n\
         value.put(out)\n}}\n\
         fn take(input: &mut crate::wire::Input<'_>) -> Result<Self, crate::wire::DecodeError> {{\nOk(match {width}::take(input)? {{\n{}\
         other => Self::Undeclared(crate::bits::Undeclared::new(other.into())),\n}})\n}}\n\
         fn initial() -> Self {{ Self::{} }}\n}}\n\
         impl Default for {rust} {{ fn default() -> Self {{ <Self as crate::wire::Wire>::initial() }} }}\n",
        each(&|short, number, full| format!("/// `{full}`, {number}.\n{short},\n")),
        each(&|short, number, _| format!("Self::{short} => {number},\n")),
        each(&|short, number, _| format!("{number} => Self::{short},\n")),
        camel(&usable.iter().find(|(value, _)| value.number == 0).unwrap_or(&usable[0]).1),
    )
}

/// Where any number means something: names for some of them.
fn numbers(name: &str, of: &Enum) -> String {
    let (rust, width) = (camel(name), scalar(&of.width));
    let names: Vec<&str> = of.values.iter().map(|value| value.name.as_str()).collect();
    let mut consts = String::new();
    for (value, short) in of.values.iter().zip(without_common(&names)) {
        writeln!(consts, "/// `{}`.\npub const {short}: Self = Self({});", value.name, value.number).expect(ALL);
    }
    format!(
        "/// `{name}`: any number; these have a name.\n#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]\n\
         pub struct {rust}(pub {width});\nimpl {rust} {{\n{consts}}}\n\
         impl crate::wire::Wire for {rust} {{\n\
         fn put(&self, out: &mut Vec<u8>) -> Result<(), crate::wire::EncodeError> {{ self.0.put(out) }}\n\
         fn take(input: &mut crate::wire::Input<'_>) -> Result<Self, crate::wire::DecodeError> {{ {width}::take(input).map(Self) }}\n\
         fn initial() -> Self {{ Self::default() }}\n}}\n"
    )
}

fn flags(name: &str, of: &Enum) -> String {
    let names: Vec<&str> = of.values.iter().map(|value| value.name.as_str()).collect();
    let mut consts = String::new();
    for (value, short) in of.values.iter().zip(without_common(&names)) {
        writeln!(consts, "/// `{}`.\n{short} = {},", value.name, value.number).expect(ALL);
    }
    format!("crate::bits::flags! {{\n/// `{name}`.\n{}: {} {{\n{consts}}}\n}}\n", camel(name), scalar(&of.width))
}

fn union(definitions: &Definitions, name: &str, fields: &[Field]) -> String {
    let size = definitions
        .size(&Base::Named(name.into()))
        .unwrap_or_else(|| panic!("union {name} has a member whose size depends on its value"));
    let rust = camel(name);
    let mut methods = String::new();
    for field in fields {
        let kind = rust_type(&field.base, &field.shape);
        write!(
            methods,
            "/// Holding `{0}`.\n///\n/// # Errors\n/// The value cannot be sent.\n\
             pub fn from_{0}(value: &{kind}) -> Result<Self, crate::wire::EncodeError> {{\nlet mut bytes = Vec::with_capacity({size});\n\
             crate::wire::Wire::put(value, &mut bytes)?;\nlet mut all = [0; {size}];\nall[..bytes.len()].copy_from_slice(&bytes);\nOk(Self(all))\n}}\n\
             /// Read as `{0}`.\n///\n/// # Errors\n/// These bytes are none.\n\
             pub fn {0}(&self) -> Result<{kind}, crate::wire::DecodeError> {{\ncrate::wire::Wire::take(&mut crate::wire::Input::new(&self.0))\n}}\n",
            field.name
        )
        .expect(ALL);
    }
    format!(
        "/// `{name}`: which of them it is, another field says.\n#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]\n\
         pub struct {rust}([u8; {size}]);\nimpl {rust} {{\n{methods}}}\n\
         impl Default for {rust} {{ fn default() -> Self {{ Self([0; {size}]) }} }}\n\
         impl crate::wire::Wire for {rust} {{\n\
         fn put(&self, out: &mut Vec<u8>) -> Result<(), crate::wire::EncodeError> {{ self.0.put(out) }}\n\
         fn take(input: &mut crate::wire::Input<'_>) -> Result<Self, crate::wire::DecodeError> {{ crate::wire::Wire::take(input).map(Self) }}\n\
         fn initial() -> Self {{ Self::default() }}\n}}\n"
    )
}

/// The struct and its `Default`.
fn block(name: &str, doc: &str, fields: &[Field]) -> String {
    let rust = camel(name);
    let shown: Vec<&Field> = fields.iter().filter(|field| !is_count(fields, &field.name)).collect();
    let doc = if doc.is_empty() { String::new() } else { format!(" {}{}.", doc[..1].to_uppercase(), &doc[1..]) };
    let derive = if shown.iter().any(|field| field.secret) {
        "#[derive(Clone, PartialEq)]\n"
    } else {
        "#[derive(Debug, Clone, PartialEq)]\n"
    };
    let debug = debug(&rust, &shown);
    if shown.is_empty() {
        return format!("/// `{name}`.{doc}\n{derive}#[derive(Default)]\npub struct {rust};\n");
    }
    let mut members = String::new();
    let mut presets = String::new();
    for field in shown {
        let (own, kind) = (rust_field(&field.name), field_type(field));
        writeln!(members, "/// {}\npub {own}: {kind},", field_doc(field)).expect(ALL);
        writeln!(presets, "{own}: {},", preset(field, &kind)).expect(ALL);
    }
    format!(
        "/// `{name}`.{doc}\n{derive}pub struct {rust} {{\n{members}}}\n\
         impl Default for {rust} {{ fn default() -> Self {{ Self {{\n{presets}}} }} }}\n{debug}"
    )
}

/// Where the derived one would show a secret.
fn debug(rust: &str, fields: &[&Field]) -> String {
    if !fields.iter().any(|field| field.secret) {
        return String::new();
    }
    let one = |field: &&Field| {
        let value =
            if field.secret { "&format_args!(\"…\")".into() } else { format!("&self.{}", rust_field(&field.name)) };
        format!(".field({:?}, {value})", field.name)
    };
    format!(
        "/// Without what is secret.\nimpl std::fmt::Debug for {rust} {{\n\
         fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{\n\
         f.debug_struct({rust:?}){}.finish()\n}}\n}}\n",
        fields.iter().map(one).collect::<String>()
    )
}

fn field_doc(field: &Field) -> String {
    let mut doc = format!("`{}`", field.name);
    if !field.doc.is_empty() {
        doc = format!("{doc}: {}", field.doc);
    }
    match &field.default {
        Some(Preset::Integer(-1)) => doc += ". All ones unless set",
        Some(Preset::Integer(value)) => doc += &format!(". {value} unless set"),
        Some(Preset::Float(value)) => doc += &format!(". {value} unless set"),
        Some(Preset::Bool(value)) => doc += &format!(". {value} unless set"),
        None => {}
    }
    if let Some((low, high)) = field.range {
        doc += &match field.base {
            Base::String => format!(". Up to {high} bytes, more are not sent"),
            _ => format!(". {low} to {high}, others are not sent"),
        };
    }
    if field.secret {
        doc += ". `Debug` does not show it";
    }
    doc + "."
}

fn preset(field: &Field, kind: &str) -> String {
    match (&field.default, &field.base) {
        (Some(Preset::Integer(-1)), Base::Named(name)) if name == "interface_index" => format!("{kind}::NONE"),
        (Some(Preset::Integer(-1)), _) => format!("{kind}::MAX"),
        (Some(Preset::Integer(value)), _) => value.to_string(),
        (Some(Preset::Float(value)), _) => format!("{value:?}"),
        (Some(Preset::Bool(value)), _) => value.to_string(),
        (None, _) if kind.starts_with("Vec<") || kind == "String" => "Default::default()".into(),
        (None, _) => "crate::wire::Wire::initial()".into(),
    }
}

fn puts(fields: &[Field]) -> String {
    let mut out = String::new();
    for field in fields {
        let own = rust_field(&field.name);
        let inside = format!(".map_err(|error| error.inside({:?}))?;\n", field.name);
        if let Some(counted) = fields.iter().find(|of| matches!(&of.shape, Shape::Counted(by) if *by == field.name)) {
            let (list, width) = (rust_field(&counted.name), scalar(&field.base));
            writeln!(
                out,
                "crate::wire::count::<{width}>(self.{list}.len()).and_then(|count| count.put(out))\
                 .map_err(|error| error.inside({:?}))?;",
                counted.name
            )
            .expect(ALL);
            continue;
        }
        match (field.range, &field.base) {
            (Some((_, most)), Base::String) => {
                write!(out, "crate::wire::no_longer(&self.{own}, {most}){inside}").expect(ALL);
            }
            (Some((low, high)), _) => {
                write!(out, "crate::wire::within(self.{own}, {low}, {high}){inside}").expect(ALL);
            }
            (None, _) => {}
        }
        match (&field.base, &field.shape) {
            (Base::String, Shape::Fixed(room)) => {
                write!(out, "crate::wire::put_fixed_string(&self.{own}, {room}, out){inside}")
            }
            (Base::String, _) => write!(out, "crate::wire::put_string(&self.{own}, out){inside}"),
            (_, Shape::Counted(_) | Shape::Open) => write!(out, "crate::wire::put_list(&self.{own}, out){inside}"),
            _ => write!(out, "self.{own}.put(out){inside}"),
        }
        .expect(ALL);
    }
    out
}

fn takes(fields: &[Field]) -> String {
    let mut out = String::new();
    let mut names = String::new();
    for field in fields {
        let own = rust_field(&field.name);
        if !is_count(fields, &field.name) {
            write!(names, "{own}, ").expect(ALL);
        }
        let read = match (&field.base, &field.shape) {
            (Base::String, Shape::Fixed(room)) => format!("crate::wire::take_fixed_string(input, {room})"),
            (Base::String, _) => "crate::wire::take_string(input)".into(),
            (_, Shape::Counted(by)) => format!("crate::wire::take_list(input, {}.into())", rust_field(by)),
            (_, Shape::Open) => "crate::wire::take_rest(input)".into(),
            _ if is_count(fields, &field.name) => format!("{}::take(input)", scalar(&field.base)),
            _ => "crate::wire::Wire::take(input)".into(),
        };
        writeln!(out, "let {own} = {read}.map_err(|error| error.inside({:?}))?;", field.name).expect(ALL);
    }
    let names = if names.is_empty() { "Self".into() } else { format!("Self {{ {names} }}") };
    format!("{out}Ok({names})\n")
}

fn wire(rust: &str, fields: &[Field]) -> String {
    format!(
        "impl crate::wire::Wire for {rust} {{\n\
         fn put(&self, out: &mut Vec<u8>) -> Result<(), crate::wire::EncodeError> {{\n{}Ok(())\n}}\n\
         fn take(input: &mut crate::wire::Input<'_>) -> Result<Self, crate::wire::DecodeError> {{\n{}}}\n\
         fn initial() -> Self {{ Self::default() }}\n}}\n",
        puts(fields),
        takes(fields)
    )
}

fn message_struct(message: &Message) -> String {
    let head = match message.head {
        Head::Bare => "Bare",
        Head::Context => "Context",
        Head::Client => "Client",
        Head::ClientContext => "ClientContext",
    };
    let rust = camel(&message.name);
    block(&message.name, &message.doc, &message.fields)
        + &format!(
            "impl crate::message::Message for {rust} {{\nconst NAME: &'static str = {:?};\nconst CRC: u32 = {:#010x};\n\
             const HEAD: crate::definition::Head = crate::definition::Head::{head};\n\
             fn encode(&self, out: &mut Vec<u8>) -> Result<(), crate::wire::EncodeError> {{\n{}Ok(())\n}}\n\
             fn decode(input: &mut crate::wire::Input<'_>) -> Result<Self, crate::wire::DecodeError> {{\n{}}}\n}}\n",
            message.name,
            message.crc,
            puts(&message.fields),
            takes(&message.fields)
        )
}

fn service_impls(definitions: &Definitions, request: &str, service: &Service) -> String {
    let rust = camel(request);
    let mut out = String::new();
    let mut add = |text: String| out += &text;
    if let Some(reply) = &service.reply {
        let reply_rust = camel(reply);
        add(format!(
            "impl crate::message::Reply for {reply_rust} {{ fn retval(&self) -> crate::retval::Retval {{ self.retval }} }}\n"
        ));
        let has_cursor = definitions.messages[reply].fields.iter().any(|field| field.name == "cursor");
        match &service.details {
            Some(details) if has_cursor => add(format!(
                "impl crate::message::CursorReply for {reply_rust} {{ fn cursor(&self) -> u32 {{ self.cursor }} }}\n\
                 impl crate::message::Cursor for {rust} {{\ntype Details = {};\ntype Reply = {reply_rust};\n\
                 fn set_cursor(&mut self, cursor: u32) {{ self.cursor = cursor; }}\n}}\n",
                camel(details)
            )),
            _ => add(format!("impl crate::message::Request for {rust} {{ type Reply = {reply_rust}; }}\n")),
        }
        if let Some(event) = service.events.first() {
            let event = camel(event);
            let switch = definitions.messages[request].fields.iter().any(|field| field.name == "enable_disable");
            let enables = if switch { "self.enable_disable != 0" } else { "true" };
            add(format!(
                "impl crate::message::Event for {event} {{}}\n\
                 impl crate::message::Subscription for {rust} {{\ntype Event = {event};\n\
                 fn enables(&self) -> bool {{ {enables} }}\n}}\n"
            ));
        }
    } else if let Some(details) = &service.details {
        add(format!("impl crate::message::Dump for {rust} {{ type Details = {}; }}\n", camel(details)));
    }
    out
}
