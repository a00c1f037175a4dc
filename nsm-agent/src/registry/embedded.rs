//! The registry inside the agent: a [`Directory`] backed by a database file.
//!
//! Guarantees: a new or changed object is on the disk before it is answered and before anybody finds it; a renewal waits for
//! no disk. Writes of one name happen one after another, and run to their end even if the caller hangs up. Its tasks end
//! with [`Embedded::shutdown`].

mod endpoints;
mod services;

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use tokio::{
    sync::{Mutex, MutexGuard, Notify},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Directory, Entry, Error, OpenError, Owner, Reach, Registered, Registrant, Registry, Service, check,
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
        self.0.directory.put_endpoint(&Arc::new(entry));
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
}

/// Seconds until then, negative when it is over.
fn left_until(time: prost_types::Timestamp) -> f64 {
    let Ok(time) = SystemTime::try_from(time) else { return 0.0 };
    match time.duration_since(SystemTime::now()) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}
