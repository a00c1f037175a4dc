//! Whether its definitions are ours, and whether any of its own serve.

use std::sync::Arc;

use serde_json::json;
use vpp_api_client::definition::Definitions;
use vpp_api_client::message::Message;
use vpp_api_client::messages::{ControlPing, IpPathMtuGet, MemifDump, ShowVersion, SwInterfaceDump};
use vpp_api_client::{Client, Error, Options, Retval};

use super::{loopback, start};

#[tokio::test]
async fn everything_here_is_as_vpp_has_it() {
    let (_vpp, client) = start().await;
    println!("{}", client.call(&ShowVersion).await.unwrap().version);
    // A plugin or a version may lack a message; none that is there may differ.
    for error in client.unusable() {
        assert!(matches!(error, Error::NotServed { .. }), "{error}");
        println!("{error}");
    }
    let told = client.definitions().await.unwrap();
    let installed = Definitions::from_directory(&nsm_vpp::definitions().unwrap()).unwrap();
    let ours = Definitions::ours();
    assert!(told.messages.contains_key(MemifDump::NAME), "this VPP has no memif plugin: there is little to compare");
    for (what, theirs) in [("told", &told), ("installed", &installed)] {
        for (name, message) in &ours.messages {
            let Some(of_theirs) = theirs.messages.get(name) else { continue };
            assert_eq!((of_theirs.crc, of_theirs.head), (message.crc, message.head), "{what}: {name}");
            assert_eq!(theirs.services.get(name), ours.services.get(name), "{what}: {name}");
        }
    }
    // What it tells of itself is what it serves, but for its memory and socket layer.
    let (mut agreed, mut untold) = (0, Vec::new());
    for (name, crc) in client.served() {
        match told.messages.get(&name) {
            Some(message) => {
                assert_eq!(message.crc, crc, "{name}");
                agreed += 1;
            }
            None => untold.push(name),
        }
    }
    println!("{agreed} served as told; not told: {}", untold.join(" "));
    assert!(agreed > 500 && untold.len() < 50);
}

#[tokio::test]
async fn any_message_goes_by_its_own_definitions() {
    let (_vpp, client) = start().await;
    let sw_if_index = loopback(&client).await.0;
    let told = client.definitions().await.unwrap();
    let installed = Definitions::from_directory(&nsm_vpp::definitions().unwrap()).unwrap();
    for definitions in [&told, &installed] {
        let all = client.call_by_name(definitions, SwInterfaceDump::NAME, &json!({})).await.unwrap();
        assert_eq!(all.details.len(), client.dump(&SwInterfaceDump::default()).await.unwrap().len());
        let ping = client.call_by_name(definitions, ControlPing::NAME, &json!({})).await.unwrap();
        assert!(ping.reply.unwrap()["vpe_pid"].as_u64() > Some(0));
        // With text of any length; and none of ours, with an array.
        let cli = client.call_by_name(definitions, "cli_inband", &json!({"cmd": "show version"})).await.unwrap();
        assert!(cli.reply.unwrap()["reply"].as_str().unwrap().starts_with("vpp v"));
        let threads = client.call_by_name(definitions, "show_threads", &json!({})).await.unwrap();
        assert_eq!(threads.reply.unwrap()["thread_data"][0]["name"], json!("vpp_main"));
        // What ends VPP cannot be said, whoever's definitions they are.
        let path = json!({ "n_labels": 17, "sw_if_index": sw_if_index });
        let route = json!({ "is_add": true, "route": { "prefix": "10.0.0.0/8", "n_paths": 1, "paths": [path] } });
        let deadly = client.call_by_name(definitions, "ip_route_add_del_v2", &route).await.unwrap_err();
        assert!(matches!(deadly, Error::NotSent { .. }), "{deadly}");
        let deadly = client.call_by_name(definitions, "memif_create_v2", &json!({ "mode": 2 })).await.unwrap_err();
        assert!(matches!(deadly, Error::NotSent { .. }), "{deadly}");
    }
    client.ping().await.unwrap();
}

/// More than VPP tells at once: it looks for a millisecond at a time.
#[tokio::test]
async fn what_has_a_cursor_is_told_in_parts() {
    const COUNT: usize = 20_000;
    let (_vpp, client) = start().await;
    let sw_if_index = loopback(&client).await;
    super::up(&client, sw_if_index).await;
    // Without a way to the addresses VPP does not come to an end with them.
    super::address(&client, sw_if_index, "10.0.0.1/8").await;
    let told = Arc::new(client.definitions().await.unwrap());
    let mut all = tokio::task::JoinSet::new();
    for worker in 0..10 {
        let (client, told) = (client.clone(), Arc::clone(&told));
        all.spawn(async move {
            for number in (worker..COUNT).step_by(10) {
                let mtu = json!({ "nh": format!("10.1.{}.{}", number / 256, number % 256), "path_mtu": 1300 });
                client.call_by_name(&told, "ip_path_mtu_update", &json!({ "pmtu": mtu })).await.unwrap();
            }
        });
    }
    all.join_all().await;
    let (first, reply) = client.part(&IpPathMtuGet::default()).await.unwrap();
    println!("{} of {COUNT} at once", first.len());
    assert_eq!((reply.retval, first.is_empty()), (Retval::Eagain, false));
    assert_eq!(client.collect(&IpPathMtuGet::default()).await.unwrap().len(), COUNT);
    let by_name = client.call_by_name(&told, IpPathMtuGet::NAME, &json!({})).await.unwrap();
    assert_eq!(by_name.details.len(), COUNT);
}

/// All that VPP and its plugins have, whatever it is: what they find, or that they refuse to look without more fields.
#[tokio::test]
async fn every_dump_of_vpp_can_be_read() {
    let (_vpp, client) = start().await;
    let sw_if_index = loopback(&client).await;
    super::up(&client, sw_if_index).await;
    super::address(&client, sw_if_index, "10.1.0.1/24").await;
    let told = client.definitions().await.unwrap();
    let (mut read, mut found) = (0, 0);
    for (name, service) in &told.services {
        if service.details.is_none() || !client.served().iter().any(|(served, _)| served == name) {
            continue;
        }
        match client.call_by_name(&told, name, &json!({})).await {
            Ok(answer) => {
                read += 1;
                found += answer.details.len();
            }
            Err(Error::Refused { .. }) => read += 1,
            Err(other) => panic!("{name}: {other}: {:?}", std::error::Error::source(&other)),
        }
    }
    println!("{read} dumps, {found} details");
    assert!(read > 20 && found > 20);
}

#[tokio::test]
async fn several_clients_are_told_apart() {
    let (vpp, one) = start().await;
    let another = Client::connect(vpp.api_socket(), Options::new("another")).await.unwrap();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (one, another) = (one.clone(), another.clone());
        all.spawn(async move { (one.ping().await, another.ping().await) });
    }
    while let Some(pair) = all.join_next().await {
        let (of_one, of_another) = pair.unwrap();
        assert_eq!(of_one.unwrap().vpe_pid, of_another.unwrap().vpe_pid);
    }
    assert_eq!((one.strays(), another.strays()), (0, 0));
}
