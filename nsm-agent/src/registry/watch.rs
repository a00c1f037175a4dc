//! Watches: the current objects first, then every change, until the watcher leaves or the registry ends.
//!
//! A slow watcher costs no more than the names of what changed since: changes of one object come together, and what came and went unseen
//! is not told. What was there when the watch began is looked up as the watcher reads it, not before.

use std::{
    collections::{BTreeSet, HashMap},
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::Stream;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};

use super::{Directory, Entry, Service, State, template};

/// What a watcher is told.
#[derive(Debug, Clone)]
pub enum Change<K: Watched> {
    /// The object as it is.
    Current(Arc<K>),
    /// The object as the watcher last saw it; it is no more.
    Gone(Arc<K::Message>),
}

/// An object that can be watched.
pub trait Watched: Sized + Send + Sync + 'static {
    /// As on the wire; also the form of templates.
    type Message: Send + Sync + 'static;
    /// The object as on the wire.
    fn message(&self) -> &Arc<Self::Message>;
    #[doc(hidden)]
    fn fits(template: &Self::Message, message: &Self::Message) -> bool;
    #[doc(hidden)]
    fn only(template: &Self::Message) -> &str;
    #[doc(hidden)]
    fn current(state: &State, name: &str) -> Option<Arc<Self>>;
    #[doc(hidden)]
    fn begin(state: &State, template: &Self::Message) -> Cursor;
    #[doc(hidden)]
    fn next(state: &State, cursor: &Cursor) -> Option<(Arc<Self>, Cursor)>;
    #[doc(hidden)]
    fn name(message: &Self::Message) -> &str;
    #[doc(hidden)]
    fn watchers(state: &mut State) -> &mut Watchers<Self>;
}

impl Watched for Service {
    type Message = NetworkService;
    fn message(&self) -> &Arc<NetworkService> {
        &self.message
    }
    fn fits(template: &NetworkService, message: &NetworkService) -> bool {
        template::service(template, message)
    }
    fn only(template: &NetworkService) -> &str {
        &template.name
    }
    fn current(state: &State, name: &str) -> Option<Arc<Self>> {
        state.service(name).cloned()
    }
    fn begin(_: &State, _: &NetworkService) -> Cursor {
        Cursor::After(String::new())
    }
    fn next(state: &State, cursor: &Cursor) -> Option<(Arc<Self>, Cursor)> {
        match cursor {
            Cursor::After(name) => {
                let service = state.service_after(name)?;
                Some((service.clone(), Cursor::After(service.message.name.clone())))
            }
            Cursor::Offering(..) => None,
        }
    }
    fn name(message: &NetworkService) -> &str {
        &message.name
    }
    fn watchers(state: &mut State) -> &mut Watchers<Self> {
        &mut state.service_watchers
    }
}

impl Watched for Entry {
    type Message = NetworkServiceEndpoint;
    fn message(&self) -> &Arc<NetworkServiceEndpoint> {
        &self.message
    }
    fn fits(template: &NetworkServiceEndpoint, message: &NetworkServiceEndpoint) -> bool {
        template::endpoint(template, message)
    }
    fn only(template: &NetworkServiceEndpoint) -> &str {
        &template.name
    }
    fn current(state: &State, name: &str) -> Option<Arc<Self>> {
        state.endpoint(name).cloned()
    }
    fn begin(state: &State, template: &NetworkServiceEndpoint) -> Cursor {
        match state.rarest(&template.network_service_names) {
            Some(service) => Cursor::Offering(service.to_owned(), 0),
            None => Cursor::After(String::new()),
        }
    }
    fn next(state: &State, cursor: &Cursor) -> Option<(Arc<Self>, Cursor)> {
        match cursor {
            Cursor::After(name) => {
                let entry = state.endpoint_after(name)?;
                Some((entry.clone(), Cursor::After(entry.message.name.clone())))
            }
            Cursor::Offering(service, from) => {
                let entry = state.offers(service)?.from(*from)?;
                Some((entry.clone(), Cursor::Offering(service.clone(), entry.place() + 1)))
            }
        }
    }
    fn name(message: &NetworkServiceEndpoint) -> &str {
        &message.name
    }
    fn watchers(state: &mut State) -> &mut Watchers<Self> {
        &mut state.endpoint_watchers
    }
}

/// How far a watcher has come in what there was when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// What follows this name.
    After(String),
    /// Who offers this service, from this place on.
    Offering(String, u64),
}

/// Most objects that are looked at for one watcher before others have their turn.
const STEPS: usize = 256;

/// All watchers of one kind of object.
pub struct Watchers<K: Watched> {
    next: u64,
    all: HashMap<u64, Watcher<K>>,
    /// Those that look at one name, as each endpoint does at its own.
    by_name: HashMap<String, BTreeSet<u64>>,
    /// Those that look at any name.
    wide: BTreeSet<u64>,
}

