//! Objects as they were last seen, by key and by the name that they stand for: of several, the oldest first.
//!
//! Kept is what decides; the rest of an object is dropped when it is read.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An object, as far as it matters.
#[derive(Debug)]
pub(super) struct Found<M> {
    pub(super) key: Key,
    pub(super) uid: Arc<str>,
    /// Seconds since 1970, by the API server's clock.
    pub(super) created: i64,
    pub(super) generation: i64,
    /// The name that it stands for.
    pub(super) name: Arc<str>,
    /// Its content, or why it has none.
    pub(super) message: Result<Arc<M>, String>,
    /// The node whose agent keeps it alive, or registered it.
    pub(super) node: Option<Arc<str>>,
    /// Who registered it there.
    pub(super) registrant: Option<Box<str>>,
    /// What its condition says.
    pub(super) told: Option<Told>,
}

/// A condition `Accepted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) accepted: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

/// All objects of a kind.
#[derive(Debug)]
pub(super) struct Objects<M> {
    all: HashMap<Key, Arc<Found<M>>>,
    /// In order. There is one, nearly always.
    by_name: HashMap<Arc<str>, Vec<(i64, Key)>>,
    /// While a list is read: what it had.
    listed: Option<HashSet<Key>>,
}

impl<M> Default for Objects<M> {
    fn default() -> Self {
        Self { all: HashMap::new(), by_name: HashMap::new(), listed: None }
    }
}

impl<M> Objects<M> {
    /// A list begins: what it does not have is gone.
    pub(super) fn begin(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// The list has ended. Answers the names of what was not in it.
    pub(super) fn end(&mut self) -> Vec<Arc<str>> {
        let Some(listed) = self.listed.take() else { return Vec::new() };
        let gone: Vec<Key> = self.all.keys().filter(|key| !listed.contains(key)).cloned().collect();
        gone.iter().filter_map(|key| self.take(key)).map(|found| found.name.clone()).collect()
    }

    /// An object as it is now; what is older than what is known changes nothing. Answers the names that it concerns.
    pub(super) fn put(&mut self, found: Found<M>) -> Vec<Arc<str>> {
        if let Some(listed) = &mut self.listed {
            listed.insert(found.key.clone());
        }
        let stale = |old: &Arc<Found<M>>| old.uid == found.uid && old.generation > found.generation;
        if self.all.get(&found.key).is_some_and(stale) {
            return Vec::new();
        }
        let mut names: Vec<Arc<str>> = self.take(&found.key).iter().map(|old| old.name.clone()).collect();
        if !names.contains(&found.name) {
            names.push(found.name.clone());
        }
        let same = self.by_name.entry(found.name.clone()).or_insert_with(|| Vec::with_capacity(1));
        let order = (found.created, found.key.clone());
        same.insert(same.partition_point(|other| *other < order), order);
        self.all.insert(found.key.clone(), Arc::new(found));
        names
    }

    /// An object of that identity is gone. Answers the name that it stood for.
    pub(super) fn remove(&mut self, key: &Key, uid: &str) -> Option<Arc<str>> {
        let same = self.all.get(key).is_some_and(|found| &*found.uid == uid);
        same.then(|| self.take(key)).flatten().map(|found| found.name.clone())
    }

    fn take(&mut self, key: &Key) -> Option<Arc<Found<M>>> {
        let found = self.all.remove(key)?;
        if let Some(named) = self.by_name.get_mut(&found.name) {
            named.retain(|(_, other)| other != key);
            if named.is_empty() {
                self.by_name.remove(&found.name);
            }
        }
        Some(found)
    }

    /// The object there.
    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Found<M>>> {
        self.all.get(key)
    }

    /// Those that stand for a name, the oldest first.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &Arc<Found<M>>> {
        self.by_name.get(name).into_iter().flatten().filter_map(|(_, key)| self.all.get(key))
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Found<M>>> {
        self.all.values()
    }

    /// All names.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.by_name.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(namespace: &str, created: i64, generation: i64, name: &str) -> Found<i64> {
        Found {
            key: Key { namespace: namespace.into(), name: "o".into() },
            uid: namespace.into(),
            created,
            generation,
            name: name.into(),
            message: Ok(Arc::new(generation)),
            node: None,
            registrant: None,
            told: None,
        }
    }

    fn order(objects: &Objects<i64>, name: &str) -> Vec<String> {
        objects.named(name).map(|found| found.key.namespace.to_string()).collect()
    }

    #[test]
    fn the_oldest_comes_first_and_namespaces_decide_within_a_second() {
        let mut objects = Objects::default();
        for (namespace, created) in [("c", 5), ("b", 7), ("a", 7)] {
            assert_eq!(objects.put(found(namespace, created, 1, "s")), ["s".into()]);
        }
        assert_eq!(order(&objects, "s"), ["c", "a", "b"]);
        let key = Key { namespace: "c".into(), name: "o".into() };
        assert_eq!(objects.remove(&key, "another"), None);
        assert_eq!(objects.remove(&key, "c"), Some("s".into()));
        assert_eq!(order(&objects, "s"), ["a", "b"]);
    }

    #[test]
    fn what_is_late_changes_nothing_and_a_new_name_concerns_both() {
        let mut objects = Objects::default();
        objects.put(found("a", 1, 4, "s"));
        assert!(objects.put(found("a", 1, 3, "t")).is_empty());
        assert_eq!(objects.put(found("a", 1, 5, "t")), ["s".into(), "t".into()]);
        assert!(order(&objects, "s").is_empty());
    }

    #[test]
    fn what_a_list_lacks_is_gone() {
        let mut objects = Objects::default();
        objects.put(found("a", 1, 1, "s"));
        objects.put(found("b", 1, 1, "t"));
        objects.begin();
        objects.put(found("b", 1, 1, "t"));
        assert_eq!(objects.end(), ["s".into()]);
        assert_eq!(objects.names(), ["t".into()]);
    }
}
