//! An endpoint that misbehaves on purpose, in the way that `NSM_MISBEHAVIOUR` names; else as `icmp-responder`.
#![forbid(unsafe_code)]

use std::future::pending;

use anyhow::Context;
use async_trait::async_trait;
use nsm_proto::connection::Connection;
use nsm_proto::connectioncontext::{ConnectionContext, IpContext, Route};
use nsm_sdk::endpoint::Endpoint;
use nsm_sdk::ipam::PointToPoint;
use nsm_sdk::{Element, Error, Kind, Next, Request};
use tokio::signal::unix::{SignalKind, signal};

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
            "overlapping-route" => Self::Answer(|ip| ip.src_routes.push(route("10.9.0.0/24", ""))),
            "strange-gateway" => Self::Answer(|ip| ip.src_routes.push(route("10.8.0.0/24", "fd00::1"))),
            "long-name" => Self::LongName,
            "namespace-of-another" => Self::NamespaceOfAnother,
            other => anyhow::bail!("NSM_MISBEHAVIOUR={other} is not known"),
        })
    }
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
            Misbehaviour::LongName => {
                let mut connection = next.request(request).await?;
                connection.network_service_endpoint_name = "n".repeat(300);
                Ok(connection)
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
    let path = |name: &str| variable(name).map(|url| url.trim_start_matches("unix://").to_owned());
    let endpoint = Endpoint::builder(variable("NSM_NAME")?)
        .service(variable("NSM_SERVICE_NAMES")?)
        .element(Hostile(Misbehaviour::of(&variable("NSM_MISBEHAVIOUR")?)?))
        .element(PointToPoint::new(variable("NSM_CIDR_PREFIX")?.parse()?))
        .connect_to(path("NSM_CONNECT_TO")?)
        .listen_on(path("NSM_LISTEN_ON")?)
        .start()
        .await?;
    signal(SignalKind::terminate())?.recv().await;
    endpoint.stop().await;
    Ok(())
}
