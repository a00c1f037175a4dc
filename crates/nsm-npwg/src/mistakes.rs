//! Keeping every mistake, so that one answer shows them all.

use serde_json::{Map, Value};

/// Longest value that a mistake quotes, in characters.
const QUOTED: usize = 120;

/// The mistakes so far.
#[derive(Debug, Default)]
pub(crate) struct Mistakes {
    all: Vec<String>,
    unknown: bool,
}

impl Mistakes {
    pub(crate) fn add(&mut self, text: impl Into<String>) {
        self.all.push(text.into());
    }

    pub(crate) fn unknown(&mut self, key: &str, expected: &str) {
        self.unknown = true;
        self.all.push(format!("unknown key {key:?}: expected {expected}"));
    }

    pub(crate) fn invalid(&mut self, key: &str, value: &Value, expected: &str) {
        self.all.push(format!("{key} {}: expected {expected}", quoted(value)));
    }

    /// Whether a key was not known.
    pub(crate) fn has_unknown(&self) -> bool {
        self.unknown
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn texts(self) -> Vec<String> {
        self.all
    }

    pub(crate) fn text(self) -> String {
        self.all.join("; ")
    }

    /// A text; null and absent are none, as for Go programs.
    pub(crate) fn string(&mut self, keys: &Map<String, Value>, key: &str, expected: &str) -> Option<String> {
        match keys.get(key)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => {
                self.invalid(key, other, expected);
                None
            }
        }
    }

    /// A list of texts; null and absent are none.
    pub(crate) fn strings(&mut self, keys: &Map<String, Value>, key: &str, expected: &str) -> Option<Vec<String>> {
        let list = match keys.get(key)? {
            Value::Null => return None,
            Value::Array(list) => list,
            other => {
                self.invalid(key, other, expected);
                return None;
            }
        };
        let mut texts = Vec::new();
        for entry in list {
            match entry {
                Value::String(text) => texts.push(text.clone()),
                other => self.invalid(key, other, expected),
            }
        }
        Some(texts)
    }

    pub(crate) fn boolean(&mut self, keys: &Map<String, Value>, key: &str) -> bool {
        match keys.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                self.invalid(key, other, "true or false");
                false
            }
        }
    }

    pub(crate) fn number(
        &mut self,
        keys: &Map<String, Value>,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = keys.get(key).filter(|value| !value.is_null())?;
        let number = value.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            self.invalid(key, value, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// An object; null and absent are none.
    pub(crate) fn object<'a>(&mut self, keys: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
        match keys.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::Object(object)) => Some(object),
            Some(other) => {
                self.invalid(key, other, "an object");
                None
            }
        }
    }
}

/// As much of a value as a mistake quotes.
pub(crate) fn quoted(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
