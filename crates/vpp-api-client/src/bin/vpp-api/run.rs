//! What the commands do.

use std::error::Error as StdError;
use std::io::Write;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use vpp_api_client::definition::{Definitions, Field, Message, Shape};
use vpp_api_client::{Client, Error, Options};

use crate::arguments::{Arguments, Command, From};
use crate::watch;

pub(crate) type Failure = Box<dyn StdError + Send + Sync>;

pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Command::Stats { prefix, watch } = &arguments.command {
        return watch::stats(&arguments, prefix.as_deref(), *watch).await;
    }
    let options = Options::new("vpp-api").timeout(arguments.timeout);
    let vpp = Client::connect(&arguments.socket, options).await?;
    let definitions = Arc::new(definitions(&vpp, &arguments.definitions).await?);
    match &arguments.command {
        Command::Call { name, fields } => call(&vpp, &definitions, name, fields).await,
        Command::Dump { name, fields } => dump(&vpp, &definitions, name, fields).await,
        Command::Events { name, fields } => events(&vpp, &definitions, name, fields, arguments.count).await,
        Command::List { word } => list(&vpp, &definitions, word),
        Command::Stats { .. } => Ok(()),
    }
}

async fn definitions(vpp: &Client, from: &From) -> Result<Definitions, Failure> {
    match from {
        From::Own => Ok(Definitions::ours()),
        From::Directory(directory) => Ok(Definitions::from_directory(directory)?),
        From::Vpp => match vpp.definitions().await {
            Err(Error::NotServed { .. }) => {
                eprintln!(
                    "vpp-api: this VPP does not tell its definitions (before 24.06): using those of this program; \
                     --definitions names a directory with others"
                );
                Ok(Definitions::ours())
            }
            other => Ok(other?),
        },
    }
}

/// One value, one line.
pub(crate) fn say(value: &Json) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()?;
    Ok(())
}

async fn call(vpp: &Client, definitions: &Definitions, name: &str, fields: &Json) -> Result<(), Failure> {
    let answer = vpp.call_by_name(definitions, name, fields).await?;
    match answer.reply {
        Some(reply) if answer.details.is_empty() => say(&reply),
        Some(reply) => say(&json!({ "details": answer.details, "reply": reply })),
        None => say(&Json::Array(answer.details)),
    }
}

async fn dump(vpp: &Client, definitions: &Definitions, name: &str, fields: &Json) -> Result<(), Failure> {
    let streams = definitions.services.get(name).is_some_and(|service| service.details.is_some());
    if definitions.messages.contains_key(name) && !streams {
        return Err(format!("{name} finds one thing or none: vpp-api call {name}").into());
    }
    vpp.call_by_name(definitions, name, fields).await?.details.iter().try_for_each(say)
}

async fn events(
    vpp: &Client,
    definitions: &Arc<Definitions>,
    name: &str,
    fields: &Json,
    count: Option<u64>,
) -> Result<(), Failure> {
    let service = definitions.services.get(name).filter(|service| !service.events.is_empty());
    let Some(service) = service else {
        let all = definitions.services.iter().filter(|(_, of)| !of.events.is_empty()).map(|(name, _)| name.as_str());
        let all: Vec<&str> = all.collect();
        return Err(format!("{name} brings no events; those that do: {}", all.join(", ")).into());
    };
    let event = service.events[0].clone();
    let mut events = vpp.events_by_name(definitions, &event)?;
    vpp.call_by_name(definitions, name, &enabling(definitions, name, fields)).await?;
    let mut seen = 0;
    while count.is_none_or(|count| seen < count) {
        say(&json!({ &event: events.next().await? }))?;
        seen += 1;
    }
    Ok(())
}

/// The request with what nobody wants to write: that it is on, and whose it is.
fn enabling(definitions: &Definitions, name: &str, fields: &Json) -> Json {
    let mut fields = fields.as_object().cloned().unwrap_or_default();
    let has = |field: &str| definitions.messages.get(name).is_some_and(|of| of.fields.iter().any(|f| f.name == field));
    for (field, value) in [("enable_disable", 1), ("enable", 1), ("pid", std::process::id())] {
        if has(field) {
            fields.entry(field).or_insert_with(|| json!(value));
        }
    }
    Json::Object(fields)
}

fn list(vpp: &Client, definitions: &Definitions, word: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for (name, crc) in vpp.served().into_iter().filter(|(name, _)| name.contains(word)) {
        let known = definitions.messages.get(&name);
        let fields = match known {
            Some(message) if message.crc == crc => described(message),
            Some(message) => format!("(the definitions here have CRC {:08x})", message.crc),
            None => "(no definition here)".into(),
        };
        writeln!(out, "{name}_{crc:08x} {fields}")?;
    }
    Ok(())
}

fn described(message: &Message) -> String {
    let one = |field: &Field| {
        let count = match &field.shape {
            Shape::One => String::new(),
            Shape::Fixed(count) => format!("[{count}]"),
            Shape::Counted(by) => format!("[{by}]"),
            Shape::Open => "[]".into(),
            other => format!("{other:?}"),
        };
        format!("{} {}{count}", field.name, field.base)
    };
    format!("{{ {} }}", message.fields.iter().map(one).collect::<Vec<_>>().join(", "))
}
