//! Directories for tests, without a backend.

use std::sync::Arc;

use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};

use super::{Directory, Entry, Owner, Reach, Service};

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
