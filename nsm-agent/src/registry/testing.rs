//! Directories and registries for tests, without a backend.

use std::sync::Arc;

use async_trait::async_trait;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use tokio::sync::Semaphore;

use super::{Directory, Entry, Error, Owner, Reach, Registered, Registrant, Registry, Service};

/// A directory with these objects, all the operator's. Endpoints with an `inode://` URL are lost, those without one can be
/// dialled.
pub(crate) fn directory(
    services: impl IntoIterator<Item = NetworkService>,
    endpoints: impl IntoIterator<Item = NetworkServiceEndpoint>,
) -> Arc<Directory> {
    let directory = Directory::new();
    for service in services {
        directory.put_service(&Arc::new(Service { message: service.into(), owner: Owner::Operator }));
    }
    for mut endpoint in endpoints {
        if endpoint.url.is_empty() {
            endpoint.url = format!("unix:///run/{}.sock", endpoint.name);
        }
        let reach = if endpoint.url.starts_with("inode://") { Reach::Lost } else { Reach::Url };
        let place = directory.state().next_place();
        let (message, owner) = (endpoint.into(), Owner::Operator);
        let entry = Entry { message, owner, reach, netns: None, process: None, place, deadline: None };
        directory.put_endpoint(&Arc::new(entry));
    }
    directory
}

/// A registry over that directory, whose writes do not end.
pub(crate) fn reading(directory: Arc<Directory>) -> Arc<Stuck> {
    Arc::new(Stuck { directory, release: Arc::new(Semaphore::new(0)) })
}

/// See [`reading`]. Each permit ends one write.
pub(crate) struct Stuck {
    directory: Arc<Directory>,
    pub(crate) release: Arc<Semaphore>,
}

impl Stuck {
    async fn stuck<T>(&self) -> Result<T, Error> {
        if let Ok(permit) = self.release.acquire().await {
            permit.forget();
        }
        Err(Error::ShuttingDown)
    }
}

#[async_trait]
impl Registry for Stuck {
    fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    async fn register_service(&self, _: NetworkService, _: Owner) -> Result<Registered<Service>, Error> {
        self.stuck().await
    }

    async fn apply_service(&self, _: NetworkService) -> Result<Registered<Service>, Error> {
        self.stuck().await
    }

    async fn unregister_service(&self, _: &str, _: Owner) -> Result<bool, Error> {
        self.stuck().await
    }

    async fn register_endpoint(&self, _: NetworkServiceEndpoint, _: Registrant) -> Result<Registered<Entry>, Error> {
        self.stuck().await
    }

    async fn unregister_endpoint(&self, _: &str, _: Owner) -> Result<bool, Error> {
        self.stuck().await
    }
}
