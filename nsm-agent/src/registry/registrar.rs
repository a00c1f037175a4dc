//! Who may register what, and how it goes: the same for every backend, which only keeps it ([`Backing`]).
//!
//! Guarantees: a new or changed object is kept before it is answered and before anybody finds it; a renewal waits for
//! nothing. Writes of one name happen one after another, and run to their end even if the caller hangs up. Its tasks end
//! with [`Registrar::shutdown`].

mod endpoints;
mod foreign;
mod idle;
mod services;

pub(super) use foreign::Foreign;
use idle::Idle;

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use nsm_objects::Access;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use tokio::{
    sync::{Mutex, MutexGuard, Notify},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Directory, Entry, Error, Owner, Party, Pods, Reach, Registered, Registrant, Registry, Service, ServiceAccess,
    check, process::Processes,
};

/// What keeps registered objects. Writes of one name come one after another.
#[async_trait]
pub(super) trait Backing: Send + Sync + 'static {
    /// Answers when names can be looked up, or why they cannot.
    async fn ready(&self) -> Result<(), Error>;

    /// Keeps a new service, or one in the place of another.
    async fn put_service(&self, service: &Service, before: Option<&Service>) -> Result<(), Error>;

    /// Keeps it no more.
    async fn remove_service(&self, service: &Service) -> Result<(), Error>;

    /// Keeps a new endpoint, or one in the place of another.
    async fn put_endpoint(&self, entry: &Entry, before: Option<&Entry>) -> Result<(), Error>;

    /// Keeps it no more.
    async fn remove_endpoint(&self, entry: &Entry) -> Result<(), Error>;

    /// The namespace that services of processes are in whose pod is not known, if they are in one.
    fn home_of_unknown(&self) -> Option<&Arc<str>> {
        None
    }

    /// Whether `by` is the pod that had registered an endpoint, made again: its earlier namespace is no more.
    async fn is_made_again(&self, _name: &str, _before: Owner, _by: Owner) -> bool {
        false
    }

    /// Nothing but its expiry moved. Waits for nothing.
    fn renewed(&self, entry: &Entry);

    /// It went without anybody's asking. Waits for nothing; what is to be done about it is done soon.
    fn withdrawn(&self, entry: &Entry);

    /// Does what is left to do.
    async fn end(&self);
}

/// What decides about registrations, beside what is registered.
pub(super) struct Rules {
    /// Longest time that an endpoint lives without renewal.
    pub(super) max_life: Duration,
    /// Who may use and serve services that do not say it.
    pub(super) access: ServiceAccess,
    /// Tells whose pod somebody is.
    pub(super) pods: Arc<dyn Pods>,
}

/// A registry over some backing. Clones are the same one.
#[derive(Clone)]
pub struct Registrar(Arc<Inner>);

struct Inner {
    directory: Arc<Directory>,
    backing: Arc<dyn Backing>,
    max_life: Duration,
    /// Tells whose pod somebody is.
    pods: Arc<dyn Pods>,
    /// Writers of one name wait for each other.
    gates: [Mutex<()>; 64],
    processes: Processes,
    idle: Idle,
    /// An earlier expiry than the expiry task waits for.
    sooner: Notify,
    tasks: TaskTracker,
    ending: CancellationToken,
}

impl Registrar {
    /// Starts to expire.
    pub(super) fn start(backing: Arc<dyn Backing>, rules: Rules) -> Self {
        let Rules { max_life, access, pods } = rules;
        let registry = Self(Arc::new(Inner {
            directory: Directory::new(access),
            backing,
            max_life,
            pods,
            gates: std::array::from_fn(|_| Mutex::new(())),
            processes: Processes::default(),
            idle: Idle::default(),
            sooner: Notify::new(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        }));
        let (inner, ending) = (registry.0.clone(), registry.0.ending.clone());
        registry.0.tasks.spawn(async move { ending.run_until_cancelled(inner.expire()).await });
        let (inner, ending) = (registry.0.clone(), registry.0.ending.clone());
        registry.0.tasks.spawn(async move { ending.run_until_cancelled(inner.tidy()).await });
        registry
    }

    /// Ends all watches and tasks and writes what is left to write.
    pub async fn shutdown(&self) {
        self.0.ending.cancel();
        self.0.directory.close();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.backing.end().await;
    }

    /// Longest time that an endpoint lives without renewal.
    pub(super) fn max_life(&self) -> Duration {
        self.0.max_life
    }

    /// Puts a service of an earlier life of this agent back.
    pub(super) fn restore_service(&self, service: Service) {
        self.0.directory.put_service(&Arc::new(service.with_its_owner()));
    }

    /// Puts an endpoint of an earlier life of this agent back; it lasts for so long.
    pub(super) async fn restore_endpoint(
        &self,
        endpoint: NetworkServiceEndpoint,
        owner: Owner,
        reach: Reach,
        left: Option<Duration>,
    ) {
        let deadline = left.map(|left| Instant::now() + left);
        let party = Party::of_owner(owner, &*self.0.pods).await;
        let place = self.0.directory.state().next_place();
        let entry =
            Entry { message: endpoint.into(), owner, reach, party, netns: None, process: None, place, deadline };
        self.0.directory.put_endpoint(&Arc::new(entry));
        self.0.sooner.notify_one();
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
        let inner = self.0.clone();
        let work = write(inner.clone());
        let done = self.0.tasks.spawn(async move {
            inner.backing.ready().await?;
            work.await
        });
        done.await.unwrap_or(Err(Error::ShuttingDown))
    }
}

#[async_trait]
impl Registry for Registrar {
    fn directory(&self) -> &Arc<Directory> {
        &self.0.directory
    }

    async fn register_service(&self, mut service: NetworkService, by: Owner) -> Result<Registered<Service>, Error> {
        let payload_given = !service.payload.is_empty();
        check::service(&mut service)?;
        self.run(move |inner| async move { inner.register_service(service, payload_given, by).await }).await
    }

    async fn apply_service(
        &self,
        mut service: NetworkService,
        access: Option<Access>,
    ) -> Result<Registered<Service>, Error> {
        check::service(&mut service)?;
        self.run(move |inner| async move {
            let _gate = inner.gate(&service.name).await;
            let old = inner.directory.service(&service.name);
            let namespace = old.as_ref().and_then(|old| old.namespace.clone());
            let access = access.or_else(|| Some(old?.access.clone())).unwrap_or_default();
            inner.write_service(Service { message: service.into(), owner: Owner::Operator, access, namespace }).await
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
pub(super) fn left_until(time: prost_types::Timestamp) -> f64 {
    let Ok(time) = SystemTime::try_from(time) else { return 0.0 };
    match time.duration_since(SystemTime::now()) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}
