//! The command line.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

pub(crate) const USAGE: &str = "\
Calls a running VPP over its binary API.

vpp-api [OPTION...] call NAME ['{\"field\": value}']    sends a message, prints what comes back
vpp-api [OPTION...] dump NAME ['{\"field\": value}']    the same, one line for each thing found
vpp-api [OPTION...] events NAME ['{\"field\": value}']  asks for events (want_..._events), prints them as they come
vpp-api [OPTION...] list [WORD]                       the messages that this VPP has, and their fields
vpp-api [OPTION...] stats [PREFIX]                    interfaces' counters, or everything that begins with PREFIX

Where {...} is -, it is read from standard input, so that no list of processes shows what is secret in it.
In {...} an enum is VPP's name of the value or its number; flags are [\"NAME\", ...], one \"NAME\" or a number; addresses, prefixes
and MAC addresses are as people write them, \"10.0.0.1/24\"; u8[] is hexadecimal digits; \"~0\" is all ones. What is left out has
VPP's default or is zero. list shows which fields there are.

  --socket PATH        VPP's API socket (/run/vpp/api.sock)
  --stats-socket PATH  that of its statistics (/run/vpp/stats.sock)
  --definitions WHERE  vpp: as the running one tells them; own: those of this program; or a directory of *.api.json,
                       like /usr/share/vpp/api. Unless this is given: own where VPP has the same, vpp otherwise
  --timeout SECONDS    for an answer (5)
  --count N            events: stop after N of them; stats: print N times
  --watch              stats: every second what has changed since
  --version            of this program
";

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Call { name: String, fields: Json },
    Dump { name: String, fields: Json },
    Events { name: String, fields: Json },
    List { word: String },
    Stats { prefix: Option<String>, watch: bool },
}

/// Where definitions come from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// This program where they are what VPP has, VPP otherwise.
    Fitting,
    Vpp,
    Own,
    Directory(PathBuf),
}

/// What the command line wants.
#[derive(Debug, PartialEq)]
pub(crate) enum Wanted {
    Help,
    Version,
    Done(Arguments),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) command: Command,
    pub(crate) socket: PathBuf,
    pub(crate) stats_socket: PathBuf,
    pub(crate) definitions: From,
    pub(crate) timeout: Duration,
    pub(crate) count: Option<u64>,
}

impl Arguments {
    pub(crate) fn parse(
        mut words: impl Iterator<Item = String>,
        input: impl FnOnce() -> io::Result<String>,
    ) -> Result<Wanted, String> {
        let (mut socket, mut stats_socket) = (PathBuf::from("/run/vpp/api.sock"), PathBuf::from("/run/vpp/stats.sock"));
        let (mut definitions, mut timeout, mut count, mut watch) = (From::Fitting, Duration::from_secs(5), None, false);
        let mut plain = Vec::new();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(Wanted::Help),
                "--version" => return Ok(Wanted::Version),
                "--socket" => socket = value()?.into(),
                "--stats-socket" => stats_socket = value()?.into(),
                "--definitions" => {
                    definitions = match value()?.as_str() {
                        "vpp" => From::Vpp,
                        "own" => From::Own,
                        directory => From::Directory(directory.into()),
                    }
                }
                "--timeout" => {
                    let text = value()?;
                    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                    timeout = seconds.ok_or_else(|| format!("--timeout {text}: expected seconds, like 5 or 0.5"))?;
                }
                "--count" => {
                    let text = value()?;
                    count = Some(text.parse().map_err(|_| format!("--count {text}: expected a number"))?);
                }
                "--watch" => watch = true,
                option if option.starts_with("--") => return Err(format!("there is no {option}")),
                _ => plain.push(word),
            }
        }
        let command = command(plain, watch, count, input)?;
        Ok(Wanted::Done(Self { command, socket, stats_socket, definitions, timeout, count }))
    }
}

