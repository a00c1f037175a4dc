//! A client whose endpoint is another one than it was.

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, eventually};
use serde_json::{Value, json};

use super::{address, make_service, serve};
use crate::SOON;
use crate::asking::{Asking, with_log};

/// All clients go to endpoints of that color.
fn matches(color: &str) -> Value {
    json!({ "payload": "IP", "matches": [{ "routes": [{ "destination_selector": { "color": color } }] }] })
}

pub(crate) fn the_service_chooses_another_endpoint() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("mesh")?;
    make_service(&cluster, "mesh", "colors", &matches("blue"))?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let mut endpoints = Vec::new();
    for (color, cidr) in [("blue", "172.16.2.0/24"), ("green", "172.16.1.0/24")] {
        let plan = Endpoint::of("colors").cidr(cidr).set("NSM_REGISTER_SERVICE", "false");
        endpoints.push(serve(&cluster, node, color, None, &plan.set("NSM_LABELS", &format!("color:{color}")))?);
    }
    let client = Asking::create(&cluster, node, "default", "client", Some("kernel://colors/nsm-1"))?;
    with_log(node, client.add()?.ok())?;
    client.sandbox.ping(address("172.16.2.0")?)?;
    let service = "/apis/networkservicemesh.io/v1/namespaces/mesh/networkservices/colors";
    for (color, here, there) in [("green", "172.16.1.0", "172.16.2.0"), ("blue", "172.16.2.0", "172.16.1.0")] {
        cluster.patch(service, &json!({ "spec": matches(color) }))?;
        let endpoint = || -> anyhow::Result<String> {
            let all = node.connections()?;
            let connection = all.into_iter().next().and_then(|info| info.connection).context("no connection")?;
            Ok(connection.network_service_endpoint_name)
        };
        with_log(node, eventually("the other endpoint", SOON, endpoint, |name| name == color))?;
        let here = address(here)?;
        with_log(node, eventually("its answer", SOON, || client.sandbox.ping(here), |_| true))?;
        ensure!(client.sandbox.ping(address(there)?).is_err(), "the other one is left");
    }
    // A change that leaves the client's endpoint as good as before moves nobody.
    let before = client.link("nsm-1")?.context("nsm-1")?;
    let both = json!({ "spec": { "matches": [{ "routes": [
        { "destination_selector": { "color": "green" } }, { "destination_selector": { "color": "blue" } },
    ] }] } });
    cluster.patch(service, &both)?;
    let routes = || Ok(node.get("netsvc")?.first().context("service")?["spec"]["matches"][0]["routes"].clone());
    eventually("the change", SOON, routes, |routes| routes.as_array().is_some_and(|all| all.len() == 2))?;
    client.sandbox.ping(address("172.16.2.0")?)?;
    ensure!(client.kept("nsm-1", &before)?, "moved without need");
    Ok(())
}
