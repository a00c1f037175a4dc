//! Running pods: edits of their annotations, and what is told about them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, eventually};
use serde_json::{Map, Value, json};

use crate::SOON;
use crate::asking::{Asking, with_log};
use crate::pods::events;

const STATUS: &str = "networkservicemesh.io/status";
const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

pub(crate) fn edits_attach_and_detach() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let one = Endpoint::of("one").start(node)?;
    let _two = Endpoint::of("two").cidr("172.16.2.0/24").start(node)?;
    let pod = Asking::create(&cluster, node, "default", "web", Some("kernel://one/first"))?;
    let others = r#"[{"name":"cbr0","interface":"eth0","ips":["10.0.0.7"],"default":true}]"#;
    let annotate = json!({ "metadata": { "annotations": { NETWORK_STATUS: others } } });
    cluster.patch(&pod.path(), &annotate)?;
    pod.add()?.ok()?;
    ensure!(pod.has("first")?);
    let up = |expected: &'static [&'static str]| move |status: &Vec<String>| status == expected;
    with_log(node, eventually("status after ADD", SOON, || pod.status(), up(&["first one up"])))?;
    let status = pod.told(STATUS)?;
    ensure!(status[0]["endpoint"] == one.name() && status[0]["mac"].is_string(), "{status}");
    let address = status[0]["ips"][0].as_str().and_then(|ip| ip.split('/').next()).context("address")?.to_owned();
    let network = pod.told(NETWORK_STATUS)?;
    ensure!(network[0]["name"] == "cbr0" && network[1]["name"] == "networkservicemesh.io/one", "{network}");
    ensure!(network[1]["interface"] == "first" && network[1]["ips"] == json!([address]), "{network}");
    ensure!(network[1]["mac"] == status[0]["mac"], "{network}");
    let peer: IpAddr = "172.16.1.0".parse()?;
    pod.sandbox.ping(peer)?;
    let before = pod.link("first")?.context("first")?;
    ensure!(before.received > 0, "{before:?}");
    // One more, unnamed: the lowest free name is its own.
    pod.edit(Some("kernel://one/first,kernel://two?app=x"))?;
    with_log(node, pod.waits_for("nsm-1", true, SOON))?;
    eventually("status of both", SOON, || pod.status(), up(&["first one up", "nsm-1 two up"]))?;
    ensure!(pod.kept("first", &before)?, "untouched: {before:?}, {:?}", pod.link("first")?);
    let second = pod.link("nsm-1")?.context("nsm-1")?;
    // The order and the spelling of what is there do not matter; the first one goes.
    pod.edit(Some(" kernel://two?app=%78 "))?;
    with_log(node, pod.waits_for("first", false, SOON))?;
    eventually("status of one", SOON, || pod.status(), up(&["nsm-1 two up"]))?;
    ensure!(pod.kept("nsm-1", &second)?, "untouched");
    // Another service under a name that was taken.
    pod.edit(Some("kernel://one/nsm-1"))?;
    eventually("the other service", SOON, || pod.status(), up(&["nsm-1 one up"]))?;
    ensure!(node.connections()?.len() == 1);
    pod.edit(None)?;
    pod.waits_for("nsm-1", false, SOON)?;
    let told = || Ok((pod.told(STATUS)?, pod.told(NETWORK_STATUS)?));
    let others: Value = serde_json::from_str(others)?;
    let nothing = |told: &(Value, Value)| told.0.is_null() && told.1 == others;
    eventually("nothing of ours", SOON, told, nothing)?;
    // What comes late is ended by the pod's DEL like the rest.
    pod.edit(Some("kernel://two/late"))?;
    pod.waits_for("late", true, SOON)?;
    pod.del()?.ok()?;
    ensure!(!pod.has("late")? && node.connections()?.is_empty());
    ensure!(events(&cluster, "web", "NetworkServiceRefused")?.is_empty());
    Ok(())
}