fn command(
    plain: Vec<String>,
    watch: bool,
    count: Option<u64>,
    input: impl FnOnce() -> io::Result<String>,
) -> Result<Command, String> {
    let mut plain = plain.into_iter();
    let verb = plain.next().ok_or("expected call, dump, events, list or stats")?;
    let (first, second, more) = (plain.next(), plain.next(), plain.next());
    if let Some(more) = more {
        return Err(format!("{more}: more than {verb} takes; JSON is one word, in quotes"));
    }
    if watch && verb != "stats" {
        return Err(format!("--watch belongs to stats, not to {verb}"));
    }
    if count.is_some() && matches!(verb.as_str(), "call" | "dump" | "list") {
        return Err(format!("--count belongs to events and stats, not to {verb}"));
    }
    let named = |name: Option<String>| name.ok_or_else(|| format!("{verb} wants the name of a message"));
    let fields = |text: Option<String>| match text {
        None => Ok(json!({})),
        Some(text) if text == "-" => {
            object("standard input", &input().map_err(|error| format!("standard input: {error}"))?)
        }
        Some(text) => object(&text, &text),
    };
    match verb.as_str() {
        "call" => Ok(Command::Call { name: named(first)?, fields: fields(second)? }),
        "dump" => Ok(Command::Dump { name: named(first)?, fields: fields(second)? }),
        "events" => Ok(Command::Events { name: named(first)?, fields: fields(second)? }),
        "list" | "stats" if second.is_some() => Err(format!("{verb} takes one word")),
        "list" => Ok(Command::List { word: first.unwrap_or_default() }),
        "stats" => Ok(Command::Stats { prefix: first, watch }),
        other => Err(format!("there is no {other}: expected call, dump, events, list or stats")),
    }
}

/// Errors begin with `from`.
fn object(from: &str, text: &str) -> Result<Json, String> {
    match serde_json::from_str(text) {
        Ok(Json::Object(fields)) => Ok(Json::Object(fields)),
        Ok(_) => Err(format!("{from}: expected an object, like '{{\"sw_if_index\": 1}}'")),
        Err(error) => Err(format!("{from}: no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Wanted, String> {
        Arguments::parse(words.iter().map(|word| (*word).to_owned()), || Ok(r#"{"a": "hidden}"#.into()))
    }

    #[test]
    fn what_comes_by_standard_input_is_in_no_message() {
        let error = parse(&["call", "a", "-"]).unwrap_err();
        assert!(error.starts_with("standard input: no JSON") && !error.contains("hidden"), "{error}");
    }

    #[test]
    fn options_stand_anywhere() {
        let words = ["call", "--timeout", "0.5", "show_version", "--socket", "/a"];
        let Ok(Wanted::Done(parsed)) = parse(&words) else { panic!("a call") };
        assert_eq!(parsed.command, Command::Call { name: "show_version".into(), fields: json!({}) });
        assert_eq!((parsed.timeout, parsed.socket), (Duration::from_millis(500), "/a".into()));
        assert_eq!((parse(&["--help"]), parse(&["--version"])), (Ok(Wanted::Help), Ok(Wanted::Version)));
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |words: &[&str]| parse(words).unwrap_err();
        assert_eq!(wrong(&[]), "expected call, dump, events, list or stats");
        assert_eq!(wrong(&["call"]), "call wants the name of a message");
        assert_eq!(wrong(&["call", "a", "[1]"]), "[1]: expected an object, like '{\"sw_if_index\": 1}'");
        assert!(wrong(&["call", "a", "{x}"]).starts_with("{x}: no JSON"));
        assert_eq!(wrong(&["call", "a", "{}", "b"]), "b: more than call takes; JSON is one word, in quotes");
        assert_eq!(wrong(&["dump", "a", "--watch"]), "--watch belongs to stats, not to dump");
        assert_eq!(wrong(&["call", "a", "--count", "1"]), "--count belongs to events and stats, not to call");
        assert_eq!(wrong(&["--timeout", "-1", "list"]), "--timeout -1: expected seconds, like 5 or 0.5");
        assert_eq!(wrong(&["--socket"]), "--socket wants a value");
        assert_eq!(wrong(&["--sock", "a"]), "there is no --sock");
    }
}
