//! An endpoint that misbehaves on purpose, in the way that `NSM_MISBEHAVIOUR` names; else as `icmp-responder`.
#![forbid(unsafe_code)]

use std::future::pending;
use std::path::Path;

use anyhow::Context;
use async_trait::async_trait;
use nsm_fdpass::Permissions;
use nsm_proto::connection::{Connection, PathSegment};
use nsm_proto::connectioncontext::{ConnectionContext, IpContext, PolicyRoute, Route};
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_sdk::begin::Begin;
use nsm_sdk::endpoint::Endpoint;
use nsm_sdk::ipam::PointToPoint;
use nsm_sdk::kernel::KernelServer;
use nsm_sdk::monitor::Monitor;
use nsm_sdk::registry::{ListeningSocket, Offer, Registry};
use nsm_sdk::serve::Serve;
use nsm_sdk::{Element, Error, Kind, Next, Request, chain};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;

/// What goes wrong.
#[derive(Debug, Clone)]
enum Misbehaviour {
    /// The Request is refused.
    Refuse,
    /// The Request is never answered.
    Hang,
    /// The process dies with the Request on its hands.
    Die,
    /// The answer's context is not what it should be.
    Answer(fn(&mut IpContext)),
    /// The answer's endpoint name is 300 bytes long.
    LongName,
    /// The answer, as the caller would see it, is changed into this.
    Lie(fn(&mut Connection)),
    /// The answer names and passes the network namespace at `NSM_NETNS`, as the endpoint's end.
    NamespaceOfAnother,
}

impl Misbehaviour {
    fn of(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "refuse" => Self::Refuse,
            "hang" => Self::Hang,
            "die" => Self::Die,
            "bad-prefix" => Self::Answer(|ip| ip.src_ip_addrs = vec!["172.16.1.300/99".into()]),
            "bad-route" => Self::Answer(|ip| ip.src_routes.push(route("nonsense/8", ""))),
            "many-routes" => Self::Answer(|ip| {
                ip.src_routes =
                    (0..10_000_u32).map(|n| route(&format!("10.{}.{}.0/24", n / 256, n % 256), "")).collect();
            }),
            "default-route" => Self::Answer(|ip| ip.src_routes.push(route("0.0.0.0/0", ""))),
            "default-in-halves" => Self::Answer(|ip| {
                ip.src_routes.extend(["0.0.0.0/1", "128.0.0.0/1"].map(|half| route(half, "")));
            }),
            "default-by-policy" => Self::Answer(|ip| ip.policies.push(PolicyRoute::default())),
            "policy-for-another-address" => Self::Answer(|ip| {
                ip.policies.push(PolicyRoute { from: "10.9.0.2".into(), ..PolicyRoute::default() });
            }),
            "overlapping-route" => Self::Answer(|ip| ip.src_routes.push(route("10.9.0.0/24", ""))),
            "strange-gateway" => Self::Answer(|ip| ip.src_routes.push(route("10.8.0.0/24", "fd00::1"))),
            "long-name" => Self::LongName,
            "wrong-id" => Self::Lie(|answer| answer.id = "another".into()),
            "wrong-id-everywhere" => Self::Lie(|answer| {
                answer.id = "another".into();
                if let Some(segment) = own(answer) {
                    segment.id = "another".into();
                }
            }),
            "wrong-name-in-path" => Self::Lie(|answer| own(answer).into_iter().for_each(|s| s.name = "another".into())),
            "no-path" => Self::Lie(|answer| answer.path = None),
            "other-index" => Self::Lie(|answer| answer.path.get_or_insert_default().index += 1),
            "wrong-service" => Self::Lie(|answer| answer.network_service = "another".into()),
            "wrong-endpoint-and-labels" => Self::Lie(|answer| {
                answer.network_service_endpoint_name = "honest".into();
                answer.labels = [("app".to_owned(), "other".to_owned())].into();
            }),
            "wrong-payload" => Self::Lie(|answer| answer.payload = "ETHERNET".into()),
            "namespace-of-another" => Self::NamespaceOfAnother,
            other => anyhow::bail!("NSM_MISBEHAVIOUR={other} is not known"),
        })
    }
}