pub(crate) fn a_pod_that_asked_nothing_gets_what_it_asks_for() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let mut a = cluster.started("node-a")?;
    let _one = Endpoint::of("one").start(&a.node)?;
    {
        let pod = Asking::create(&cluster, &a.node, "default", "silent", None)?;
        pod.add()?.ok()?;
        // nsmctl, as its user.
        let kubeconfig = cluster.admin().display().to_string();
        let on = ["-n", "default", "--kubeconfig", &kubeconfig, "--wait"];
        let shown = with_log(&a.node, a.node.nsmctl(&[&["attach", "silent", "one/net1"], &on[..]].concat()))?;
        ensure!(shown.contains("SERVICE") && shown.contains("net1        up"), "{shown}");
        ensure!(pod.has("net1")?);
        let shown = a.node.nsmctl(&[&["detach", "silent", "net1"], &on[..]].concat())?;
        ensure!(shown.starts_with("pod/silent annotated\n") && !shown.contains("net1"), "{shown}");
        ensure!(!pod.has("net1")?);
    }
    // A static pod: the runtime knows it by the hash of its configuration.
    let annotations: Map<String, Value> = json!({
        "kubernetes.io/config.hash": "0123456789abcdef", "kubernetes.io/config.source": "file",
        "kubernetes.io/config.mirror": "0123456789abcdef",
        "networkservicemesh.io": "kernel://one/net1",
    })
    .as_object()
    .cloned()
    .context("annotations")?;
    let pod = Asking::annotated(&cluster, &a.node, "default", "static", &annotations)?;
    pod.add()?.ok()?;
    pod.edit(Some("kernel://one/net1,kernel://one/net2"))?;
    with_log(&a.node, pod.waits_for("net2", true, SOON))?;
    let both = |status: &Vec<String>| status == &["net1 one up", "net2 one up"];
    eventually("its status", SOON, || pod.status(), both)?;
    // Where the runtime says nothing the agent knows.
    let late = Asking::create(&cluster, &a.node, "default", "late", Some("kernel://one/net3"))?;
    late.add_without_word()?.ok()?;
    ensure!(late.has("net3")?);
    let sandboxes = [late.sandbox.container().to_owned(), pod.sandbox.container().to_owned()];
    ensure!(
        sandboxes.len()
            == a.node
                .connections()?
                .iter()
                .map(|one| &one.container_id)
                .collect::<std::collections::BTreeSet<_>>()
                .len()
    );
    drop((late, pod));
    a.node.stop_agent()?;
    Ok(())
}

pub(crate) fn what_cannot_be_had_is_told_and_tried_again() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let one = Endpoint::of("one").start(node)?;
    let pod = Asking::create(&cluster, node, "default", "web", Some("kernel://one/first"))?;
    pod.add()?.ok()?;
    let before = pod.link("first")?.context("first")?;
    // An edit that cannot be followed changes nothing, and says why.
    pod.edit(Some("kernel://two/first,kernel://one/first"))?;
    let refused = || events(&cluster, "web", "NetworkServiceRefused");
    let told = with_log(node, eventually("the event", SOON, refused, |events| events.len() == 1))?;
    let message = told[0]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("nothing is changed: interface first is asked for twice"), "{told:?}");
    ensure!(pod.kept("first", &before)?);
    // A service that nobody serves: the other one is not touched.
    pod.edit(Some("kernel://one/first,kernel://two/second"))?;
    let failed = |status: &Vec<String>| status == &["first one up", "second two failed"];
    with_log(node, eventually("status", SOON, || pod.status(), failed))?;
    let said = |events: &Vec<Value>| {
        events.len() == 1 && events[0]["message"].as_str().is_some_and(|text| text.contains("network service \"two\""))
    };
    eventually("the event", SOON, refused, said)?;
    ensure!(pod.kept("first", &before)?);
    let two = Endpoint::of("two").cidr("172.16.2.0/24").start(node)?;
    let took = with_log(node, pod.waits_for("second", true, SOON))?;
    ensure!(took < Duration::from_secs(3), "{took:?}: an endpoint that comes is used at once");
    eventually("status", SOON, || pod.status(), |status| status == &["first one up", "second two up"])?;
    let count = refused()?[0]["count"].as_i64().unwrap_or_default();
    let writes = cluster.asked()?.iter().filter(|asked| asked.resource == "events").count();
    ensure!(writes <= 6, "{writes} writes for an event that counts {count}");
    // Healing: the status follows, an event tells of what does not succeed.
    let left = two.kill()?;
    let healing = |status: &Vec<String>| status == &["first one up", "second two healing"];
    with_log(node, eventually("loss", SOON, || pod.status(), healing))?;
    let lost = || events(&cluster, "web", "NetworkServiceLost");
    let lost = eventually("the event", SOON, lost, |events| events.len() == 1)?;
    ensure!(lost[0]["message"].as_str().is_some_and(|text| text.contains("second, is lost")), "{lost:?}");
    let again = Endpoint::of("two").name("again").cidr("172.16.3.0/24").start(node)?;
    let healed =
        || Ok((pod.status()?, pod.told(STATUS)?[1]["endpoint"].clone(), pod.told(STATUS)?[1]["ips"][0].clone()));
    let well = |seen: &(Vec<String>, Value, Value)| seen.0[1] == "second two up" && seen.1 == again.name();
    let (_, _, ip) = with_log(node, eventually("another endpoint", SOON, healed, well))?;
    ensure!(ip.as_str().is_some_and(|ip| ip.starts_with("172.16.3.")), "{ip}");
    ensure!(pod.told(NETWORK_STATUS)?[1]["ips"][0].as_str().is_some_and(|ip| ip.starts_with("172.16.3.")));
    drop((left, one));
    Ok(())
}

