//! `registry.NetworkServiceRegistry`.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use nsm_proto::registry::{
    NetworkService, NetworkServiceQuery, NetworkServiceResponse,
    network_service_registry_server::NetworkServiceRegistry,
};
use tonic::{Request, Response, Status, async_trait};

use super::{answer, caller, ended, path, to_its_end, watches::Watches};
use crate::{
    manager::Ids,
    registry::{Change, Registry, check},
    share::InFlight,
};

/// The registry of network services, for callers on the agent's socket.
#[derive(Clone)]
pub struct NetworkServices {
    registry: Arc<dyn Registry>,
    ids: Arc<Ids>,
    watches: Watches,
}

impl NetworkServices {
    /// `ids` tells who calls.
    pub fn new(registry: Arc<dyn Registry>, ids: Arc<Ids>) -> Self {
        Self { registry, ids, watches: Watches::of("watches of network services", "watches of all network services") }
    }
}

#[async_trait]
impl NetworkServiceRegistry for NetworkServices {
    async fn register(&self, request: Request<NetworkService>) -> Result<Response<NetworkService>, Status> {
        let owner = caller::owner(&caller::connection(request.extensions())?, &self.ids)?;
        let path = path(&request)?;
        let place = request.extensions().get::<InFlight>().cloned();
        let registry = self.registry.clone();
        let write = async move { registry.register_service(request.into_inner(), owner).await };
        let registered = to_its_end(place, write).await?;
        Ok(answer(path, (*registered.object.message).clone()))
    }

    type FindStream = Pin<Box<dyn Stream<Item = Result<NetworkServiceResponse, Status>> + Send>>;

    async fn find(&self, request: Request<NetworkServiceQuery>) -> Result<Response<Self::FindStream>, Status> {
        let holder = self.ids.owner_of(&caller::connection(request.extensions())?.peer)?;
        let place = request.extensions().get::<InFlight>().cloned();
        let query = request.into_inner();
        let template = query.network_service.unwrap_or_default();
        check::service_template(&template)?;
        let directory = self.registry.directory();
        if !query.watch {
            let found = directory.find_services(&template)?;
            let answers = found.into_iter().map(move |service| {
                // What was found waits for its reader: the call is under way until all of it is told.
                let _place = &place;
                Ok(response((*service.message).clone(), false))
            });
            return Ok(Response::new(Box::pin(stream::iter(answers))));
        }
        let share = self.watches.share(&self.ids, &holder, &template.name)?;
        let changes = directory.watch_services(template)?.map(move |change| {
            let _share = &share;
            match change {
                Change::Current(service) => Ok(response((*service.message).clone(), false)),
                Change::Gone(last) => Ok(response((*last).clone(), true)),
            }
        });
        Ok(Response::new(Box::pin(changes.chain(stream::once(async { ended() })))))
    }

    async fn unregister(&self, request: Request<NetworkService>) -> Result<Response<()>, Status> {
        let owner = caller::owner(&caller::connection(request.extensions())?, &self.ids)?;
        let path = path(&request)?;
        let place = request.extensions().get::<InFlight>().cloned();
        let registry = self.registry.clone();
        let write = async move { registry.unregister_service(&request.get_ref().name, owner).await };
        to_its_end(place, write).await?;
        Ok(answer(path, ()))
    }
}

fn response(service: NetworkService, deleted: bool) -> NetworkServiceResponse {
    NetworkServiceResponse { network_service: Some(service), deleted }
}
