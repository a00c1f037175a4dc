//! What the commands do.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use vpp_api_client::definition::{Definitions, Field, Message, Shape};
use vpp_api_client::{Client, Error, Options};

use crate::arguments::{Arguments, Command, From};
use crate::watch;

/// For a goodbye.
const PARTING: Duration = Duration::from_secs(1);

pub(crate) type Failure = Box<dyn StdError + Send + Sync>;

pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Command::Stats { prefix, watch } = &arguments.command {
        return watch::stats(&arguments, prefix.as_deref(), *watch).await;
    }
    let options = Options::new("vpp-api").timeout(arguments.timeout);
    let vpp = Client::connect(&arguments.socket, options).await?;
    let done = carry_out(&vpp, &arguments).await;
    // A VPP that hangs has taken its time already.
    let parted = vpp.within(arguments.timeout.min(PARTING)).close().await;
    if let (Ok(()), Err(error)) = (&done, parted) {
        eprintln!("vpp-api: done, but VPP may keep what it has of this connection: {error}");
    }
    done
}

async fn carry_out(vpp: &Client, arguments: &Arguments) -> Result<(), Failure> {
    let definitions = Arc::new(definitions(vpp, arguments).await?);
    match &arguments.command {
        Command::Call { name, fields } => call(vpp, &definitions, name, fields).await,
        Command::Dump { name, fields } => dump(vpp, &definitions, name, fields).await,
        Command::Events { name, fields } => events(vpp, &definitions, name, fields, arguments.count).await,
        Command::List { word } => list(vpp, &definitions, word),
        Command::Stats { .. } => Ok(()),
    }
}

async fn definitions(vpp: &Client, arguments: &Arguments) -> Result<Definitions, Failure> {
    match &arguments.definitions {
        From::Own => Ok(Definitions::ours()),
        From::Directory(directory) => Ok(Definitions::from_directory(directory)?),
        From::Vpp => told(vpp).await,
        From::Fitting => {
            let ours = Definitions::ours();
            let fit = match &arguments.command {
                Command::Call { name, .. } | Command::Dump { name, .. } => has_all(vpp, &ours, name),
                // What brings no events is refused with a list of what does, VPP's.
                Command::Events { name, .. } => {
                    has_all(vpp, &ours, name) && ours.services.get(name).is_some_and(|of| !of.events.is_empty())
                }
                Command::List { .. } | Command::Stats { .. } => false,
            };
            if fit { Ok(ours) } else { told(vpp).await }
        }
    }
}

/// Those of VPP, which are long: it takes a while to get and read them.
async fn told(vpp: &Client) -> Result<Definitions, Failure> {
    match vpp.definitions().await {
        Err(Error::NotServed { .. }) => {
            eprintln!(
                "vpp-api: this VPP does not tell its definitions (before 24.06): using those of this program; \
                 --definitions names a directory with others"
            );
            Ok(Definitions::ours())
        }
        other => Ok(other?),
    }
}

/// Whether VPP has the request and all that may come back for it as they are defined here: a CRC covers the types.
fn has_all(vpp: &Client, ours: &Definitions, request: &str) -> bool {
    let Some(service) = ours.services.get(request) else { return false };
    let served: BTreeMap<String, u32> = vpp.served().into_iter().collect();
    let answers = service.reply.iter().chain(&service.details).chain(&service.events).map(String::as_str);
    std::iter::once(request).chain(answers).all(|name| {
        let message = ours.messages.get(name);
        message.is_some_and(|message| served.get(name) == Some(&message.crc))
    })
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
    let found: Vec<_> = vpp.served().into_iter().filter(|(name, _)| name.contains(word)).collect();
    if found.is_empty() {
        eprintln!("vpp-api: this VPP has no message with {word} in its name: is the plugin that it belongs to loaded?");
    }
    let mut out = std::io::stdout().lock();
    for (name, crc) in found {
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
