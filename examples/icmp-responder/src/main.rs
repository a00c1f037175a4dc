//! The endpoint of the first example: it gives each client a pair of addresses, and the kernel of the network namespace that
//! it runs in answers their pings. Needs no privilege.

#![forbid(unsafe_code)]

mod settings;

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use nsm_sdk::{endpoint::Endpoint, ipam::PointToPoint};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::settings::{Flags, Settings};

// One thread: the namespace that it runs in is the process's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let settings = match Settings::check(&Flags::parse()) {
        Ok(settings) => settings,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_max_level(settings.log_level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let mut builder = Endpoint::builder(settings.name)
        .labels(settings.labels)
        .payload(settings.payload)
        .register_services(settings.register_service)
        .element(PointToPoint::new(settings.prefixes))
        .connect_to(settings.connect_to)
        .token_lifetime(settings.token_lifetime)
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

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
