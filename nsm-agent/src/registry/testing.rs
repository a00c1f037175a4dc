//! Directories and registries for tests, without a backend.

use std::sync::Arc;

use async_trait::async_trait;
use nsm_objects::Access;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use tokio::sync::Semaphore;

use super::{Directory, Entry, Error, Owner, Party, Reach, Registered, Registrant, Registry, Service, ServiceAccess};

/// A directory with these objects, all the operator's. Endpoints with an `inode://` URL are lost, those without one can be
/// dialled.
pub(crate) fn directory(
    services: impl IntoIterator<Item = NetworkService>,
    endpoints: impl IntoIterator<Item = NetworkServiceEndpoint>,
) -> Arc<Directory> {
    directory_of(services.into_iter().map(open), endpoints.into_iter().map(|endpoint| (endpoint, Party::Operator)))
}

/// The same with endpoints of others.
pub(crate) fn directory_of(
    services: impl IntoIterator<Item = Service>,
    endpoints: impl IntoIterator<Item = (NetworkServiceEndpoint, Party)>,
) -> Arc<Directory> {
    let directory = Directory::new(ServiceAccess::AnyNamespace);
    for service in services {
        put_service(&directory, service);
    }
    for (mut endpoint, party) in endpoints {
        if endpoint.url.is_empty() {
            endpoint.url = format!("unix:///run/{}.sock", endpoint.name);
        }
        let reach = if endpoint.url.starts_with("inode://") { Reach::Lost } else { Reach::Url };
        let place = directory.state().next_place();
        let (message, owner) = (endpoint.into(), Owner::Operator);
        let entry = Entry { message, owner, reach, party, netns: None, process: None, place, deadline: None };
        directory.put_endpoint(&Arc::new(entry));
    }
    directory
}

/// Adds or replaces a service.
pub(crate) fn put_service(directory: &Directory, service: Service) {
    directory.put_service(&Arc::new(service));
}

/// Takes a service away.
pub(crate) fn take_service(directory: &Directory, name: &str) {
    directory.take_service(name);
}

/// What is registered has yet to be read.
pub(crate) fn begin(directory: &Directory) {
    directory.begin();
}

/// Everything has been read.
pub(crate) fn complete(directory: &Directory) {
    directory.complete();
}

/// A service for everybody.
pub(crate) fn open(service: NetworkService) -> Service {
    Service { message: service.into(), owner: Owner::Operator, access: Access::default(), namespace: None }
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

    async fn apply_service(&self, _: NetworkService, _: Option<Access>) -> Result<Registered<Service>, Error> {
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