pub(crate) fn an_add_that_is_refused_is_told() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let a = cluster.started("node-a")?;
    let pod = Asking::create(&cluster, &a.node, "default", "web", Some("kernel://nobody/first"))?;
    for _ in 0..3 {
        let refused = pod.add()?;
        ensure!(refused.exit != 0, "{refused:?}");
        pod.del()?.ok()?;
    }
    let refused = || events(&cluster, "web", "NetworkServiceRefused");
    let told = with_log(&a.node, eventually("the event", SOON, refused, |events| events.len() == 1))?;
    ensure!(told[0]["message"].as_str().is_some_and(|text| text.contains("the pod does not start: ")), "{told:?}");
    ensure!(told[0]["involvedObject"]["uid"] == *pod.uid, "{told:?}");
    ensure!(pod.status()?.is_empty());
    Ok(())
}

pub(crate) fn a_namespaces_annotation_counts_as_it_was() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("shop")?;
    let annotate = |asks: Option<&str>| {
        let change = json!({ "metadata": { "annotations": { "networkservicemesh.io": asks } } });
        cluster.patch("/api/v1/namespaces/shop", &change)
    };
    annotate(Some("kernel://one/given"))?;
    let a = cluster.started("node-a")?;
    let _one = Endpoint::of("one").start(&a.node)?;
    let folder = a.node.cni_socket().with_extension("sock.namespaces");
    eventually("the namespace's file", SOON, || Ok(folder.join("shop").exists()), |there| *there)?;
    {
        let pod = Asking::create(&cluster, &a.node, "shop", "web", Some("kernel://one/own"))?;
        pod.add()?.ok()?;
        ensure!(pod.has("given")? && pod.has("own")?);
        let given = pod.link("given")?.context("given")?;
        annotate(None)?;
        eventually("no file", SOON, || Ok(folder.join("shop").exists()), |there| !there)?;
        pod.edit(Some("kernel://one/other"))?;
        with_log(&a.node, pod.waits_for("own", false, SOON))?;
        with_log(&a.node, pod.waits_for("other", true, SOON))?;
        ensure!(pod.kept("given", &given)?, "as it was when the pod was made");
        let late = Asking::create(&cluster, &a.node, "shop", "late", Some("kernel://one/own"))?;
        late.add()?.ok()?;
        ensure!(late.has("own")? && !late.has("given")?);
        pod.del()?.ok()?;
        ensure!(!pod.has("given")? && !pod.has("other")?);
        late.del()?.ok()?;
    }
    ensure!(
        std::fs::read_dir(a.node.run_dir().join("inherited"))?.next().is_none(),
        "what was inherited goes with the pod"
    );
    Ok(())
}

