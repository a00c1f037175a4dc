//! An object of a document, read key by key: what nobody asked for is an error in the end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// A value that makes no sense where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {value}: expected {expected}")]
pub struct Wrong {
    place: String,
    value: String,
    expected: String,
}

/// The keys of one object.
pub(super) struct Fields<'a> {
    object: Option<&'a Map<String, Value>>,
    place: String,
    known: BTreeSet<&'static str>,
    all_known: bool,
}

impl<'a> Fields<'a> {
    /// An object; null is one without keys, as in `match:` above its selectors.
    pub(super) fn of(value: &'a Value, place: &str) -> Result<Self, Wrong> {
        let object = match value {
            Value::Object(object) => Some(object),
            Value::Null => None,
            other => return Err(wrong(place, other, "an object")),
        };
        Ok(Self { object, place: place.to_owned(), known: BTreeSet::new(), all_known: false })
    }

    /// The value of the one of these keys that is there. Two spellings of the same are a contradiction.
    fn take(&mut self, keys: &[&'static str]) -> Result<Option<(&'a Value, String)>, Wrong> {
        self.known.extend(keys);
        let Some(object) = self.object else { return Ok(None) };
        let found = keys.iter().filter_map(|key| object.get(*key).map(|value| (value, self.at(key))));
        // Of several, those that say nothing do not count.
        let (nulls, mut found): (Vec<_>, Vec<_>) = found.partition(|(value, _)| value.is_null());
        found.extend(nulls.into_iter().take(usize::from(found.is_empty())));
        let mut found = found.into_iter();
        let first = found.next();
        match (first, found.next()) {
            (Some((_, first)), Some((value, second))) => {
                Err(wrong(&second, value, &format!("only one of it and {first}")))
            }
            (first, _) => Ok(first),
        }
    }

    fn at(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }

    /// A string that must be there.
    pub(super) fn text(&mut self, keys: &[&'static str]) -> Result<String, Wrong> {
        match self.take(keys)? {
            Some((Value::String(text), _)) => Ok(text.clone()),
            Some((other, place)) => Err(wrong(&place, other, "a string")),
            None => Err(wrong(&self.at(keys[0]), &Value::Null, "a string")),
        }
    }

    /// A string; empty when absent.
    pub(super) fn optional_text(&mut self, keys: &[&'static str]) -> Result<String, Wrong> {
        match self.take(keys)? {
            None | Some((Value::Null, _)) => Ok(String::new()),
            Some((Value::String(text), _)) => Ok(text.clone()),
            Some((other, place)) => Err(wrong(&place, other, "a string")),
        }
    }

    /// `true` or `false`; `false` when absent.
    pub(super) fn flag(&mut self, keys: &[&'static str]) -> Result<bool, Wrong> {
        match self.take(keys)? {
            None => Ok(false),
            Some((Value::Bool(flag), _)) => Ok(*flag),
            Some((other, place)) => Err(wrong(&place, other, "true or false")),
        }
    }

    /// A whole number; 0 when absent.
    pub(super) fn number<N: TryFrom<i64> + Default>(
        &mut self,
        keys: &[&'static str],
        expected: &str,
    ) -> Result<N, Wrong> {
        match self.take(keys)? {
            None => Ok(N::default()),
            Some((value, place)) => {
                let number = value.as_i64().and_then(|number| N::try_from(number).ok());
                number.ok_or_else(|| wrong(&place, value, expected))
            }
        }
    }

    /// The items of a list; none when absent.
    pub(super) fn list(&mut self, keys: &[&'static str]) -> Result<Vec<(&'a Value, String)>, Wrong> {
        Ok(self.optional_list(keys)?.unwrap_or_default())
    }

    /// The items of a list, if there is one.
    fn optional_list(&mut self, keys: &[&'static str]) -> Result<Option<Vec<(&'a Value, String)>>, Wrong> {
        match self.take(keys)? {
            None | Some((Value::Null, _)) => Ok(None),
            Some((Value::Array(items), place)) => {
                Ok(Some(items.iter().enumerate().map(|(at, item)| (item, format!("{place}[{at}]"))).collect()))
            }
            Some((other, place)) => Err(wrong(&place, other, "a list")),
        }
    }

    /// Strings; none when absent.
    pub(super) fn texts(&mut self, keys: &[&'static str]) -> Result<Vec<String>, Wrong> {
        Ok(self.optional_texts(keys)?.unwrap_or_default())
    }

    /// Strings, if there is a list of them: one that is empty says something.
    pub(super) fn optional_texts(&mut self, keys: &[&'static str]) -> Result<Option<Vec<String>>, Wrong> {
        let text = |(item, place): (&Value, String)| {
            item.as_str().map(str::to_owned).ok_or_else(|| wrong(&place, item, "a string"))
        };
        self.optional_list(keys)?.map(|items| items.into_iter().map(text).collect()).transpose()
    }

    /// Labels; none when absent. YAML reads `on` and `8080` as something else: they are to be quoted.
    pub(super) fn labels(&mut self, keys: &[&'static str]) -> Result<BTreeMap<String, String>, Wrong> {
        let Some((value, place)) = self.take(keys)? else { return Ok(BTreeMap::new()) };
        let labels = Fields::of(value, &place)?;
        let mut read = BTreeMap::new();
        for (key, value) in labels.entries() {
            let text = value
                .as_str()
                .ok_or_else(|| wrong(&labels.at(key), value, "a string, quoted if it looks like a number"))?;
            read.insert(key.clone(), text.to_owned());
        }
        Ok(read)
    }

    /// An object; without keys when absent.
    pub(super) fn object(&mut self, keys: &[&'static str]) -> Result<Self, Wrong> {
        Ok(self.optional_object(keys)?.unwrap_or_else(|| Self {
            object: None,
            place: self.at(keys[0]),
            known: BTreeSet::new(),
            all_known: false,
        }))
    }

    /// An object, if there is one.
    pub(super) fn optional_object(&mut self, keys: &[&'static str]) -> Result<Option<Self>, Wrong> {
        self.take(keys)?.map(|(value, place)| Self::of(value, &place)).transpose()
    }

    /// Every key and value, as of a map with free keys.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.object.into_iter().flatten()
    }

    /// The place of a free key.
    pub(super) fn place_of(&self, key: &str) -> String {
        self.at(key)
    }

    /// The object's name: `spec.name` where it is written, as metadata cannot hold every name; else that of the metadata.
    pub(super) fn name(&mut self, of_metadata: String) -> Result<String, Wrong> {
        match self.optional_text(&["name"])? {
            name if name.is_empty() => Ok(of_metadata),
            name => self.check_name("name", &name).map(|()| name),
        }
    }

    /// Whether an object may be called so.
    pub(super) fn check_name(&self, key: &str, name: &str) -> Result<(), Wrong> {
        if name.is_empty() || name.len() > 253 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(self.wrong(key, &name.into(), "a name of 1 to 253 bytes without blanks"));
        }
        Ok(())
    }

    pub(super) fn ignore(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    pub(super) fn ignore_rest(&mut self) {
        self.all_known = true;
    }

    pub(super) fn wrong(&self, key: &str, value: &Value, expected: &str) -> Wrong {
        wrong(&self.at(key), value, expected)
    }

    /// Every key has been asked for.
    pub(super) fn end(self) -> Result<(), Wrong> {
        let unknown = self.entries().find(|(key, _)| !self.all_known && !self.known.contains(key.as_str()));
        match unknown {
            None => Ok(()),
            Some((key, value)) => {
                let known: Vec<_> = self.known.iter().copied().collect();
                Err(wrong(&self.at(key), value, &format!("one of the keys {}", known.join(", "))))
            }
        }
    }
}

fn wrong(place: &str, value: &Value, expected: &str) -> Wrong {
    Wrong::new(place, value, expected)
}

impl Wrong {
    /// What stands there, cut to a readable length.
    pub(crate) fn new(place: &str, value: &Value, expected: &str) -> Self {
        let value = if value.is_null() { "nothing".to_owned() } else { value.to_string() };
        let value = match value.char_indices().nth(80) {
            Some((end, _)) => format!("{}…", &value[..end]),
            None => value,
        };
        let place = if place.is_empty() { "the document" } else { place };
        Self { place: place.to_owned(), value, expected: expected.to_owned() }
    }
}
