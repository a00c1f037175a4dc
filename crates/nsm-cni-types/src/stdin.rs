//! What every operation reads from stdin before it looks at the rest: the object, its name and its version.

use serde_json::{Map, Value};

use crate::{Command, Error, Version, code, env::is_identifier};

/// A network configuration whose name and version are sound.
#[derive(Debug, Clone)]
pub struct Stdin {
    /// `name`.
    pub name: String,
    /// `cniVersion`.
    pub version: Version,
    /// All keys.
    pub keys: Map<String, Value>,
}

impl Stdin {
    /// Checks JSON, `name` and `cniVersion` in the library's order.
    ///
    /// # Errors
    /// Codes 6, 7, 1, and 4 for a command that is none.
    pub fn parse(json: &[u8], command: &Command) -> Result<Self, Error> {
        let decoding = |why: String| Error::new(code::DECODING, why);
        let value: Value = serde_json::from_slice(json)
            .map_err(|error| decoding(format!("error unmarshall network config: {error}")))?;
        let keys = match value {
            Value::Object(keys) => keys,
            Value::Null => Map::new(),
            _ => return Err(decoding("error unmarshall network config: expected an object".to_owned())),
        };
        let name = text(&keys, "name").map_err(|why| decoding(format!("error unmarshall network config: {why}")))?;
        if name.is_empty() {
            return Err(Error::new(code::INVALID_CONFIG, "missing network name"));
        }
        if !is_identifier(&name) {
            return Err(Error::new(code::INVALID_CONFIG, "invalid characters found in network name").details(name));
        }
        let since = match command {
            Command::Check => Some((Version::V0_4_0, "CHECK")),
            Command::Gc => Some((Version::V1_1_0, "GC")),
            Command::Status => Some((Version::V1_1_0, "STATUS")),
            Command::Add | Command::Del | Command::Version | Command::Attach | Command::Detach | Command::Collect => {
                None
            }
            Command::Unknown(command) => {
                return Err(Error::new(code::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND: {command}")));
            }
        };
        let version = text(&keys, "cniVersion")
            .map_err(|why| decoding(format!("decoding version from network config: {why}")))?;
        let version = Version::negotiate(&version, since)?;
        Ok(Self { name, version, keys })
    }
}

fn text(keys: &Map<String, Value>, key: &str) -> Result<String, String> {
    match keys.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("{key} {other}: expected a string")),
    }
}
