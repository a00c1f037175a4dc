//! Connects to the network service `icmp-responder`, until Ctrl-C: `client [SOCKET OF THE AGENT]`.

use nsm_sdk::{
    client::{Client, Connection, Service},
    endpoint::DEFAULT_AGENT,
};

/// The connection is up when it returns, and stays so until it is closed.
pub async fn connect(agent: &str) -> Result<Connection, Box<dyn std::error::Error>> {
    let client = Client::connect_to(agent).name("client-1").build()?;
    let service = Service::new("icmp-responder").label("app", "client").interface("nsm-1".parse()?);
    Ok(client.request(service).await?)
}

// One thread: the interface is made in the network namespace that it runs in.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let agent = std::env::args().nth(1);
    let connection = connect(agent.as_deref().unwrap_or(DEFAULT_AGENT)).await?;
    println!("{:?} on {:?} from {}", connection.addresses(), connection.interface(), connection.endpoint());
    tokio::signal::ctrl_c().await?;
    connection.close().await?;
    Ok(())
}
