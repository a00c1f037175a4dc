//! Pods that reach for what is others': an endpoint's namespace, its socket, its connections.

use std::collections::BTreeSet;

use anyhow::ensure;
use nsm_lab::{Endpoint, Node, eventually};
use nsm_netlink::{Netns, NetnsSocket};
use nsm_proto::connectioncontext::{IpContext, Route};

use crate::caller::{Caller, request};
use crate::strangers::{SETTLED, kept};
use crate::{IFNAME, SERVICE};

pub(crate) fn segments_behind_the_agents() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut endpoint = Endpoint::of(SERVICE).start(&node)?;
    let (pod, victim) = (node.pod("hostile")?, node.pod("victim")?);
    let theirs = Caller::of(&node, victim.namespace())?;
    let victims = theirs.request(request("id-1", &theirs.pass(victim.namespace().path())?))??;
    let segments = victims.path.unwrap_or_default().path_segments;
    let caller = Caller::of(&node, pod.namespace())?;
    let mut addresses = BTreeSet::new();
    for number in 0..20 {
        let mut message = request("id-1", &caller.pass(pod.namespace().path())?);
        let path = message.connection.get_or_insert_default().path.get_or_insert_default();
        let mut forged = segments[1..].to_vec();
        if number > 0 {
            forged[1].id = format!("forged-{number}");
        }
        path.path_segments.extend(forged);
        let given = caller.request(message)??.context.and_then(|context| context.ip_context).unwrap_or_default();
        addresses.extend(given.src_ip_addrs);
    }
    ensure!(addresses.len() == 1 && kept(&endpoint.program().log()).len() == 2, "{addresses:?}");
    caller.close(request("id-1", "").connection.unwrap_or_default())??;
    victim.ping("172.16.1.0".parse()?)?;
    let left = || Ok(kept(&endpoint.program().log()).len());
    eventually("the Close at the endpoint", SETTLED, left, |left| *left == 1)?;
    Ok(())
}

pub(crate) fn words_for_the_endpoints_namespace() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let endpoint = Endpoint::of(SERVICE).start(&node)?;
    let client = node.pod("client")?;
    let added = node.cni().add(&client, IFNAME, &node.conf(SERVICE))?.ok()?;
    let stranger = node.pod("stranger")?;
    let caller = Caller::of(&node, stranger.namespace())?;
    let mut message = request("id-1", &caller.pass(stranger.namespace().path())?);
    let route = |prefix: String| Route { prefix, next_hop: String::new() };
    let words = IpContext {
        src_ip_addrs: vec!["8.8.8.8/32".into(), added.addresses()?[0].to_string()],
        dst_routes: vec![route("0.0.0.0/0".into()), route(added.addresses()?[0].to_string())],
        ..IpContext::default()
    };
    message.connection.get_or_insert_default().context.get_or_insert_default().ip_context = Some(words);
    let given = caller.request(message)??.context.and_then(|context| context.ip_context).unwrap_or_default();
    ensure!(given.src_ip_addrs == ["172.16.1.3/32"], "{given:?}");
    let routes = NetnsSocket::open(&Netns::open(endpoint.pod().namespace().path())?)?.routes()?;
    let destinations: Vec<String> = routes.iter().map(|entry| entry.route.destination.to_string()).collect();
    for word in ["0.0.0.0/0", "8.8.8.8/32"] {
        ensure!(!destinations.iter().any(|known| known == word), "{word} in {destinations:?}");
    }
    client.ping(added.peer(false)?)?;
    Ok(())
}

pub(crate) fn sockets_of_others_endpoints() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let endpoint = Endpoint::of(SERVICE).start(&node)?;
    let stranger = node.pod("stranger")?;
    let found = Caller::of(&node, stranger.namespace())?.find()?;
    ensure!(found == [(String::new(), false)], "a stranger is told {found:?}");
    for theirs in [endpoint.pod().namespace(), node.namespace()] {
        let found = Caller::of(&node, theirs)?.find()?;
        ensure!(found.len() == 1 && found[0].1, "{} is told {found:?}", theirs.name());
    }
    Ok(())
}
