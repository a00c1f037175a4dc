//! A client: connects the network namespace that it runs in to the services it is told, prints what it got, keeps it up, and
//! closes it at its end. Started again under the same name it goes on with the connections it left behind.

#![forbid(unsafe_code)]

mod ping;
mod settings;

use std::{io::Write, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Parser;
use nsm_program::{Common, Stop};
use nsm_sdk::{
    Error, Kind,
    client::{Client, Connection, Service},
    connect::Target,
    excluded::InUse,
    recover::Recover,
    settings::{ServiceUrl, advice},
};
use tokio::time::Instant;

use crate::{
    ping::Ping,
    settings::{Flags, Settings},
};

/// Most time for closing all connections.
const GRACE: Duration = Duration::from_secs(5);
/// Shortest and longest pause before a service that cannot be had is asked for again.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

// One thread: the namespace that it runs in is the process's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    nsm_program::main(Settings::check(&Flags::parse()), run).await
}

async fn run(common: Common, settings: Settings, mut stop: Stop) -> anyhow::Result<()> {
    let mut builder = Client::connect_to(&common.connect_to)
        .name(&settings.name)
        .token_lifetime(common.token_lifetime)
        .call_timeout(settings.request_timeout)
        .element(in_use(&settings))
        .element(Recover::from_next_hop(Target::Unix(common.connect_to.clone())));
    if let Some((every, timeout)) = settings.liveness {
        builder = builder.liveness(Arc::new(Ping::default()), every, timeout);
    }
    let client = builder.build().context("cannot open the network namespace that this process runs in")?;
    let connected = tokio::select! {
        connected = connect(&client, &settings) => connected,
        () = stop.wait() => Ok(()),
    };
    if connected.is_ok() {
        stop.wait().await;
    }
    client.stop(Instant::now() + GRACE).await;
    connected
}

/// Requests all services, each until it is there, and prints them.
async fn connect(client: &Client, settings: &Settings) -> anyhow::Result<()> {
    for (at, url) in settings.services.iter().enumerate() {
        let id = id(settings, at);
        let connection =
            insist(client, url, &id).await.with_context(|| format!("cannot connect to {}", url.service))?;
        // The connection is kept up, whether or not somebody goes on reading.
        let _ = writeln!(std::io::stdout(), "{}", line(&url.service, &connection));
    }
    tracing::info!(connections = settings.services.len(), "ready");
    Ok(())
}

/// What one connection has, the others are not given, except by endpoints that are aware of it.
fn in_use(settings: &Settings) -> InUse {
    let ids = |group: &Vec<usize>| group.iter().map(|at| id(settings, *at)).collect::<Vec<_>>();
    settings.aware.iter().fold(InUse::new(), |in_use, group| in_use.aware(ids(group)))
}

/// The id of a service's connection, the same after a restart: that is how it is found again.
fn id(settings: &Settings, at: usize) -> String {
    format!("{}-{at}", settings.name)
}

async fn insist(client: &Client, url: &ServiceUrl, id: &str) -> Result<Connection, Error> {
    let [mut pause, longest] = PAUSES;
    let mut told = None;
    loop {
        let mut service = Service::new(&url.service).labels(url.labels.clone()).id(id);
        if let Some(interface) = &url.interface {
            service = service.interface(interface.clone());
        }
        let error = match client.request(service).await {
            Ok(connection) => return Ok(connection),
            Err(error) if is_final(error.kind()) => return Err(error),
            Err(error) => error,
        };
        if told != Some(error.kind()) {
            let advice = advice(&error);
            tracing::warn!(service = url.service, %error, advice, "no connection yet: trying again");
            told = Some(error.kind());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Whether the same request will fail again.
fn is_final(kind: Kind) -> bool {
    match kind {
        Kind::Invalid | Kind::Denied | Kind::Conflict | Kind::Internal => true,
        Kind::NotFound | Kind::Exhausted | Kind::Refused | Kind::Unavailable | Kind::Deadline | Kind::Cancelled => {
            false
        }
    }
}

fn line(service: &str, connection: &Connection) -> String {
    format!(
        "{service}: {} {} -> {} at {} (connection {})",
        connection.interface().unwrap_or_default(),
        connection.addresses().join(","),
        connection.endpoint_addresses().join(","),
        connection.endpoint(),
        connection.id(),
    )
}
