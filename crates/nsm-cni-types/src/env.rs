//! The environment of a CNI call, checked in the order and with the words of the CNI library.

use crate::{Error, code};

/// Longest interface name, in bytes.
const LONGEST_NAME: usize = 15;

/// `CNI_COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are called what they are")]
pub enum Command {
    Add,
    Check,
    Del,
    Gc,
    Status,
    Version,
    /// `NSM_ATTACH`: one network more for a pod that runs. No plugin of others knows it, and takes it for an ADD of the whole pod.
    Attach,
    /// `NSM_DETACH`: one network less.
    Detach,
    /// `NSM_COLLECT`: frees what has lost its namespace.
    Collect,
    /// The library reads and checks stdin before it refuses these.
    Unknown(String),
}

impl Command {
    fn of(text: &str) -> Self {
        match text {
            "ADD" => Self::Add,
            "CHECK" => Self::Check,
            "DEL" => Self::Del,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            "NSM_ATTACH" => Self::Attach,
            "NSM_DETACH" => Self::Detach,
            "NSM_COLLECT" => Self::Collect,
            other => Self::Unknown(other.to_owned()),
        }
    }

    fn needs(&self, variable: &str) -> bool {
        match self {
            Self::Add | Self::Check | Self::Attach => {
                matches!(variable, "CNI_CONTAINERID" | "CNI_NETNS" | "CNI_IFNAME" | "CNI_PATH")
            }
            Self::Del | Self::Detach => matches!(variable, "CNI_CONTAINERID" | "CNI_IFNAME" | "CNI_PATH"),
            Self::Gc | Self::Status | Self::Collect => variable == "CNI_PATH",
            Self::Version | Self::Unknown(_) => false,
        }
    }
}

/// The variables of a CNI call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// What to do.
    pub command: Command,
    /// `CNI_CONTAINERID`, checked where it is needed.
    pub container_id: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_IFNAME`, checked where it is needed.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// `CNI_NETNS_OVERRIDE`: the plugin's own namespace is allowed.
    pub netns_override: bool,
}

impl Environment {
    /// Reads the variables through `get`; absent is empty. `None`: no `CNI_COMMAND`.
    ///
    /// # Errors
    /// Code 4, naming what is missing or invalid.
    pub fn read(get: impl Fn(&str) -> String) -> Result<Option<Self>, Error> {
        let command = get("CNI_COMMAND");
        if command.is_empty() {
            return Ok(None);
        }
        let command = Command::of(&command);
        let mut missing = Vec::new();
        let mut variable = |name: &'static str, check: fn(&str) -> Result<(), Error>| {
            let value = get(name);
            if command.needs(name) {
                if value.is_empty() {
                    missing.push(name);
                } else {
                    check(&value)?;
                }
            }
            Ok(value)
        };
        let container_id = variable("CNI_CONTAINERID", container_id)?;
        let netns = variable("CNI_NETNS", |_| Ok(()))?;
        let ifname = variable("CNI_IFNAME", interface_name)?;
        variable("CNI_PATH", |_| Ok(()))?;
        if !missing.is_empty() {
            return Err(invalid(format!("required env variables [{}] missing", missing.join(","))));
        }
        let netns_override = get("CNI_NETNS_OVERRIDE");
        let netns_override = netns_override == "1" || netns_override.eq_ignore_ascii_case("true");
        Ok(Some(Self { command, container_id, netns, ifname, args: get("CNI_ARGS"), netns_override }))
    }
}

fn invalid(msg: impl Into<String>) -> Error {
    Error::new(code::INVALID_ENVIRONMENT, msg)
}

/// Whether a container id or network name has only what the specification allows.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

pub(crate) fn container_id(text: &str) -> Result<(), Error> {
    if is_identifier(text) { Ok(()) } else { Err(invalid("invalid characters in containerID").details(text)) }
}

pub(crate) fn interface_name(text: &str) -> Result<(), Error> {
    if text.len() > LONGEST_NAME {
        let details = format!("interface name should be less than {} characters", LONGEST_NAME + 1);
        return Err(invalid("interface name is too long").details(details));
    }
    if text == "." || text == ".." {
        return Err(invalid("interface name is . or .."));
    }
    if text.chars().any(|c| c == '/' || c == ':' || c.is_whitespace()) {
        return Err(invalid("interface name contains / or : or whitespace characters"));
    }
    Ok(())
}

/// Whether an interface can be made under that name: the rule of the agent, which is stricter than the CNI library's. A DEL of
/// what the library would let through must still succeed.
pub(crate) fn is_new_interface(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'%');
    plain && interface_name(text).is_ok() && !matches!(text, "" | "all" | "default")
}
