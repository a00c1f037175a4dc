//! The endpoints of one service, by label: the next one that a selector fits is found without looking at the others.
//!
//! An endpoint has a place, a number that it keeps while its name is registered. Endpoints are kept in order of their
//! places, so that "the next after this place" is a lookup, and going round needs no list.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{Entry, Standing};

/// Labels that an endpoint must have.
pub(crate) type Selector = BTreeMap<String, String>;

/// Who offers one service.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    entries: BTreeMap<u64, Arc<Entry>>,
    reachable: Labelled,
    returning: Labelled,
    foreign: Labelled,
    /// Those that may not serve it.
    denied: Labelled,
}

impl Offers {
    /// Adds or replaces the endpoint of that place. One that is denied may not serve: nothing is decided by it.
    pub(crate) fn put(&mut self, service: &str, entry: &Arc<Entry>, denied: bool) {
        let place = entry.place();
        if let Some(old) = self.entries.get(&place).cloned() {
            let was_denied = self.denies(place);
            let same = old.labels(service) == entry.labels(service)
                && old.standing() == entry.standing()
                && was_denied == denied;
            if !same {
                self.part(&old, was_denied).remove(place, old.labels(service));
                self.part(entry, denied).insert(place, entry.labels(service));
            }
        } else {
            self.part(entry, denied).insert(place, entry.labels(service));
        }
        self.entries.insert(place, entry.clone());
    }

    fn denies(&self, place: u64) -> bool {
        self.denied.all.contains(&place)
    }

    /// Takes the endpoint of that place out.
    pub(crate) fn take(&mut self, service: &str, place: u64) {
        if let Some(old) = self.entries.remove(&place) {
            let denied = self.denies(place);
            self.part(&old, denied).remove(place, old.labels(service));
        }
    }

    fn part(&mut self, entry: &Entry, denied: bool) -> &mut Labelled {
        match entry.standing() {
            _ if denied => &mut self.denied,
            Standing::Reachable => &mut self.reachable,
            Standing::Returning => &mut self.returning,
            Standing::Foreign => &mut self.foreign,
        }
    }

    /// The first reachable endpoint at `from` or later that one of the selectors fits.
    pub(crate) fn next<'a>(&self, selectors: impl IntoIterator<Item = &'a Selector>, from: u64) -> Option<&Arc<Entry>> {
        let places = selectors.into_iter().filter_map(|selector| self.reachable.next(selector, from));
        places.min().and_then(|place| self.entries.get(&place))
    }

    /// Whether one of the selectors fits an endpoint that cannot be reached until it registers again.
    pub(crate) fn returning<'a>(&self, selectors: impl IntoIterator<Item = &'a Selector>) -> bool {
        selectors.into_iter().any(|selector| self.returning.next(selector, 0).is_some())
    }

    /// Endpoints that one of the selectors fits and that cannot be reached, in order, for whoever wants to know why. Each is a lookup, as
    /// is to find that there are no more.
    pub(crate) fn unreachable<'a>(
        &self,
        selectors: impl IntoIterator<Item = &'a Selector> + Clone,
    ) -> impl Iterator<Item = &Arc<Entry>> {
        self.among([&self.returning, &self.foreign], selectors)
    }

    /// Endpoints that one of the selectors fits and that may not serve, in order.
    pub(crate) fn denied<'a>(
        &self,
        selectors: impl IntoIterator<Item = &'a Selector> + Clone,
    ) -> impl Iterator<Item = &Arc<Entry>> {
        self.among([&self.denied], selectors)
    }

    fn among<'a, 'o, const N: usize>(
        &'o self,
        parts: [&'o Labelled; N],
        selectors: impl IntoIterator<Item = &'a Selector> + Clone,
    ) -> impl Iterator<Item = &'o Arc<Entry>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let next = |selector| parts.into_iter().filter_map(move |part| part.next(selector, from));
            let place = selectors.clone().into_iter().flat_map(next).min()?;
            from = place + 1;
            self.entries.get(&place)
        })
    }

    /// The first of them at that place or later.
    pub(crate) fn from(&self, place: u64) -> Option<&Arc<Entry>> {
        self.entries.range(place..).next().map(|(_, entry)| entry)
    }

    /// All of them, whether they can be reached and may serve or not.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Places by label.
#[derive(Debug, Default)]
struct Labelled {
    all: BTreeSet<u64>,
    by_label: HashMap<(String, String), BTreeSet<u64>>,
}

impl Labelled {
    fn insert(&mut self, place: u64, labels: &Selector) {
        self.all.insert(place);
        for (key, value) in labels {
            self.by_label.entry((key.clone(), value.clone())).or_default().insert(place);
        }
    }

    fn remove(&mut self, place: u64, labels: &Selector) {
        self.all.remove(&place);
        for (key, value) in labels {
            let label = (key.clone(), value.clone());
            if let Some(places) = self.by_label.get_mut(&label) {
                places.remove(&place);
                if places.is_empty() {
                    self.by_label.remove(&label);
                }
            }
        }
    }

    /// The sets of all labels leap to each other's next place until they agree.
    fn next(&self, selector: &Selector, from: u64) -> Option<u64> {
        let mut sets = Vec::with_capacity(selector.len());
        for (key, value) in selector {
            sets.push(self.by_label.get(&(key.clone(), value.clone()))?);
        }
        if sets.is_empty() {
            return self.all.range(from..).next().copied();
        }
        let (mut place, mut agreed) = (from, 0);
        for set in sets.iter().cycle() {
            let found = *set.range(place..).next()?;
            agreed = if found == place { agreed + 1 } else { 1 };
            place = found;
            if agreed >= sets.len() {
                return Some(place);
            }
        }
        None
    }
}