pub(crate) fn edits_count_that_were_made_while_somebody_was_away() -> anyhow::Result<()> {
    let mut cluster = Cluster::start()?;
    let mut a = cluster.started("node-a")?;
    let _one = Endpoint::of("one").start(&a.node)?;
    let sandbox;
    {
        let pod = Asking::create(&cluster, &a.node, "default", "web", Some("kernel://one/first"))?;
        pod.add()?.ok()?;
        // The way to the API server is cut: the edit waits.
        a.relay.cut();
        pod.edit(Some("kernel://one/first,kernel://one/second"))?;
        ensure!(!pod.has("second")?);
        a.relay.mend();
        with_log(&a.node, pod.waits_for("second", true, 3 * SOON))?;
        let both = |status: &Vec<String>| status == &["first one up", "second one up"];
        eventually("status", SOON, || pod.status(), both)?;
        sandbox = pod.sandbox;
    }
    // The agent.
    a.node.kill_agent()?;
    cluster.stop_apiserver()?;
    cluster.start_apiserver()?;
    let change =
        json!({ "metadata": { "annotations": { "networkservicemesh.io": "kernel://one/second,kernel://one/third" } } });
    cluster.patch("/api/v1/namespaces/default/pods/web", &change)?;
    a.node.start_agent()?;
    let interfaces = || -> anyhow::Result<Vec<String>> {
        let mut all: Vec<String> = a
            .node
            .connections()?
            .into_iter()
            .filter(|one| one.container_id == sandbox.container())
            .map(|one| one.ifname)
            .collect();
        all.sort();
        Ok(all)
    };
    with_log(&a.node, eventually("what the edit asks for", 3 * SOON, interfaces, |all| all == &["second", "third"]))?;
    let told =
        || Ok(cluster.get("/api/v1/namespaces/default/pods/web")?["metadata"]["annotations"][STATUS].to_string());
    eventually("status", SOON, told, |text| text.contains("third") && !text.contains("first"))?;
    Ok(())
}

pub(crate) fn a_pod_that_ends_gets_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let _one = Endpoint::of("one").start(node)?;
    // Its deletion has begun, and takes its time.
    let pod = Asking::create(&cluster, node, "default", "ends", Some("kernel://one/first"))?;
    pod.add()?.ok()?;
    eventually("status", SOON, || pod.status(), |status| status.len() == 1)?;
    let hold = json!({ "metadata": { "finalizers": ["example.com/test"] } });
    cluster.patch(&pod.path(), &hold)?;
    cluster.delete(&pod.path())?;
    pod.edit(Some("kernel://one/first,kernel://one/second"))?;
    // Another pod is edited afterwards and served: the watch has seen both.
    let other = Asking::create(&cluster, node, "default", "lives", None)?;
    other.add()?.ok()?;
    other.edit(Some("kernel://one/first"))?;
    with_log(node, other.waits_for("first", true, SOON))?;
    ensure!(!pod.has("second")? && pod.has("first")?);
    pod.del()?.ok()?;
    ensure!(!pod.has("first")?);
    // Edits that race with the end of the sandbox leave nothing behind.
    for _ in 0..10 {
        other.edit(Some("kernel://one/first,kernel://one/second"))?;
        other.del()?.ok()?;
        let left = || Ok(node.connections()?.len());
        eventually("nothing left", SOON, left, |left| *left == 0)?;
        other.edit(Some("kernel://one/first"))?;
        other.add()?.ok()?;
        with_log(node, other.waits_for("second", false, SOON))?;
        ensure!(other.has("first")?);
    }
    Ok(())
}

pub(crate) fn a_hash_gives_nobody_another_pod() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("thieves")?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let _one = Endpoint::of("one").start(node)?;
    let victim = Asking::create(&cluster, node, "default", "victim", Some("kernel://one/own"))?;
    victim.add()?.ok()?;
    let own = victim.link("own")?.context("own")?;
    eventually("status", SOON, || victim.status(), |status| status == &["own one up"])?;
    // What the API server takes from whoever may create pods.
    let annotations = json!({
        "kubernetes.io/config.hash": victim.uid, "kubernetes.io/config.mirror": victim.uid,
        "networkservicemesh.io": "kernel://one/stolen",
    });
    let annotations = annotations.as_object().cloned().context("annotations")?;
    let thief = Asking::annotated(&cluster, node, "thieves", "thief", &annotations)?;
    let neighbour = Asking::annotated(&cluster, node, "default", "neighbour", &annotations)?;
    // A pod that is edited afterwards is served: the watch has seen them.
    let other = Asking::create(&cluster, node, "default", "other", None)?;
    other.add()?.ok()?;
    other.edit(Some("kernel://one/first"))?;
    with_log(node, other.waits_for("first", true, SOON))?;
    ensure!(victim.kept("own", &own)? && !victim.has("stolen")?);
    ensure!(thief.status()?.is_empty() && neighbour.status()?.is_empty());
    Ok(())
}

