//! What `nsmctl` asks: lists, watches, explanations, and the operator's own services and endpoints.
//!
//! Guarantees: served on the root-only socket, so who calls is the operator. Explanations are made by the code that
//! chooses ([`crate::candidates`]). A watch sends the whole list anew at each change and skips states that the caller was too
//! slow to see.

#[cfg(test)]
mod tests;
mod watch;

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures::Stream;
use nsm_proto::{
    admin::{
        self, Access, Applied, ConnectionInfo, ConnectionList, DeleteRequest, Deleted, EndpointList, ExplainRequest,
        Explanation, Finding, InfoRequest, InfoResponse, Kind, ListRequest, Namespaces, NetworkServiceList,
        PlanRequest, PlanResponse, SelfTestRequest, SelfTestResponse, ServiceObject, WatchEvent, WatchRequest,
    },
    registry::{NetworkService, NetworkServiceEndpoint},
};
use tokio::sync::watch as changes;
use tonic::{Request, Response, Status, async_trait};

use crate::{
    candidates, memory,
    registry::{self, Entry, Outcome, Owner, Party, Registrant, Registry},
};

/// A list of more endpoints takes memory that is worth giving back.
const MANY: usize = 1000;

/// What the rest of the agent tells.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// Version, names and directories.
    fn info(&self) -> InfoResponse;

    /// All connections of this node.
    fn connections(&self) -> Vec<ConnectionInfo>;

    /// A number that moves whenever a connection changes.
    fn changes(&self) -> changes::Receiver<u64>;

    /// Closes a connection; `false` when there is none of that id.
    async fn close(&self, id: &str) -> Result<bool, nsm_sdk::Error>;

    /// What an ADD would do. [`Admin`] adds the explanation.
    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, nsm_sdk::Error>;

    /// The findings about this node.
    async fn self_test(&self) -> Vec<Finding>;
}

/// The service behind `nsmctl`.
#[derive(Clone)]
pub struct Admin {
    registry: Arc<dyn Registry>,
    node: Arc<dyn Node>,
}

impl Admin {
    /// Answers from this registry and this node.
    pub fn new(registry: Arc<dyn Registry>, node: Arc<dyn Node>) -> Self {
        Self { registry, node }
    }

    fn network_services(&self, name: &str) -> Result<NetworkServiceList, Status> {
        let template = NetworkService { name: name.to_owned(), ..NetworkService::default() };
        let found = self.registry.directory().find_services(&template)?;
        let access = found.iter().filter_map(|service| Some((service.message.name.clone(), shown(&service.access)?)));
        let access = access.collect();
        Ok(NetworkServiceList { items: found.iter().map(|service| (*service.message).clone()).collect(), access })
    }

    fn endpoints(&self, name: &str) -> Result<EndpointList, Status> {
        let template = NetworkServiceEndpoint { name: name.to_owned(), ..NetworkServiceEndpoint::default() };
        let found = self.registry.directory().find_endpoints(&template)?;
        let mut connections = BTreeMap::<String, u32>::new();
        for connection in self.node.connections().into_iter().filter_map(|info| info.connection) {
            *connections.entry(connection.network_service_endpoint_name).or_default() += 1;
        }
        let of = |entry: &Arc<Entry>| admin::Endpoint {
            endpoint: Some((*entry.message).clone()),
            owner: entry.owner.to_string(),
            unreachable: entry.unreachable().unwrap_or_default(),
            connections: connections.get(&entry.message.name).copied().unwrap_or_default(),
        };
        if found.len() > MANY {
            memory::give_back_soon();
        }
        Ok(EndpointList { items: found.iter().map(of).collect() })
    }

    fn connections(&self, id: &str) -> ConnectionList {
        let of = |info: &ConnectionInfo| info.connection.as_ref().is_some_and(|connection| connection.id == id);
        let all = self.node.connections().into_iter();
        ConnectionList { items: all.filter(|info| id.is_empty() || of(info)).collect() }
    }

    /// The list of a kind as an event.
    fn event(&self, kind: Kind, name: &str) -> Result<WatchEvent, Status> {
        if self.registry.directory().is_closed() {
            return Err(registry::Error::ShuttingDown.into());
        }
        let mut event = WatchEvent::default();
        match kind {
            Kind::NetworkService => event.network_services = Some(self.network_services(name)?),
            Kind::NetworkServiceEndpoint => event.endpoints = Some(self.endpoints(name)?),
            Kind::Connection => event.connections = Some(self.connections(name)),
            Kind::Unspecified => return Err(unknown_kind()),
        }
        Ok(event)
    }

    fn explanation(&self, service: &str, labels: &BTreeMap<String, String>) -> Result<Explanation, nsm_sdk::Error> {
        let directory = self.registry.directory();
        let access = directory.service(service).and_then(|service| shown(&service.access));
        Ok(Explanation { access, ..candidates::explain(directory, service, labels, &party(labels))? })
    }
}

