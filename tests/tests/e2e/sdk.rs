//! The SDK as its documentation shows it, through an agent, with packets.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use nsm_lab::{Endpoint, Node, Pod, eventually};
use tokio::sync::oneshot;

// Programs, of which the test runs all but `main`.
#[expect(dead_code, unreachable_pub, reason = "a program, of which the test runs a part")]
#[path = "../../../crates/nsm-sdk/examples/client.rs"]
mod client;
#[expect(dead_code, unreachable_pub, reason = "a program, of which the test runs a part")]
#[path = "../../../crates/nsm-sdk/examples/endpoint.rs"]
mod endpoint;

/// For a client that finds out and asks again.
const BOUND: Duration = Duration::from_secs(10);

pub(crate) fn the_examples_of_its_documentation() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let before = node.leftovers()?;
    let (home, pod) = (node.pod("endpoint")?, node.pod("client")?);
    let agent = node.nsm_socket().display().to_string();
    let (ready, registered) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            inside(&home, async || {
                let endpoint = endpoint::start(&agent).await.map_err(|error| anyhow!("{error}"))?;
                ready.send(())?;
                stopped.await.ok();
                endpoint.stop().await;
                Ok(())
            })
        });
        let outcome = registered.recv().context("the endpoint did not start").and_then(|()| {
            inside(&pod, async || {
                let connection = client::connect(&agent).await.map_err(|error| anyhow!("{error}"))?;
                ensure!(connection.interface().as_deref() == Some("nsm-1"));
                ensure!(connection.endpoint() == "icmp-responder-1");
                ensure!(connection.addresses() == ["10.0.0.1/32", "fd00::1/128"], "{:?}", connection.addresses());
                for address in ["10.0.0.0", "fd00::"] {
                    pod.ping(address.parse::<IpAddr>()?)?;
                }
                connection.close().await?;
                Ok(())
            })
        });
        drop(stop);
        let served = serving.join().map_err(|_| anyhow!("the endpoint's thread panicked"))?;
        outcome.and(served)
    })?;
    drop((home, pod));
    node.nothing_left(&before)
}

/// It is told, as the owner of what has ended, and asks again.
pub(crate) fn a_client_whose_connection_was_deleted_gets_it_again() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of("icmp-responder").start(&node)?;
    let pod = node.pod("client")?;
    let agent = node.nsm_socket().display().to_string();
    let (ready, connected) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            inside(&pod, async || {
                let connection = client::connect(&agent).await.map_err(|error| anyhow!("{error}"))?;
                ready.send(())?;
                stopped.await.ok();
                connection.close().await?;
                Ok(())
            })
        });
        let outcome = connected.recv().context("the client did not connect").and_then(|()| {
            let peer: IpAddr = "172.16.1.0".parse()?;
            pod.ping(peer)?;
            let id = node.connections()?.first().and_then(|info| info.connection.clone()).context("connection")?.id;
            node.nsmctl(&["delete", "connection", &id])?;
            eventually("the connection is back", BOUND, || pod.ping(peer), |_| true).map(|_| ())
        });
        drop(stop);
        let closed = connecting.join().map_err(|_| anyhow!("the client's thread panicked"))?;
        outcome.and(closed)
    })
}

/// Runs in the pod's namespace, as a program of one thread would.
fn inside<T: Send>(pod: &Pod, work: impl AsyncFnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    pod.namespace().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    })?
}
