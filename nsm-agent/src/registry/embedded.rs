//! The registry inside the agent: a [`Directory`] backed by a database file.
//!
//! Guarantees: a new or changed object is on the disk before it is answered and before anybody finds it; a renewal waits for
//! no disk. Writes of one name happen one after another, and run to their end even if the caller hangs up. Its tasks end
//! with [`Embedded::shutdown`].

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use nsm_fdpass::Peer;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use prost::Message;
use tokio::{
    sync::{Mutex, MutexGuard, Notify},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Directory, Entry, Error, OpenError, Outcome, Owner, Reach, Registered, Registrant, Registry, Service, Term, check,
    listener::listener,
    process::Processes,
    record,
    store::{Contents, PUT_OFF, Store, Table},
};

/// How the embedded registry behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the database is.
    pub dir: PathBuf,
    /// Longest time that an endpoint lives without renewal.
    pub max_life: Duration,
}

/// The embedded registry. Clones are the same one.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    directory: Arc<Directory>,
    store: Store,
    max_life: Duration,
    /// Writers of one name wait for each other.
    gates: [Mutex<()>; 64],
    processes: Processes,
    /// An earlier expiry than the expiry task waits for.
    sooner: Notify,
    tasks: TaskTracker,
    ending: CancellationToken,
}

impl Embedded {
    /// Opens the database and starts to expire.
    ///
    /// # Errors
    /// The database is another process's or a newer version's, or the disk fails. Damage is no error: the file is set aside.
    pub async fn open(settings: Settings) -> Result<Self, OpenError> {
        let dir = settings.dir.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&dir)).await;
        let (store, contents) =
            opened.map_err(|error| OpenError::Unusable { path: settings.dir.clone(), cause: error.to_string() })??;
        Ok(Self::start(store, contents, settings.max_life))
    }

    pub(super) fn start(store: Store, contents: Contents, max_life: Duration) -> Self {
        let registry = Self(Arc::new(Inner {
            directory: Directory::new(),
            store,
            max_life,
            gates: std::array::from_fn(|_| Mutex::new(())),
            processes: Processes::default(),
            sooner: Notify::new(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        }));
        registry.restore(contents);
        let (inner, ending) = (registry.0.clone(), registry.0.ending.clone());
        registry.0.tasks.spawn(async move { ending.run_until_cancelled(inner.expire()).await });
        registry
    }

    /// Ends all watches and tasks and writes what is left to write.
    pub async fn shutdown(&self) {
        self.0.ending.cancel();
        self.0.directory.close();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        let inner = self.0.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || inner.store.end()).await {
            tracing::error!(%error, "the registry's database was not closed in order");
        }
    }

    fn restore(&self, contents: Contents) {
        let directory = &self.0.directory;
        for (name, bytes) in contents.services {
            match record::to_service(&bytes) {
                Ok((service, owner)) => directory.put_service(&Arc::new(Service { message: service.into(), owner })),
                Err(error) => {
                    tracing::error!(service = name, %error, "record of a network service is damaged: left out");
                }
            }
        }
        for (name, bytes) in contents.endpoints {
            match record::to_endpoint(&bytes) {
                Ok((endpoint, owner)) => self.restore_endpoint(endpoint, owner),
                Err(error) => tracing::error!(endpoint = name, %error, "record of an endpoint is damaged: left out"),
            }
        }
    }

    /// A renewal may have been lost with the old process: the time on the disk can be [`PUT_OFF`] behind.
    fn restore_endpoint(&self, endpoint: NetworkServiceEndpoint, owner: Owner) {
        let left = endpoint.expiration_time.map(|time| left_until(time) + PUT_OFF.as_secs_f64());
        if left.is_some_and(|left| left <= 0.0) {
            self.0.store.put_off(Table::Endpoints, &endpoint.name, None);
            return;
        }
        let deadline = left.map(|left| Instant::now() + Duration::from_secs_f64(left).min(self.0.max_life + PUT_OFF));
        let reach = if endpoint.url.starts_with("inode://") { Reach::Lost } else { Reach::Url };
        let place = self.0.directory.state().next_place();
        let entry = Entry { message: endpoint.into(), owner, reach, netns: None, process: None, place, deadline };
        self.0.directory.put_endpoint(&Arc::new(entry), false);
    }

    /// Runs a write to its end, whether the caller waits or not.
    async fn run<T, R>(&self, write: impl FnOnce(Arc<Inner>) -> R + Send) -> Result<T, Error>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, Error>> + Send + 'static,
    {
        if self.0.ending.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        self.0.tasks.spawn(write(self.0.clone())).await.unwrap_or(Err(Error::ShuttingDown))
    }
}