/// Whose pod a client with these labels is: agents give pods the label `namespace`. Without it, the operator who asks.
pub(crate) fn party(labels: &BTreeMap<String, String>) -> Party {
    labels.get("namespace").map_or(Party::Operator, |namespace| Party::Namespace(namespace.as_str().into()))
}

/// Who may use and serve a service, where it says so.
fn shown(access: &nsm_objects::Access) -> Option<Access> {
    let of = |names: &Option<Vec<String>>| names.clone().map(|names| Namespaces { names });
    (!access.is_default()).then(|| Access { clients: of(&access.clients), endpoints: of(&access.endpoints) })
}

fn access(asked: Option<Access>) -> Result<nsm_objects::Access, Status> {
    let of = |namespaces: Option<Namespaces>| namespaces.map(|namespaces| namespaces.names);
    let Access { clients, endpoints } = asked.unwrap_or_default();
    let access = nsm_objects::Access { clients: of(clients), endpoints: of(endpoints) };
    access.check().map_err(|wrong| Status::invalid_argument(wrong.to_string()))?;
    Ok(access)
}

fn unknown_kind() -> Status {
    Status::invalid_argument("kind: expected a network service, an endpoint or a connection")
}

fn kind(number: i32) -> Result<Kind, Status> {
    Kind::try_from(number).map_err(|_| unknown_kind())
}

fn applied(outcome: Outcome) -> Response<Applied> {
    Response::new(match outcome {
        Outcome::Created => Applied { created: true, changed: true },
        Outcome::Changed => Applied { created: false, changed: true },
        Outcome::Unchanged => Applied { created: false, changed: false },
    })
}

#[async_trait]
impl admin::admin_server::Admin for Admin {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(self.node.info()))
    }

    async fn list_network_services(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<NetworkServiceList>, Status> {
        self.network_services(&request.get_ref().name).map(Response::new)
    }

    async fn list_endpoints(&self, request: Request<ListRequest>) -> Result<Response<EndpointList>, Status> {
        self.endpoints(&request.get_ref().name).map(Response::new)
    }

    async fn list_connections(&self, request: Request<ListRequest>) -> Result<Response<ConnectionList>, Status> {
        Ok(Response::new(self.connections(&request.get_ref().name)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { kind: number, name } = request.into_inner();
        let kind = kind(number)?;
        let (registry, node) = (self.registry.directory().changes(), self.node.changes());
        let admin = self.clone();
        Ok(Response::new(Box::pin(watch::events(registry, node, move || admin.event(kind, &name)))))
    }

    async fn apply_network_service(&self, request: Request<NetworkService>) -> Result<Response<Applied>, Status> {
        // An older nsmctl knows nothing of access: what is restricted stays so.
        Ok(applied(self.registry.apply_service(request.into_inner(), None).await?.outcome))
    }

    async fn apply_service(&self, request: Request<ServiceObject>) -> Result<Response<Applied>, Status> {
        let ServiceObject { network_service, access: asked } = request.into_inner();
        let access = access(asked)?;
        Ok(applied(self.registry.apply_service(network_service.unwrap_or_default(), Some(access)).await?.outcome))
    }

    async fn apply_endpoint(&self, request: Request<NetworkServiceEndpoint>) -> Result<Response<Applied>, Status> {
        Ok(applied(self.registry.register_endpoint(request.into_inner(), Registrant::operator()).await?.outcome))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<Deleted>, Status> {
        let DeleteRequest { kind: number, name } = request.into_inner();
        let (what, there) = match kind(number)? {
            Kind::NetworkService => {
                ("network service", self.registry.unregister_service(&name, Owner::Operator).await?)
            }
            Kind::NetworkServiceEndpoint => {
                ("endpoint", self.registry.unregister_endpoint(&name, Owner::Operator).await?)
            }
            Kind::Connection => ("connection", self.node.close(&name).await?),
            Kind::Unspecified => return Err(unknown_kind()),
        };
        if there {
            Ok(Response::new(Deleted {}))
        } else {
            Err(Status::not_found(format!("there is no {what} {name:?}")))
        }
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<Explanation>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.explanation(&request.network_service, &request.labels)?))
    }

    async fn plan(&self, request: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        let request = request.into_inner();
        let explanation = self.explanation(&request.network_service, &request.labels);
        let mut plan = self.node.plan(request).await?;
        if plan.explanation.is_none() {
            match explanation {
                Ok(explanation) => plan.explanation = Some(explanation),
                Err(error) => {
                    let problem = error.to_string();
                    if !plan.problems.contains(&problem) {
                        plan.problems.push(problem);
                    }
                }
            }
        }
        Ok(Response::new(plan))
    }

    async fn self_test(&self, _: Request<SelfTestRequest>) -> Result<Response<SelfTestResponse>, Status> {
        Ok(Response::new(SelfTestResponse { findings: self.node.self_test().await }))
    }
}
