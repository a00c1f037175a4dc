//! Reading keys one by one and keeping every mistake, so that one run shows them all.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde_json::{Map, Value};

use super::RESERVED_LABELS;
use crate::{Error, code};

/// Longest value that a mistake quotes, in characters.
const QUOTED: usize = 120;

/// The mistakes so far.
#[derive(Debug, Default)]
pub(super) struct Fields {
    mistakes: Vec<String>,
    unknown: bool,
}

impl Fields {
    pub(super) fn unknown(&mut self, key: &str, known: &[&str]) {
        self.unknown = true;
        self.mistakes.push(format!("unknown key {key:?}: expected {}", known.join(", ")));
    }

    pub(super) fn mistake(&mut self, text: String) {
        self.mistakes.push(text);
    }

    pub(super) fn invalid(&mut self, key: &str, value: &Value, expected: &str) {
        let value = value.to_string();
        let shown: String = value.chars().take(QUOTED).collect();
        let more = if shown.len() < value.len() { "…" } else { "" };
        self.mistakes.push(format!("{key} {shown}{more}: expected {expected}"));
    }

    pub(super) fn texts(self) -> Vec<String> {
        self.mistakes
    }

    pub(super) fn into_error(self) -> Option<Error> {
        let code = if self.unknown { code::UNSUPPORTED_FIELD } else { code::INVALID_CONFIG };
        (!self.mistakes.is_empty()).then(|| Error::new(code, self.mistakes.join("; ")))
    }

    pub(super) fn text(&mut self, keys: &Map<String, Value>, key: &str, expected: &str) -> Option<String> {
        match keys.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.invalid(key, other, expected);
                None
            }
        }
    }

    pub(super) fn number(&mut self, keys: &Map<String, Value>, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = keys.get(key)?;
        let number = value.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            self.invalid(key, value, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    pub(super) fn boolean(&mut self, keys: &Map<String, Value>, key: &str) -> bool {
        match keys.get(key) {
            None => false,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                self.invalid(key, other, "true or false");
                false
            }
        }
    }

    /// An object; null and absent are none.
    pub(super) fn object<'a>(&mut self, keys: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
        match keys.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::Object(object)) => Some(object),
            Some(other) => {
                self.invalid(key, other, "an object");
                None
            }
        }
    }

    /// Labels as an object of strings.
    pub(super) fn label_map(&mut self, keys: &Map<String, Value>, name: &str) -> BTreeMap<String, String> {
        let Some(value) = keys.get(name) else { return BTreeMap::new() };
        let Value::Object(object) = value else {
            self.invalid(name, value, "an object of strings");
            return BTreeMap::new();
        };
        self.label_object(name, object)
    }

    pub(super) fn label_object(&mut self, name: &str, object: &Map<String, Value>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (key, value) in object {
            match value {
                Value::String(text) => drop(labels.insert(key.clone(), text.clone())),
                other => self.invalid(&format!("{name}.{key}"), other, "a string"),
            }
        }
        self.labels(name, &labels);
        labels
    }

    /// Refuses labels that are not the configuration's to give.
    pub(super) fn labels(&mut self, name: &str, labels: &BTreeMap<String, String>) {
        for reserved in RESERVED_LABELS {
            if let Some(value) = labels.get(reserved) {
                let expected = "no such label: it comes from the runtime and the node";
                self.invalid(&format!("{name}.{reserved}"), &value.as_str().into(), expected);
            }
        }
        if labels.contains_key("") {
            self.mistake(format!("{name}: a label without a name"));
        }
    }
}
