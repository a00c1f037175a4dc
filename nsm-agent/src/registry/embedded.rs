//! The registry inside the agent: kept in a database file.
//!
//! Guarantees: a new or changed object is on the disk before it is answered; a renewal waits for no disk. Of a damaged database
//! or record the rest is served. A machine that has booted again has its endpoints' names back at once: who registered them before is
//! no more.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Entry, Error, OpenError, Owner, Pods, Reach, Service, ServiceAccess, record,
    registrar::{Backing, Registrar, Rules, left_until},
    store::{Contents, PUT_OFF, Store, Table},
};

/// How the embedded registry behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the database is.
    pub dir: PathBuf,
    /// What tells this boot from others.
    pub boot_id: String,
    /// Longest time that an endpoint lives without renewal.
    pub max_life: Duration,
    /// Who may use and serve services that do not say it.
    pub access: ServiceAccess,
}

/// The embedded registry.
pub struct Embedded {
    store: Arc<Store>,
    boot: String,
}

impl Embedded {
    /// Opens the database and starts to expire.
    ///
    /// # Errors
    /// The database is another process's or a newer version's, or the disk fails. Damage is no error: the file is set aside.
    pub async fn open(settings: Settings, pods: Arc<dyn Pods>) -> Result<Registrar, OpenError> {
        let dir = settings.dir.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&dir)).await;
        let (store, contents) =
            opened.map_err(|error| OpenError::Unusable { path: settings.dir.clone(), cause: error.to_string() })??;
        let rules = Rules { max_life: settings.max_life, access: settings.access, pods };
        Ok(Self::start(store, contents, settings.boot_id, rules).await)
    }

    pub(super) async fn start(store: Store, contents: Contents, boot: String, rules: Rules) -> Registrar {
        let store = Arc::new(store);
        let registry = Registrar::start(Arc::new(Self { store: store.clone(), boot: boot.clone() }), rules);
        restore(&registry, &store, contents, &boot).await;
        registry
    }
}

async fn restore(registry: &Registrar, store: &Store, contents: Contents, boot: &str) {
    for (name, bytes) in contents.services {
        match record::to_service(&bytes, boot) {
            Ok(service) => registry.restore_service(service),
            Err(error) => {
                tracing::error!(service = name, %error, "record of a network service is damaged: left out");
            }
        }
    }
    for (name, bytes) in contents.endpoints {
        match record::to_endpoint(&bytes, boot) {
            // Its process ended with the boot, and nobody can renew it: who comes next finds its name free.
            Ok((_, Owner::Departed)) => store.put_off(Table::Endpoints, &name, None),
            // A renewal may have been lost with the old process: the time on the disk can be behind.
            Ok((endpoint, owner)) => {
                let left = endpoint.expiration_time.map(|time| left_until(time) + PUT_OFF.as_secs_f64());
                if left.is_some_and(|left| left <= 0.0) {
                    store.put_off(Table::Endpoints, &name, None);
                    continue;
                }
                let left = left.map(|left| Duration::from_secs_f64(left).min(registry.max_life() + PUT_OFF));
                let reach = if endpoint.url.starts_with("inode://") { Reach::Lost } else { Reach::Url };
                registry.restore_endpoint(endpoint, owner, reach, left).await;
            }
            Err(error) => tracing::error!(endpoint = name, %error, "record of an endpoint is damaged: left out"),
        }
    }
}

#[async_trait]
impl Backing for Embedded {
    async fn ready(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn put_service(&self, service: &Service, before: Option<&Service>) -> Result<(), Error> {
        let before = before.map(|service| record::of_service(service, &self.boot));
        self.store
            .write(Table::Services, &service.message.name, Some(record::of_service(service, &self.boot)), before)
            .await
    }

    async fn remove_service(&self, service: &Service) -> Result<(), Error> {
        self.store
            .write(Table::Services, &service.message.name, None, Some(record::of_service(service, &self.boot)))
            .await
    }

    async fn put_endpoint(&self, entry: &Entry, before: Option<&Entry>) -> Result<(), Error> {
        let before = before.map(|entry| record::of_endpoint(entry, &self.boot));
        self.store
            .write(Table::Endpoints, &entry.message.name, Some(record::of_endpoint(entry, &self.boot)), before)
            .await
    }

    async fn remove_endpoint(&self, entry: &Entry) -> Result<(), Error> {
        self.store
            .write(Table::Endpoints, &entry.message.name, None, Some(record::of_endpoint(entry, &self.boot)))
            .await
    }

    fn renewed(&self, entry: &Entry) {
        self.store.put_off(Table::Endpoints, &entry.message.name, Some(record::of_endpoint(entry, &self.boot)));
    }

    fn withdrawn(&self, entry: &Entry) {
        self.store.put_off(Table::Endpoints, &entry.message.name, None);
    }

    async fn end(&self) {
        let store = self.store.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || store.end()).await {
            tracing::error!(%error, "the registry's database was not closed in order");
        }
    }
}
