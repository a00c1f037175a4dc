//! `registry.NetworkServiceEndpointRegistry`.
//!
//! Guarantee: where an endpoint of this node is reached is for its owner and the operator. Endpoints do what whoever calls them
//! asks for, so others learn what is registered and never get a way to it: neither its socket's file nor a path.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use nsm_fdpass::Outbox;
use nsm_netlink::Netns;
use nsm_proto::registry::{
    NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceEndpointResponse,
    network_service_endpoint_registry_server::NetworkServiceEndpointRegistry,
};
use tonic::{Request, Response, Status, async_trait};

use super::{answer, caller, ended, path, to_its_end, token_expires, watches::Watches};
use crate::{
    manager::Ids,
    registry::{Change, Entry, Owner, Reach, Registrant, Registry, Term, check},
    share::InFlight,
};

/// The registry of endpoints, for callers on the agent's socket.
#[derive(Clone)]
pub struct Endpoints {
    registry: Arc<dyn Registry>,
    ids: Arc<Ids>,
    watches: Watches,
}

impl Endpoints {
    /// `ids` tells who calls.
    pub fn new(registry: Arc<dyn Registry>, ids: Arc<Ids>) -> Self {
        Self { registry, ids, watches: Watches::of("watches of endpoints", "watches of all endpoints") }
    }
}

#[async_trait]
impl NetworkServiceEndpointRegistry for Endpoints {
    async fn register(
        &self,
        request: Request<NetworkServiceEndpoint>,
    ) -> Result<Response<NetworkServiceEndpoint>, Status> {
        let connection = caller::connection(request.extensions())?;
        let path = path(&request)?;
        let place = request.extensions().get::<InFlight>().cloned();
        // The kernel's own descriptor, asked about: nothing here waits.
        let netns = connection.peer.netns.as_ref().map(|netns| Netns::from_shared(netns.fd.clone())).transpose();
        let by = Registrant {
            owner: caller::owner(&connection, &self.ids)?,
            process: Some(connection.peer.clone()),
            netns: netns.map_err(|error| Status::internal(error.to_string()))?,
            socket: caller::socket(&connection, &request.get_ref().url)?,
            term: Term::Renewed { token: token_expires(&request)? },
        };
        let registry = self.registry.clone();
        let write = async move { registry.register_endpoint(request.into_inner(), by).await };
        let registered = to_its_end(place, write).await?;
        Ok(answer(path, (*registered.object.message).clone()))
    }

    type FindStream = Pin<Box<dyn Stream<Item = Result<NetworkServiceEndpointResponse, Status>> + Send>>;

    async fn find(&self, request: Request<NetworkServiceEndpointQuery>) -> Result<Response<Self::FindStream>, Status> {
        let connection = caller::connection(request.extensions())?;
        let owner = caller::owner(&connection, &self.ids)?;
        let holder = self.ids.owner_of(&connection.peer)?;
        let place = request.extensions().get::<InFlight>().cloned();
        let outbox = connection.outbox;
        let query = request.into_inner();
        let mut template = query.network_service_endpoint.unwrap_or_default();
        check::endpoint_template(&mut template)?;
        let directory = self.registry.directory();
        let finder = Finder { owner, outbox };
        if !query.watch {
            let found = directory.find_endpoints(&template)?;
            let answers = stream::iter(found).then(move |entry| {
                // What was found waits for its reader: the call is under way until all of it is told.
                let (finder, _place) = (finder.clone(), &place);
                async move { Ok(finder.current(&entry).await) }
            });
            return Ok(Response::new(Box::pin(answers)));
        }
        let share = self.watches.share(&self.ids, &holder, &template.name)?;
        let changes = directory.watch_endpoints(template)?.then(move |change| {
            let (finder, _share) = (finder.clone(), &share);
            async move {
                match change {
                    Change::Current(entry) => Ok(finder.current(&entry).await),
                    Change::Gone(last) => Ok(finder.gone(&last)),
                }
            }
        });
        Ok(Response::new(Box::pin(changes.chain(stream::once(async { ended() })))))
    }

    async fn unregister(&self, request: Request<NetworkServiceEndpoint>) -> Result<Response<()>, Status> {
        let connection = caller::connection(request.extensions())?;
        let path = path(&request)?;
        let place = request.extensions().get::<InFlight>().cloned();
        // The file comes with Unregister too; nobody needs it.
        drop(caller::socket(&connection, &request.get_ref().url));
        let owner = caller::owner(&connection, &self.ids)?;
        let registry = self.registry.clone();
        let write = async move { registry.unregister_endpoint(&request.get_ref().name, owner).await };
        to_its_end(place, write).await?;
        Ok(answer(path, ()))
    }
}

/// Who asks what is registered, and the way for files to it.
#[derive(Clone)]
struct Finder {
    owner: Owner,
    outbox: Outbox,
}

impl Finder {
    /// An endpoint as it is; its socket's file ahead of it, for whom it may be.
    async fn current(&self, entry: &Entry) -> NetworkServiceEndpointResponse {
        if !self.owner.may_change(entry.owner) {
            return response(without_place(&entry.message), false);
        }
        if let Reach::Socket(file) = &entry.reach {
            self.outbox.send_when_room(file.clone()).await;
        }
        response((*entry.message).clone(), false)
    }

    /// An endpoint that is no more, whoever had it.
    fn gone(&self, last: &NetworkServiceEndpoint) -> NetworkServiceEndpointResponse {
        match self.owner {
            Owner::Operator => response(last.clone(), true),
            Owner::Peer { .. } | Owner::PodOfHost(_) | Owner::Elsewhere | Owner::Departed => {
                response(without_place(last), true)
            }
        }
    }
}

/// Without a URL of this node. An `inode://` would not do: a Go program waits for its file.
fn without_place(endpoint: &NetworkServiceEndpoint) -> NetworkServiceEndpoint {
    let mut endpoint = endpoint.clone();
    if ["inode://", "unix://"].iter().any(|scheme| endpoint.url.starts_with(scheme)) {
        endpoint.url.clear();
    }
    endpoint
}

fn response(endpoint: NetworkServiceEndpoint, deleted: bool) -> NetworkServiceEndpointResponse {
    NetworkServiceEndpointResponse { network_service_endpoint: Some(endpoint), deleted }
}