#[async_trait]
impl Registry for Embedded {
    fn directory(&self) -> &Arc<Directory> {
        &self.0.directory
    }

    async fn register_service(&self, mut service: NetworkService, by: Owner) -> Result<Registered<Service>, Error> {
        let payload_given = !service.payload.is_empty();
        check::service(&mut service)?;
        self.run(move |inner| async move { inner.register_service(service, payload_given, by).await }).await
    }

    async fn apply_service(&self, mut service: NetworkService) -> Result<Registered<Service>, Error> {
        check::service(&mut service)?;
        self.run(move |inner| async move {
            let _gate = inner.gate(&service.name).await;
            inner.write_service(Service { message: service.into(), owner: Owner::Operator }).await
        })
        .await
    }

    async fn unregister_service(&self, name: &str, by: Owner) -> Result<bool, Error> {
        let name = name.to_owned();
        self.run(move |inner| async move { inner.unregister_service(&name, by).await }).await
    }

    async fn register_endpoint(
        &self,
        endpoint: NetworkServiceEndpoint,
        by: Registrant,
    ) -> Result<Registered<Entry>, Error> {
        check::endpoint(&endpoint)?;
        self.run(move |inner| async move { inner.register_endpoint(endpoint, by).await }).await
    }

    async fn unregister_endpoint(&self, name: &str, by: Owner) -> Result<bool, Error> {
        let name = name.to_owned();
        self.run(move |inner| async move { inner.unregister_endpoint(&name, by).await }).await
    }
}

