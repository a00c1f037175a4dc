//! The endpoint of the first example: it gives each client a pair of addresses, and the kernel of the network namespace that
//! it runs in answers their pings. Needs no privilege.

#![forbid(unsafe_code)]

mod settings;

use std::process::ExitCode;

use clap::Parser;
use nsm_program::{Common, Stop};
use nsm_sdk::{endpoint::Endpoint, ipam::PointToPoint};

use crate::settings::{Flags, Settings};

// One thread: the namespace that it runs in is the process's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    nsm_program::main(Settings::check(&Flags::parse()), run).await
}

async fn run(common: Common, settings: Settings, mut stop: Stop) -> anyhow::Result<()> {
    let mut builder = Endpoint::builder(settings.name)
        .labels(settings.labels)
        .payload(settings.payload)
        .register_services(settings.register_service)
        .element(PointToPoint::new(settings.prefixes))
        .connect_to(common.connect_to)
        .token_lifetime(common.token_lifetime)
        .call_timeout(settings.dial_timeout);
    for service in settings.services {
        builder = builder.service(service);
    }
    if let Some(socket) = settings.listen_on {
        builder = builder.listen_on(socket);
    }
    let endpoint = tokio::select! {
        started = builder.start() => started?,
        () = stop.wait() => return Ok(()),
    };
    tracing::info!(endpoint = endpoint.name(), socket = %endpoint.socket().display(), "ready");
    stop.wait().await;
    endpoint.stop().await;
    Ok(())
}
