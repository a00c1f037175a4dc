//! An endpoint that gives more than addresses: a policy for web traffic, name servers. What it is asked goes to its output, a
//! line each. SIGUSR1: it asks for a refresh of all its connections; SIGUSR2: it says that they
//! are down. Else as `icmp-responder`.
#![forbid(unsafe_code)]

use anyhow::Context;
use async_trait::async_trait;
use nsm_proto::connection::{Connection, State};
use nsm_sdk::dns::Dns;
use nsm_sdk::endpoint::Endpoint;
use nsm_sdk::ipam::PointToPoint;
use nsm_sdk::policies::{Policies, Policy, Ports, TCP};
use nsm_sdk::{Close, Element, Error, Next, Request};
use tokio::signal::unix::{SignalKind, signal};

/// Who began the path.
fn client(connection: &Connection) -> &str {
    let first = connection.path.as_ref().and_then(|path| path.path_segments.first());
    first.map_or("nobody", |segment| &segment.id)
}

/// Tells what is asked, by whom, and what for.
struct Report;

#[async_trait]
impl Element for Report {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        let state = request.connection.state();
        println!("client {} asks", client(&request.connection));
        let context = request.connection.context.clone().unwrap_or_default().ip_context.unwrap_or_default();
        let answer = next.request(request).await;
        match &answer {
            Ok(connection) => println!(
                "served {} state {} excluded {}",
                connection.id,
                state.as_str_name(),
                context.excluded_prefixes.join(",")
            ),
            Err(error) => println!("failed {error}"),
        }
        answer
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        println!("closed {}", close.connection.id);
        println!("client {} closes", client(&close.connection));
        next.close(close).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
    let path = |name: &str| variable(name).map(|url| url.trim_start_matches("unix://").to_owned());
    let web = Policy { protocol: Some(TCP), destination_ports: Ports::new(80, 80), ..Policy::default() };
    let endpoint = Endpoint::builder(variable("NSM_NAME")?)
        .service(variable("NSM_SERVICE_NAMES")?)
        .element(Report)
        .element(PointToPoint::new(variable("NSM_CIDR_PREFIX")?.parse()?))
        .element(Policies::new([web])?)
        .element(Dns::new(["10.200.0.53".parse()?], ["corp.example"])?)
        .connect_to(path("NSM_CONNECT_TO")?)
        .listen_on(path("NSM_LISTEN_ON")?)
        .start()
        .await?;
    let (mut refresh, mut down) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    let mut end = signal(SignalKind::terminate())?;
    loop {
        let state = tokio::select! {
            _ = refresh.recv() => State::RefreshRequested,
            _ = down.recv() => State::Down,
            _ = end.recv() => break,
        };
        for connection in endpoint.connections() {
            endpoint.monitor().announce(&connection.id, state);
        }
    }
    endpoint.stop().await;
    Ok(())
}