impl Inner {
    async fn gate(&self, name: &str) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
        self.gates[usize::try_from(hash % 64).unwrap_or(0)].lock().await
    }

    async fn register_service(
        &self,
        service: NetworkService,
        payload_given: bool,
        by: Owner,
    ) -> Result<Registered<Service>, Error> {
        let _gate = self.gate(&service.name).await;
        let Some(old) = self.directory.service(&service.name) else {
            self.directory.state().check_room(by, service.encoded_len(), true)?;
            return self.write_service(Service { message: service.into(), owner: by }).await;
        };
        let same = service.matches == old.message.matches && (service.payload == old.message.payload || !payload_given);
        if same || service.matches.is_empty() {
            return Ok(Registered { object: old, outcome: Outcome::Unchanged });
        }
        if !by.may_change(old.owner) && !self.is_abandoned(&old) {
            return Err(Error::Taken { what: "network service", name: service.name, owner: old.owner });
        }
        self.directory.state().check_room(by, service.encoded_len(), false)?;
        self.write_service(Service { message: service.into(), owner: by }).await
    }

    /// A peer's service that it offers no more: pods come back with another namespace, and must find their service free.
    fn is_abandoned(&self, service: &Service) -> bool {
        let state = self.directory.state();
        let offers = state.offers(&service.message.name);
        service.owner != Owner::Operator
            && offers.is_none_or(|offers| offers.all().all(|entry| entry.owner != service.owner))
    }

    async fn write_service(&self, service: Service) -> Result<Registered<Service>, Error> {
        let name = service.message.name.clone();
        let old = self.directory.service(&name);
        if let Some(old) = &old
            && old.message == service.message
            && old.owner == service.owner
        {
            return Ok(Registered { object: old.clone(), outcome: Outcome::Unchanged });
        }
        let before = old.as_deref().map(record::of_service);
        self.store.write(Table::Services, &name, Some(record::of_service(&service)), before).await?;
        let object = Arc::new(service);
        self.directory.put_service(&object);
        let outcome = if old.is_some() { Outcome::Changed } else { Outcome::Created };
        tracing::info!(service = name, owner = %object.owner, ?outcome, "network service registered");
        Ok(Registered { object, outcome })
    }

    async fn unregister_service(&self, name: &str, by: Owner) -> Result<bool, Error> {
        let _gate = self.gate(name).await;
        let Some(old) = self.directory.service(name) else { return Ok(false) };
        if !by.may_change(old.owner) && !self.is_abandoned(&old) {
            return Err(Error::NotYours { what: "network service", name: name.to_owned(), owner: old.owner });
        }
        self.store.write(Table::Services, name, None, Some(record::of_service(&old))).await?;
        self.directory.take_service(name);
        tracing::info!(service = name, %by, "network service unregistered");
        Ok(true)
    }

    async fn register_endpoint(
        self: Arc<Self>,
        mut endpoint: NetworkServiceEndpoint,
        mut by: Registrant,
    ) -> Result<Registered<Entry>, Error> {
        let name = endpoint.name.clone();
        let _gate = self.gate(&name).await;
        let old = self.directory.state().stored_endpoint(&name).cloned();
        if let Some(old) = &old
            && !by.owner.may_change(old.owner)
            && old.deadline.is_none_or(|deadline| deadline > Instant::now())
        {
            return Err(Error::Taken { what: "endpoint", name, owner: old.owner });
        }
        if let Some(Entry { reach: Reach::Socket(socket), owner, message, .. }) = old.as_deref()
            && by.socket.is_none()
            && (*owner, &message.url) == (by.owner, &endpoint.url)
        {
            by.socket = Some(socket.clone());
        }
        let deadline = self.life(&mut endpoint, by.term);
        let now = prost_types::Timestamp::from(SystemTime::now());
        endpoint.initial_registration_time =
            old.as_ref().map_or(Some(now), |old| old.message.initial_registration_time);
        let room = endpoint.encoded_len();
        self.directory.state().check_room(by.owner, room, old.is_none())?;
        let unseen = i64::try_from(self.directory.state().next_place()).map_or(i64::MIN, |number| -number);
        let mut entry = Self::entry(endpoint, by.clone(), deadline, unseen)?;
        if let (Some(old), Term::Standing) = (&old, by.term) {
            edited(&mut entry, old);
        }
        entry.place = old.as_ref().map_or_else(|| self.directory.state().next_place(), |old| old.place);
        let renewal = old.as_ref().is_some_and(|old| is_renewal(old, &entry));
        let record = record::of_endpoint(&entry);
        if renewal {
            self.store.put_off(Table::Endpoints, &name, Some(record));
        } else {
            let before = old.as_deref().map(record::of_endpoint);
            self.store.write(Table::Endpoints, &name, Some(record), before).await?;
        }
        let object = Arc::new(entry);
        let came_back = old.as_ref().is_some_and(|old| old.unreachable().is_some());
        self.directory.put_endpoint(&object, renewal && !came_back);
        self.sooner.notify_one();
        self.follow(old.as_deref(), &object, by.process);
        let outcome = match (&old, renewal) {
            (None, _) => Outcome::Created,
            (Some(_), false) => Outcome::Changed,
            (Some(_), true) => Outcome::Unchanged,
        };
        if outcome != Outcome::Unchanged || came_back {
            tracing::info!(endpoint = name, owner = %object.owner, ?outcome, "endpoint registered");
        }
        Ok(Registered { object, outcome })
    }

    /// Sets when the endpoint expires, in the message and as a deadline.
    fn life(&self, endpoint: &mut NetworkServiceEndpoint, term: Term) -> Option<Instant> {
        let asked = endpoint.expiration_time.map(left_until);
        let left = match term {
            Term::Standing => asked?,
            Term::Renewed { token } => {
                let token = token.map(|time| left_until(time.into()));
                asked.into_iter().chain(token).fold(self.max_life.as_secs_f64(), f64::min)
            }
        };
        // A thousand years are enough, and can be added to any time.
        let left = Duration::from_secs_f64(left.clamp(0.0, 3e10));
        endpoint.expiration_time = Some((SystemTime::now() + left).into());
        Some(Instant::now() + left)
    }

    /// `unseen` stands for a process that has no number in the agent's process namespace.
    fn entry(
        endpoint: NetworkServiceEndpoint,
        by: Registrant,
        deadline: Option<Instant>,
        unseen: i64,
    ) -> Result<Entry, Error> {
        let reach = match (by.socket, endpoint.url.as_str()) {
            (Some(socket), _) => Reach::Socket(socket),
            (None, url) if url.starts_with("inode://") && by.term == Term::Standing => Reach::Lost,
            (None, url) if url.starts_with("inode://") => return Err(Error::NotPassed(url.to_owned())),
            // The path is the caller's idea of the file system, and the agent would open it as root.
            (None, url) if !url.starts_with("tcp://") && by.owner != Owner::Operator => {
                return Err(Error::Invalid {
                    field: "url".into(),
                    value: url.chars().take(80).collect(),
                    expected: "inode://DEV/INO with the socket's file passed along, or tcp://".into(),
                });
            }
            (None, _) => Reach::Url,
        };
        let own = |process: &&Arc<Peer>| match &reach {
            Reach::Socket(socket) => listener(socket).is_none_or(|pid| pid == process.pid),
            Reach::Url | Reach::Lost => false,
        };
        let process = by.process.as_ref().filter(own).map(|process| match process.pid {
            0 => unseen,
            pid => i64::from(pid),
        });
        Ok(Entry { message: endpoint.into(), owner: by.owner, reach, netns: by.netns, process, place: 0, deadline })
    }

    /// Keeps track of the process whose end is the endpoint's.
    fn follow(self: &Arc<Self>, old: Option<&Entry>, new: &Entry, process: Option<Arc<Peer>>) {
        let name = &new.message.name;
        if let Some(pid) = old.and_then(|old| old.process)
            && new.process != Some(pid)
        {
            self.processes.remove(pid, name);
        }
        let (Some(process), Some(key)) = (process, new.process) else { return };
        self.processes.add(key, name, || {
            let (inner, ending) = (self.clone(), self.ending.clone());
            let task = async move {
                if let Err(error) = process.ended().await {
                    tracing::warn!(pid = process.pid, %error, "the end of this process will not be noticed");
                    return;
                }
                for name in inner.processes.take(key) {
                    inner.withdraw(&name, "its process has ended", |entry| entry.process == Some(key)).await;
                }
            };
            self.tasks.spawn(async move { ending.run_until_cancelled(task).await }).abort_handle()
        });
    }

    async fn unregister_endpoint(&self, name: &str, by: Owner) -> Result<bool, Error> {
        let _gate = self.gate(name).await;
        let Some(old) = self.directory.endpoint(name) else { return Ok(false) };
        if !by.may_change(old.owner) {
            return Err(Error::NotYours { what: "endpoint", name: name.to_owned(), owner: old.owner });
        }
        self.store.write(Table::Endpoints, name, None, Some(record::of_endpoint(&old))).await?;
        self.forget(name);
        tracing::info!(endpoint = name, %by, "endpoint unregistered");
        Ok(true)
    }

    /// Removes an endpoint that nobody asked to remove, if it still is the one that is meant.
    async fn withdraw(&self, name: &str, why: &str, meant: impl FnOnce(&Entry) -> bool + Send) {
        let _gate = self.gate(name).await;
        let found = self.directory.state().stored_endpoint(name).cloned();
        if found.is_some_and(|entry| meant(&entry)) {
            self.store.put_off(Table::Endpoints, name, None);
            self.forget(name);
            tracing::info!(endpoint = name, why, "endpoint withdrawn");
        }
    }

    fn forget(&self, name: &str) {
        if let Some(pid) = self.directory.take_endpoint(name).and_then(|entry| entry.process) {
            self.processes.remove(pid, name);
        }
    }

    async fn expire(&self) {
        loop {
            let (next, expired) = {
                let state = self.directory.state();
                (state.next_expiry(), state.expired(Instant::now()))
            };
            match (expired, next) {
                (Some(name), _) => {
                    let over = |entry: &Entry| entry.deadline.is_some_and(|deadline| deadline <= Instant::now());
                    self.withdraw(&name, "it was not renewed in time", over).await;
                }
                (None, Some(next)) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next) => {}
                        () = self.sooner.notified() => {}
                    }
                }
                (None, None) => self.sooner.notified().await,
            }
        }
    }
}

/// An operator edits an endpoint that lives elsewhere: who owns it, reaches it and renews it stays.
fn edited(entry: &mut Entry, old: &Entry) {
    if old.owner == Owner::Operator && !matches!(old.reach, Reach::Socket(_)) {
        return;
    }
    let mut message = (*entry.message).clone();
    message.url.clone_from(&old.message.url);
    message.expiration_time = old.message.expiration_time;
    entry.message = message.into();
    entry.owner = old.owner;
    entry.reach = old.reach.clone();
    entry.netns.clone_from(&old.netns);
    entry.process = old.process;
    entry.deadline = old.deadline;
}

/// Whether nothing but the expiry moved.
fn is_renewal(old: &Entry, new: &Entry) -> bool {
    let timeless = |entry: &Entry| NetworkServiceEndpoint { expiration_time: None, ..(*entry.message).clone() };
    old.owner == new.owner && old.deadline.is_some() == new.deadline.is_some() && timeless(old) == timeless(new)
}

/// Seconds until then, negative when it is over.
fn left_until(time: prost_types::Timestamp) -> f64 {
    let Ok(time) = SystemTime::try_from(time) else { return 0.0 };
    match time.duration_since(SystemTime::now()) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}
