//! Switches of a list of plugins, as the CNI library reads them.

use serde_json::{Map, Value};

use crate::mistakes::quoted;

/// All of them.
pub(crate) const FLAGS: [&str; 3] = ["disableCheck", "disableGC", "loadOnlyInlinedPlugins"];

/// Reads a switch, which may be a text.
///
/// # Errors
/// What it is instead.
pub fn flag(keys: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match keys.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(format!("{key} {}: expected true or false", quoted(other))),
    }
}