impl<K: Watched> Default for Watchers<K> {
    fn default() -> Self {
        Self { next: 0, all: HashMap::new(), by_name: HashMap::new(), wide: BTreeSet::new() }
    }
}

struct Watcher<K: Watched> {
    template: K::Message,
    /// None when all that was there at first is told.
    cursor: Option<Cursor>,
    dirty: BTreeSet<String>,
    seen: HashMap<String, Arc<K::Message>>,
    waker: Option<Waker>,
}

impl<K: Watched> Watchers<K> {
    /// Tells those whom it concerns that the object of that name changed; `now` is what it is, if it is.
    pub(super) fn changed(&mut self, name: &str, now: Option<&K::Message>) {
        let narrow = self.by_name.get(name).into_iter().flatten();
        for id in narrow.chain(&self.wide) {
            let Some(watcher) = self.all.get_mut(id) else { continue };
            if watcher.seen.contains_key(name) || now.is_some_and(|now| K::fits(&watcher.template, now)) {
                watcher.dirty.insert(name.to_owned());
                if let Some(waker) = watcher.waker.take() {
                    waker.wake();
                }
            } else {
                watcher.dirty.remove(name);
            }
        }
    }

    /// Wakes all, so that they see that the registry has ended.
    pub(super) fn wake(&mut self) {
        self.all.values_mut().filter_map(|watcher| watcher.waker.take()).for_each(Waker::wake);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many names are kept for their readers.
    #[cfg(test)]
    pub(super) fn unread(&self) -> usize {
        self.all.values().map(|watcher| watcher.dirty.len()).sum()
    }

    fn add(&mut self, template: K::Message, begin: Cursor) -> u64 {
        let id = self.next;
        self.next += 1;
        let (mut cursor, mut dirty) = (None, BTreeSet::new());
        match K::only(&template) {
            "" => {
                cursor = Some(begin);
                self.wide.insert(id);
            }
            name => {
                dirty.insert(name.to_owned());
                self.by_name.entry(name.to_owned()).or_default().insert(id);
            }
        }
        self.all.insert(id, Watcher { template, cursor, dirty, seen: HashMap::new(), waker: None });
        id
    }

    fn remove(&mut self, id: u64) {
        let Some(watcher) = self.all.remove(&id) else { return };
        self.wide.remove(&id);
        if let Some(ids) = self.by_name.get_mut(K::only(&watcher.template)) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_name.remove(K::only(&watcher.template));
            }
        }
    }
}

/// A stream of changes; it ends when the registry does. Dropping it ends the watch.
pub struct Watch<K: Watched> {
    directory: Arc<Directory>,
    id: u64,
    kind: PhantomData<fn() -> K>,
}

impl<K: Watched> Watch<K> {
    pub(super) fn new(directory: &Arc<Directory>, template: K::Message) -> Self {
        let mut state = directory.state();
        let begin = K::begin(&state, &template);
        let id = K::watchers(&mut state).add(template, begin);
        Self { directory: directory.clone(), id, kind: PhantomData }
    }
}

impl<K: Watched> Stream for Watch<K> {
    type Item = Change<K>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change<K>>> {
        let mut state = self.directory.state();
        for _ in 0..STEPS {
            let closed = state.closed;
            let Some(watcher) = K::watchers(&mut state).all.get_mut(&self.id) else { return Poll::Ready(None) };
            // What there was comes before what changed since.
            if let Some(cursor) = watcher.cursor.take() {
                let Some((object, after)) = K::next(&state, &cursor) else { continue };
                let name = K::name(object.message());
                let lives = K::current(&state, name).is_some();
                let Some(watcher) = K::watchers(&mut state).all.get_mut(&self.id) else { return Poll::Ready(None) };
                watcher.cursor = Some(after);
                if lives && !watcher.seen.contains_key(name) && K::fits(&watcher.template, object.message()) {
                    watcher.dirty.remove(name);
                    watcher.seen.insert(name.to_owned(), object.message().clone());
                    return Poll::Ready(Some(Change::Current(object)));
                }
                continue;
            }
            let Some(name) = watcher.dirty.pop_first() else {
                if closed {
                    return Poll::Ready(None);
                }
                watcher.waker = Some(context.waker().clone());
                return Poll::Pending;
            };
            let current = K::current(&state, &name);
            let Some(watcher) = K::watchers(&mut state).all.get_mut(&self.id) else { return Poll::Ready(None) };
            match current {
                Some(object) if K::fits(&watcher.template, object.message()) => {
                    watcher.seen.insert(name, object.message().clone());
                    return Poll::Ready(Some(Change::Current(object)));
                }
                Some(_) | None => {
                    if let Some(last) = watcher.seen.remove(&name) {
                        return Poll::Ready(Some(Change::Gone(last)));
                    }
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<K: Watched> Drop for Watch<K> {
    fn drop(&mut self) {
        K::watchers(&mut self.directory.state()).remove(self.id);
    }
}
