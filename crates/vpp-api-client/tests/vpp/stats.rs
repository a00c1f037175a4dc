//! The statistics segment, while VPP writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vpp_api_client::Stats;
use vpp_api_client::messages::{CliInband, DeleteLoopback};
use vpp_api_client::stats::Value;

use super::{SOON, address, loopback, start, up};

/// Reads as fast as it goes while interfaces come and go, so that the directory changes under it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_whole_while_vpp_writes() {
    static OVER: AtomicBool = AtomicBool::new(false);
    let (vpp, client) = start().await;
    let socket = vpp.stats_socket();
    let reader = tokio::task::spawn_blocking(move || {
        let stats = Stats::connect(socket, SOON).unwrap();
        let mut most = 0;
        let mut reads = 0;
        while !OVER.load(Ordering::Relaxed) {
            let all = stats.interfaces().unwrap();
            assert!(all.iter().any(|of| of.name == "local0"));
            for of in &all {
                assert!(of.name == "local0" || of.name.starts_with("loop"), "{of:?}");
            }
            most = all.len().max(most);
            reads += 1;
        }
        (reads, most)
    });
    for _ in 0..20 {
        let mut made = Vec::new();
        for _ in 0..30 {
            made.push(loopback(&client).await);
        }
        for sw_if_index in made {
            client.call(&DeleteLoopback { sw_if_index }).await.unwrap();
        }
    }
    OVER.store(true, Ordering::Relaxed);
    let (reads, most) = reader.await.unwrap();
    println!("{reads} reads, {most} interfaces at most");
    assert!(reads > 10 && most > 1);
    // Thousands of entries, for which VPP has to leave the directory alone for some milliseconds.
    let socket = vpp.stats_socket();
    let all = tokio::task::spawn_blocking(move || Stats::connect(socket, SOON).unwrap().read(|_| true)).await.unwrap();
    let all = all.unwrap();
    assert!(matches!(&all["/if/names"], Value::Names(names) if names[0] == "local0"));
    assert!(all.contains_key("/sys/heartbeat") && all.len() > 100, "{:?}", all.keys());
}

#[tokio::test]
async fn counters_are_those_that_vpp_shows() {
    let (mut vpp, client) = start().await;
    let sw_if_index = loopback(&client).await;
    up(&client, sw_if_index).await;
    address(&client, sw_if_index, "10.0.0.1/24").await;
    let cli = async |cmd: &str| client.call(&CliInband { cmd: cmd.into() }).await.unwrap().reply;
    // 300 packets to an address that nobody has: each is dropped on the way out.
    cli("ip route add 192.0.2.0/24 via 10.0.0.2 loop0").await;
    cli("set ip neighbor loop0 10.0.0.2 02:00:00:00:00:02").await;
    cli("packet-generator new { name x limit 300 size 100-100 node ip4-input interface loop0 data { UDP: 198.51.100.1 -> 192.0.2.1 UDP: 1 -> 2 incrementing 20 } }").await;
    cli("packet-generator enable-stream").await;
    let socket = vpp.stats_socket();
    let stats = Stats::connect(&socket, SOON).unwrap();
    let began = std::time::Instant::now();
    let counted = loop {
        let counted = stats.interfaces().unwrap().into_iter().find(|of| of.sw_if_index == sw_if_index.0).unwrap();
        if counted.tx.packets >= 300 {
            break counted;
        }
        assert!(began.elapsed() < SOON, "{counted:?}: {}", cli("show interface").await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let shown = cli("show interface loop0").await;
    assert!(shown.contains(&format!("tx packets {:>21}", counted.tx.packets)), "{shown}");
    let errors = stats.errors().unwrap();
    println!("{errors:?}");

    // After a restart the old segment no longer changes; the new one has to be asked for.
    vpp.kill();
    assert!(stats.interfaces().is_ok());
    assert!(Stats::connect(&socket, Duration::from_secs(1)).is_err());
    vpp.start_again().unwrap();
    let began = std::time::Instant::now();
    let again = loop {
        match Stats::connect(&socket, SOON) {
            Ok(stats) => break stats,
            Err(error) => assert!(began.elapsed() < SOON, "{error}"),
        }
    };
    assert_eq!(again.interfaces().unwrap().len(), 1);
}
