//! How long calls of vpp-api-client take, beside an echo of the same sizes over a plain socket, interleaved with it:
//! `cargo run --release -p vpp-api-bench`, on a quiet machine.
//!
//! The other side is a fake VPP on a thread of its own; with `--vpp` a VPP of its own, which has to be in `PATH`; with `--socket` one that runs.

mod echo;
mod measure;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use nsm_vpp::Vpp;
use vpp_api_client::fake::{Asked, Deed, Fake, Nature};
use vpp_api_client::message::Message;
use vpp_api_client::messages::{CreateLoopbackInstance, ShowVersion, SwInterfaceDetails, SwInterfaceDump};
use vpp_api_client::{Client, InterfaceIndex, MacAddress, Options};

#[derive(Parser)]
struct Arguments {
    /// API socket of a VPP that runs, instead of a fake one.
    #[arg(long, conflicts_with = "vpp")]
    socket: Option<PathBuf>,
    /// A VPP that is started for this, in a folder and a network namespace of its own; needs root.
    #[arg(long)]
    vpp: bool,
    /// Calls and echoes, each.
    #[arg(long, default_value_t = 20_000)]
    calls: u32,
    /// Calls in flight when pipelined.
    #[arg(long, default_value_t = 256)]
    in_flight: u32,
    /// Threads of the client's runtime; 0: the one that calls.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Interfaces of the fake VPP, or loopbacks of the one that is started.
    #[arg(long, default_value_t = 1000)]
    interfaces: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let vpp = arguments.vpp.then(Vpp::start).transpose()?;
    let socket = match (&arguments.socket, &vpp) {
        (Some(socket), _) => socket.clone(),
        (None, Some(vpp)) => vpp.api_socket(),
        (None, None) => start_fake(&folder.path().join("api.sock"), arguments.interfaces)?,
    };
    let echo = echo::start(&folder.path().join("echo.sock"))?;
    let mut runtime = match arguments.threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(threads);
            runtime
        }
    };
    let runtime = runtime.enable_all().build()?;
    // On a worker, as callers are.
    runtime.block_on(async move { tokio::spawn(measure_all(arguments, socket, echo)).await? })
}

async fn measure_all(arguments: Arguments, socket: PathBuf, mut echo: echo::Echo) -> anyhow::Result<()> {
    let vpp = Client::connect(socket, Options::new("bench").timeout(Duration::from_secs(30))).await?;
    if arguments.vpp || arguments.socket.is_some() {
        let version = vpp.call(&ShowVersion).await?.version;
        println!("VPP {version}, {} processors", std::thread::available_parallelism()?);
    }
    if arguments.vpp {
        let any = CreateLoopbackInstance { mac_address: MacAddress::default(), is_specified: false, user_instance: 0 };
        for _ in 0..arguments.interfaces {
            vpp.call(&any).await?;
        }
    }
    let (raw, calls) = measure::latencies(&vpp, &mut echo, arguments.calls).await?;
    println!("                      p50 us    p99 us");
    println!("raw echo            {:>8.1}  {:>8.1}", raw.p50, raw.p99);
    println!("control_ping        {:>8.1}  {:>8.1}", calls.p50, calls.p99);
    println!(
        "above it            {:>8.1}  {:>8.1}   must reach +60, aim for +20",
        calls.p50 - raw.p50,
        calls.p99 - raw.p99
    );
    let rate = measure::pipelined(&vpp, arguments.calls * 10, arguments.in_flight).await?;
    println!(
        "pipelined calls/s   {rate:>8.0}             must reach 50000, aim for 150000 ({} in flight)",
        arguments.in_flight
    );
    let (found, dump) = measure::dumps(&vpp, 100).await?;
    println!(
        "dump of {found:<5} ms    {:>8.2}  {:>8.2}   must reach 10 for 1000, aim for 5",
        dump.p50 / 1000.0,
        dump.p99 / 1000.0
    );
    Ok(())
}

/// On a thread of its own, as VPP is a process of its own.
fn start_fake(socket: &Path, interfaces: u32) -> anyhow::Result<PathBuf> {
    let (ready, started) = mpsc::channel();
    let path = socket.to_owned();
    std::thread::Builder::new().name("fake-vpp".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let fake = Fake::start(&path, Nature::default(), move |asked| answer(asked, interfaces));
            // Its end is that of the program.
            if ready.send(fake.as_ref().map(drop).map_err(ToString::to_string)).is_ok() {
                std::future::pending::<()>().await;
            }
        });
    })?;
    started.recv().context("the fake VPP's thread has ended")?.map_err(anyhow::Error::msg)?;
    Ok(socket.to_owned())
}

fn answer(asked: &Asked, interfaces: u32) -> Vec<Deed> {
    if asked.name != SwInterfaceDump::NAME {
        return Vec::new();
    }
    let interface = |index| SwInterfaceDetails {
        sw_if_index: InterfaceIndex(index),
        interface_name: format!("memif0/{index}"),
        ..SwInterfaceDetails::default()
    };
    (0..interfaces).map(|index| Deed::answer(asked, &interface(index))).collect()
}
