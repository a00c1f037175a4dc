//! Settings as NSM's programs spell them in flags and `NSM_*` variables.
//!
//! Guarantees: an empty value is an absent one; every mistake is reported, not the first, each with name, value and what was
//! expected.
//!
//! ```
//! use nsm_sdk::settings::{Mistakes, duration};
//!
//! let mut mistakes = Mistakes::default();
//! let wait = mistakes.read("NSM_DIAL_TIMEOUT", Some("5"), "a duration such as 5s", duration);
//! assert_eq!(wait, None);
//! assert_eq!(mistakes.none().unwrap_err().to_string(), "NSM_DIAL_TIMEOUT is \"5\": expected a duration such as 5s");
//! ```

mod awareness;
mod service_url;

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use nsm_fdpass::ConnectError;

use crate::Error;

pub use self::awareness::awareness_groups;
pub use self::service_url::{InvalidServiceUrl, ServiceUrl, Wire};

/// What is wrong with the settings, one line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<String>);

impl Mistakes {
    /// The value as `parse` reads it; `None` when it is absent, empty or wrong. What is wrong is remembered.
    pub fn read<T>(
        &mut self,
        name: &str,
        value: Option<&str>,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = value.map(str::trim).filter(|value| !value.is_empty())?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.0.push(format!("{name} is {value:?}: expected {expected}"));
        }
        parsed
    }

    /// Like [`Mistakes::read`], where `parse` says itself what was expected.
    pub fn parse<T, E: fmt::Display>(
        &mut self,
        name: &str,
        value: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = value.map(str::trim).filter(|value| !value.is_empty())?;
        parse(value).map_err(|error| self.0.push(format!("{name} is {value:?}: {error}"))).ok()
    }

    /// A setting that is needed and absent.
    pub fn absent(&mut self, name: &str, expected: &str) {
        self.0.push(format!("{name} is not set: expected {expected}"));
    }

    /// Whether there was no mistake.
    ///
    /// # Errors
    /// All of them.
    pub fn none(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// `10m`, `1h30m`, `200ms`, `1.5s`: numbers with units, as Go prints durations. No sign.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, behind) = rest.split_at(number);
        let unit = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

/// What to do when the agent's socket cannot be connected to, in the words of the programs' settings and the agent's;
/// `None`: it was something else.
pub fn advice(error: &Error) -> Option<&'static str> {
    match error.find::<ConnectError>()? {
        ConnectError::Denied { .. } => Some("the agent lets other users in by --nsm-socket-mode or --nsm-socket-group"),
        ConnectError::Missing(_) | ConnectError::Refused(_) | ConnectError::Timeout(_) | ConnectError::Io { .. } => {
            Some("start nsm-agent; if it listens elsewhere (--nsm-socket), name that by NSM_CONNECT_TO or --connect-to")
        }
    }
}

/// `unix:///path/to.sock`, or the absolute path alone.
pub fn unix_socket(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    (path.starts_with('/') && path.len() > 1 && path.len() < 108 && !path.contains('\0')).then(|| path.into())
}

/// `key:value,key:value`.
pub fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once(':')?;
        let (key, value) = (key.trim(), value.trim());
        (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
    };
    text.split(',').map(pair).collect()
}

/// `name,name`, none of them empty.
pub fn names(text: &str) -> Option<Vec<String>> {
    let name = |name: &str| Some(name.trim().to_owned()).filter(|name| !name.is_empty() && name.len() <= 253);
    text.split(',').map(name).collect()
}

/// `true`, `false` and what else Go takes for them.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        assert_eq!(duration("10m"), Some(Duration::from_mins(10)));
        assert_eq!(duration("1h30m0.5s"), Some(Duration::from_millis(5_400_500)));
        assert_eq!(duration("200ms"), Some(Duration::from_millis(200)));
        for text in ["", "5", "-5s", "5x", "s", "1e400s", "99999999999999999999h", "1..5s", "NaNs"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn all_mistakes_are_told() {
        let mut mistakes = Mistakes::default();
        assert_eq!(mistakes.read("A", Some("x"), "a yes or no", boolean), None);
        assert_eq!(mistakes.read("B", Some(" "), "labels", labels), None);
        assert_eq!(mistakes.read("C", Some("app:icmp, zone:a"), "labels", labels).map(|labels| labels.len()), Some(2));
        assert_eq!(mistakes.read("D", Some("tcp://x"), "a socket", unix_socket), None);
        mistakes.absent("E", "a name");
        let text = mistakes.none().unwrap_err().to_string();
        assert_eq!(text.lines().count(), 3);
        assert!(text.starts_with("A is \"x\": expected a yes or no\nD is"), "{text}");
    }

    #[test]
    fn sockets_are_paths() {
        assert_eq!(unix_socket("unix:///run/x.sock"), Some("/run/x.sock".into()));
        assert_eq!(unix_socket("/run/x.sock"), Some("/run/x.sock".into()));
        for text in ["unix://", "unix://run/x", "run/x", "tcp://10.0.0.1:5001", "/"] {
            assert_eq!(unix_socket(text), None, "{text}");
        }
    }
}