/// The caller's segment of an answer.
fn own(answer: &mut Connection) -> Option<&mut PathSegment> {
    let path = answer.path.as_mut()?;
    path.path_segments.get_mut(usize::try_from(path.index).ok()?)
}

fn route(prefix: &str, next_hop: &str) -> Route {
    Route { prefix: prefix.into(), next_hop: next_hop.into() }
}

struct Hostile(Misbehaviour);

#[async_trait]
impl Element for Hostile {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        match &self.0 {
            Misbehaviour::Refuse => Err(Error::new(Kind::Refused, "not today")),
            Misbehaviour::Hang => pending().await,
            Misbehaviour::Die => std::process::abort(),
            Misbehaviour::Answer(change) => {
                let mut connection = next.request(request).await?;
                let context = connection.context.get_or_insert_with(ConnectionContext::default);
                change(context.ip_context.get_or_insert_with(IpContext::default));
                Ok(connection)
            }
            Misbehaviour::NamespaceOfAnother => {
                let path = std::env::var("NSM_NETNS").map_err(|error| Error::new(Kind::Internal, error))?;
                let file = std::fs::File::open(path).map_err(|error| Error::new(Kind::Internal, error))?;
                let id = request.call.files.add(std::os::fd::OwnedFd::from(file))?;
                let mut connection = next.request(request).await?;
                let parameters = &mut connection.mechanism.get_or_insert_default().parameters;
                parameters.insert(nsm_proto::mechanism::INODE_URL.into(), id.to_string());
                Ok(connection)
            }
            Misbehaviour::Lie(change) => {
                let mut connection = next.request(request).await?;
                change(&mut connection);
                Ok(connection)
            }
            Misbehaviour::LongName => {
                let mut connection = next.request(request).await?;
                connection.network_service_endpoint_name = "n".repeat(300);
                Ok(connection)
            }
        }
    }
}

/// An endpoint whose lies nothing of its own corrects: its chain begins with them.
async fn lie(lie: Hostile, listen_on: &Path) -> anyhow::Result<()> {
    let name = variable("NSM_NAME")?;
    let monitor = Monitor::new();
    let chain = chain![
        lie,
        nsm_sdk::path::Path::server(&name),
        Begin::new(),
        monitor.clone(),
        PointToPoint::new(variable("NSM_CIDR_PREFIX")?.parse()?),
        KernelServer::new()?,
    ];
    let socket = nsm_fdpass::bind(listen_on, Permissions { mode: 0o600, uid: None, gid: None })?;
    let server = Server::builder().add_service(Serve::new(chain)).add_service(monitor.server());
    let serving = tokio::spawn(server.serve_with_incoming(socket.incoming()));
    let service = NetworkService {
        name: variable("NSM_SERVICE_NAMES")?,
        payload: nsm_proto::payload::IP.into(),
        ..NetworkService::default()
    };
    let endpoint = NetworkServiceEndpoint {
        name,
        network_service_names: vec![service.name.clone()],
        ..NetworkServiceEndpoint::default()
    };
    let offer = Offer { services: vec![service], endpoint, socket: Some(ListeningSocket::at(listen_on)?) };
    let registration = Registry::connect_to(path("NSM_CONNECT_TO")?).keep(offer).await?;
    signal(SignalKind::terminate())?.recv().await;
    registration.stop().await;
    serving.abort();
    Ok(())
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| name.to_owned())
}

fn path(name: &str) -> anyhow::Result<String> {
    variable(name).map(|url| url.trim_start_matches("unix://").to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let misbehaviour = Misbehaviour::of(&variable("NSM_MISBEHAVIOUR")?)?;
    if let Misbehaviour::Lie(_) = misbehaviour {
        return lie(Hostile(misbehaviour), Path::new(&path("NSM_LISTEN_ON")?)).await;
    }
    let endpoint = Endpoint::builder(variable("NSM_NAME")?)
        .service(variable("NSM_SERVICE_NAMES")?)
        .element(Hostile(misbehaviour))
        .element(PointToPoint::new(variable("NSM_CIDR_PREFIX")?.parse()?))
        .connect_to(path("NSM_CONNECT_TO")?)
        .listen_on(path("NSM_LISTEN_ON")?)
        .start()
        .await?;
    signal(SignalKind::terminate())?.recv().await;
    endpoint.stop().await;
    Ok(())
}
