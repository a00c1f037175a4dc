//! Keys of JSON objects as programs in Go read them: encoding/json gives a field whatever key is its name in any case.
//!
//! Guarantee: two keys that one field of such a program takes are the same here, also with the two letters beyond ASCII that are
//! an `s` and a `k` to it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Two spellings of one key, side by side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("keys {0:?} and {1:?}: expected one of them, as programs in Go take both for the same")]
pub(crate) struct Twice(String, String);

fn folded(key: &str) -> impl Iterator<Item = char> {
    key.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    })
}

/// Whether a key is taken for `name`.
pub(crate) fn is(key: &str, name: &str) -> bool {
    folded(key).eq(folded(name))
}

/// Whether a key is `name` as some program may call it: also with `_` or `-` between its words.
pub(crate) fn means(key: &str, name: &str) -> bool {
    folded(key).filter(|c| !matches!(c, '_' | '-')).eq(folded(name))
}

/// Whether a key is taken for one of `names`.
pub(crate) fn is_one(key: &str, names: &[&str]) -> bool {
    names.iter().any(|name| is(key, name))
}

/// Whether a key that is taken for `name` is there.
pub(crate) fn has(keys: &Map<String, Value>, name: &str) -> bool {
    keys.keys().any(|key| is(key, name))
}

/// Looks for keys that differ in their spelling alone.
pub(crate) fn once(keys: &Map<String, Value>) -> Result<(), Twice> {
    let mut seen = BTreeMap::new();
    for key in keys.keys() {
        if let Some(other) = seen.insert(folded(key).collect::<String>(), key) {
            return Err(Twice(other.clone(), key.clone()));
        }
    }
    Ok(())
}

/// Gives keys that are taken for one of `names` that name; answers those that had another one. Where the name itself is there too,
/// the other stays.
pub(crate) fn respell<'a>(keys: &mut Map<String, Value>, names: &[&'a str]) -> Vec<(String, &'a str)> {
    let other = |key: &String| {
        let name = names.iter().find(|name| is(key, name))?;
        (key != name).then(|| (key.clone(), *name))
    };
    let mut all: Vec<(String, &str)> = keys.keys().filter_map(other).collect();
    all.retain(|(key, name)| {
        if keys.contains_key(*name) {
            return false;
        }
        let value = keys.remove(key).unwrap_or_default();
        keys.insert((*name).to_owned(), value);
        true
    });
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_what_a_field_takes() {
        for key in ["logFile", "LOGFILE", "logfile", "LogFile"] {
            assert!(is(key, "logFile"), "{key}");
        }
        assert!(is("\u{212a}ubeconfig", "kubeconfig") && is("delegate\u{17f}", "delegates"));
        assert!(means("log_file", "logFile") && means("Log-File", "logFile") && !means("log.file", "logFile"));
        assert!(!is("log_file", "logFile") && !is("logFiles", "logFile") && !is("", "type"));
    }

    #[test]
    fn spellings_side_by_side_are_found_and_others_put_right() {
        let object = |value: Value| value.as_object().cloned().unwrap();
        let twice = once(&object(json!({"Type": 1, "a": 2, "type": 3}))).unwrap_err().to_string();
        assert!(twice.contains("\"Type\" and \"type\""), "{twice}");
        let mut keys = object(json!({"CNIVersion": "1.0.0", "Name": "a", "name": "b", "other": 1}));
        assert_eq!(respell(&mut keys, &["cniVersion", "name"]), [("CNIVersion".to_owned(), "cniVersion")]);
        assert_eq!(keys, object(json!({"cniVersion": "1.0.0", "Name": "a", "name": "b", "other": 1})));
    }
}
