//! How long it takes and what it costs: bounds that a busy machine keeps, and what was measured, in the output of a failure.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nsm_kube::{Cluster, Member};
use nsm_lab::{Endpoint, eventually};
use serde_json::json;

use crate::SOON;
use crate::asking::{Asking, percentile, resident, with_log};

/// Edits of which the time is taken.
const EDITS: usize = 60;
/// ADDs of which the time is taken.
const ADDS: usize = 20;
/// Endpoint objects of another node, and pods of this one.
const ENDPOINTS: usize = 10_000;
const PODS: usize = 500;
/// How long an agent at rest is watched.
const REST: Duration = Duration::from_secs(30);

pub(crate) fn edits_and_status() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let _one = Endpoint::of("one").start(node)?;
    let pod = Asking::create(&cluster, node, "default", "web", None)?;
    pod.add()?.ok()?;
    let (mut attached, mut detached) = (Vec::new(), Vec::new());
    for _ in 0..EDITS {
        let began = Instant::now();
        pod.edit(Some("kernel://one/nsm-1"))?;
        with_log(node, pod.waits_for("nsm-1", true, SOON))?;
        attached.push(began.elapsed());
        let began = Instant::now();
        pod.edit(None)?;
        with_log(node, pod.waits_for("nsm-1", false, SOON))?;
        detached.push(began.elapsed());
    }
    let mut told = Vec::new();
    for number in 0..ADDS {
        let pod =
            Asking::create(&cluster, node, "default", &format!("p{number}"), Some("kernel://one/a,kernel://one/b"))?;
        pod.add()?.ok()?;
        let began = Instant::now();
        with_log(node, eventually("status", SOON, || pod.status(), |status| status.len() == 2))?;
        told.push(began.elapsed());
        pod.del()?.ok()?;
    }
    let patches =
        cluster.asked()?.into_iter().filter(|asked| asked.resource == "pods/status" && asked.code == 200).count();
    for (what, times) in
        [("edit to interface", &mut attached), ("edit to none", &mut detached), ("ADD to status", &mut told)]
    {
        let (half, most) = (percentile(times, 0.5)?, percentile(times, 0.95)?);
        println!("measured: {what}: p50 {half:?}, p95 {most:?} of {}", times.len());
        ensure!(most < Duration::from_secs(1), "{what}: p95 {most:?}");
    }
    println!("measured: {patches} patches of status for {} edits and {ADDS} ADDs of two services", 2 * EDITS);
    Ok(())
}

pub(crate) fn memory_and_calls_at_rest() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let endpoint = |number: usize| {
        json!({
            "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkServiceEndpoint",
            "metadata": { "name": format!("endpoint-{number}"), "namespace": "default" },
            "spec": {
                "name": format!("firewall-7b9f8d6c5-{number}"), "network_service_names": [format!("service-{}", number % 100)],
                "network_service_labels": { format!("service-{}", number % 100): { "labels": { "app": "firewall", "zone": "a" } } },
                "url": "tcp://10.1.2.3:5001",
            },
        })
    };
    let mut a = cluster.started("node-a")?;
    let pid = a.node.agent()?.pid();
    let empty = resident(pid)?;
    cluster.create_all((0..PODS).map(|number| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("web-7b9f8d6c5-{number:05}"), "namespace": "default",
                "labels": { "app": "web", "pod-template-hash": "7b9f8d6c5" },
                "annotations": { "networkservicemesh.io": "kernel://service-1/nsm-1?app=firewall" },
            },
            "spec": { "nodeName": "node-a", "containers": [{ "name": "c", "image": "none" }] },
        })
    }))?;
    let starts = |a: &mut Member, what: &'static str| -> anyhow::Result<u64> {
        a.node.kill_agent()?;
        a.node.start_agent()?;
        // The log begins anew with each agent.
        let said = || Ok(a.node.agent_log().contains(what));
        with_log(&a.node, eventually(what, 3 * SOON, said, |said| *said))?;
        resident(a.node.agent()?.pid())
    };
    let pods = starts(&mut a, "the pods of this node have been read")?;
    cluster.create_all((0..ENDPOINTS).map(endpoint))?;
    let count = || Ok(a.node.endpoints()?.len());
    eventually("endpoints", 6 * SOON, count, |count| *count == ENDPOINTS)?;
    let watched = resident(a.node.agent()?.pid())?;
    let listed = starts(&mut a, "the registry in Kubernetes has been read")?;
    println!(
        "measured: RSS {empty} KiB empty, {pods} KiB with {PODS} pods, {watched} KiB with {ENDPOINTS} endpoints too (watched), {listed} KiB (listed)"
    );
    // The other number has the answer in it that told of all endpoints.
    ensure!(listed < 80 << 10 && pods < empty + (6 << 10), "{empty} KiB, {pods} KiB, {watched} KiB, {listed} KiB");
    let before = cluster.asked()?.len();
    std::thread::sleep(REST);
    let mut asked = cluster.asked()?.split_off(before);
    asked.retain(|asked| asked.resource != "leases" || asked.verb == "watch");
    println!("measured: {} calls in {REST:?} at rest, without the renewals of the lease: {asked:?}", asked.len());
    ensure!(asked.iter().all(|asked| asked.verb == "watch"), "{asked:?}");
    Ok(())
}