pub(crate) fn a_sandbox_made_again_is_looked_at_again() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let _one = Endpoint::of("one").start(node)?;
    let mut pod = Asking::create(&cluster, node, "default", "web", Some("kernel://one/first"))?;
    pod.add()?.ok()?;
    eventually("status", SOON, || pod.status(), |status| status == &["first one up"])?;
    pod.sandbox = node.pod("web-again")?;
    // The kubelet has not heard of the annotation yet.
    pod.add_with(&json!({}))?.ok()?;
    with_log(node, pod.waits_for("first", true, SOON))?;
    Ok(())
}

pub(crate) fn a_namespace_that_was_not_known_is_inherited_later() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("shop")?;
    let asks = json!({ "metadata": { "annotations": { "networkservicemesh.io": "kernel://one/given" } } });
    cluster.patch("/api/v1/namespaces/shop", &asks)?;
    let mut a = cluster.member("node-a")?;
    // As after a reboot: the configuration is there, the agent and its folders are not.
    let early = Asking::create(&cluster, &a.node, "shop", "early", None)?;
    let silent = Asking::create(&cluster, &a.node, "default", "silent", None)?;
    for pod in [&early, &silent] {
        let added = pod.add()?.ok()?;
        ensure!(added.took < Duration::from_secs(1), "nobody waits: {:?}", added.took);
    }
    ensure!(!early.has("given")?);
    let (early, silent) = (early.sandbox, silent.sandbox);
    a.node.start_agent()?;
    let _one = Endpoint::of("one").start(&a.node)?;
    let early = Asking::again(&cluster, &a.node, "shop", "early", early)?;
    let silent = Asking::again(&cluster, &a.node, "default", "silent", silent)?;
    with_log(&a.node, early.waits_for("given", true, 3 * SOON))?;
    // It counts as it was known first.
    let more = json!({ "metadata": { "annotations": { "networkservicemesh.io": "kernel://one/other" } } });
    cluster.patch("/api/v1/namespaces/shop", &more)?;
    cluster.patch("/api/v1/namespaces/default", &more)?;
    a.relay.cut();
    // A pod that the agent has not seen, of a runtime that says nothing.
    let late = Asking::create(&cluster, &a.node, "shop", "late", Some("kernel://one/own"))?;
    late.add_without_word()?.ok()?;
    ensure!(!late.has("own")?);
    a.relay.mend();
    with_log(&a.node, late.waits_for("own", true, 3 * SOON))?;
    with_log(&a.node, late.waits_for("other", true, SOON))?;
    ensure!(early.has("given")? && !early.has("other")? && !silent.has("other")?);
    for pod in [&early, &silent, &late] {
        pod.del()?.ok()?;
    }
    let recorded = || Ok(std::fs::read_dir(a.node.run_dir().join("inherited"))?.count());
    eventually("what was inherited goes with the pods", SOON, recorded, |count| *count == 0)?;
    ensure!(a.node.connections()?.is_empty());
    Ok(())
}

pub(crate) fn one_namespace_keeps_no_other_waiting() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("greedy")?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let _one = Endpoint::of("one").start(node)?;
    let _hangs = Endpoint::of("hangs").program("nsm-hostile").set("NSM_MISBEHAVIOUR", "hang").start(node)?;
    let mut greedy = Vec::new();
    for number in 0..9 {
        let pod = Asking::create(&cluster, node, "greedy", &format!("greedy-{number}"), None)?;
        pod.add()?.ok()?;
        pod.edit(Some("kernel://hangs/a,kernel://hangs/b"))?;
        greedy.push(pod);
    }
    eventually("they wait", SOON, || Ok(node.connections()?.len()), |count| *count >= 4)?;
    let pod = Asking::create(&cluster, node, "default", "web", None)?;
    pod.add()?.ok()?;
    pod.edit(Some("kernel://one/first"))?;
    let took = with_log(node, pod.waits_for("first", true, SOON))?;
    ensure!(took < Duration::from_secs(5), "{took:?}");
    // What does not answer keeps the pod's own others waiting for one round.
    pod.edit(Some("kernel://one/first,kernel://hangs/a,kernel://hangs/b,kernel://one/c"))?;
    with_log(node, pod.waits_for("c", true, Duration::from_secs(75)))?;
    Ok(())
}
