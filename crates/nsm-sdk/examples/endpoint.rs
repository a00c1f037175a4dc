//! An endpoint of the network service `icmp-responder`, until Ctrl-C: `endpoint [SOCKET OF THE AGENT]`.

use nsm_sdk::{
    endpoint::{DEFAULT_AGENT, Endpoint},
    ipam::PointToPoint,
    mtu::Mtu,
};

/// Serves and is registered when it returns.
pub async fn start(agent: &str) -> Result<Endpoint, Box<dyn std::error::Error>> {
    let endpoint = Endpoint::builder("icmp-responder-1")
        .service("icmp-responder")
        .labels([("app", "icmp-responder")])
        .element(PointToPoint::new("10.0.0.0/16,fd00::/64".parse()?))
        .element(Mtu::new(1400)?)
        .connect_to(agent)
        .start()
        .await?;
    Ok(endpoint)
}

// One thread: the network namespace that it runs in is the one that it offers.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let agent = std::env::args().nth(1).unwrap_or_else(|| DEFAULT_AGENT.to_owned());
    println!("waiting for the agent at {agent}");
    let endpoint = tokio::select! {
        started = start(&agent) => started?,
        _ = tokio::signal::ctrl_c() => return Ok(()), // what was begun goes with `start`
    };
    println!("{} is registered", endpoint.name());
    tokio::signal::ctrl_c().await?;
    endpoint.stop().await;
    Ok(())
}
