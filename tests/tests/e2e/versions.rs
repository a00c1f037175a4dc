//! A plugin and a tool of another version against this agent: they are upgraded one after another.

use std::fs::File;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node};
use nsm_proto_versions::{later, v0_1};
use tokio::time::Instant;
use tonic::Code;

use crate::{IFNAME, SERVICE};

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs in the node's own namespace, with a channel to the agent's private socket and the file of a pod's namespace passed.
fn call<T: Send>(
    node: &Node,
    netns: &std::path::Path,
    work: impl AsyncFnOnce(tonic::transport::Channel) -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let socket = node.cni_socket();
    node.namespace().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let channel = nsm_fdpass::connect(&socket, Instant::now() + PATIENCE).await?;
            channel.outbox.send(Arc::new(File::open(netns)?.into()))?;
            tokio::time::timeout(PATIENCE, work(channel.channel)).await.context("the agent does not answer")?
        })
    })?
}

/// ADD, packets, CHECK, STATUS and DEL, in the words of one version.
macro_rules! whole_life {
    ($test:ident, $api:ident, $($more:ident: $value:expr)?) => {
        pub(crate) fn $test() -> anyhow::Result<()> {
            use $api::admin::{InfoRequest, ListRequest, admin_client::AdminClient};
            use $api::cni::{
                AddRequest, AttachmentKey, CheckRequest, DelRequest, StatusRequest, cni_client::CniClient,
            };

            let node = Node::start("node-1")?;
            let _endpoint = Endpoint::of(SERVICE).start(&node)?;
            let pod = node.pod("client")?;
            let before = node.leftovers()?;
            let netns = pod.namespace().path();
            let (netns_path, netns_url) = (netns.display().to_string(), pod.namespace().inode_url()?);
            let key = || AttachmentKey {
                container_id: pod.container().into(),
                ifname: IFNAME.into(),
                $($more: $value,)?
            };
            let add = AddRequest {
                key: Some(key()),
                network: "lab".into(),
                netns_path: netns_path.clone(),
                netns_url: netns_url.clone(),
                network_service: SERVICE.into(),
                mechanism: "kernel".into(),
                timeout_ms: 5000,
                plugin_version: "0.1.0".into(),
                $($more: $value,)?
                ..AddRequest::default()
            };
            let added = call(&node, netns, async |channel| {
                let status = StatusRequest { network_service: SERVICE.into(), ..StatusRequest::default() };
                let status = CniClient::new(channel.clone()).status(status).await?.into_inner();
                ensure!(status.problems.is_empty() && !status.agent_version.is_empty(), "{status:?}");
                Ok(CniClient::new(channel).add(add).await?.into_inner())
            })?;
            ensure!(added.interfaces.iter().any(|made| made.name == IFNAME && !made.mac.is_empty()), "{added:?}");
            ensure!(added.ips.len() == 1 && added.ips[0].address == "172.16.1.1/32", "{added:?}");
            let peer = added.routes[0].dst.split('/').next().unwrap_or_default().parse::<IpAddr>()?;
            pod.ping(peer)?;

            let mut check = CheckRequest {
                key: Some(key()),
                network: "lab".into(),
                netns_path,
                netns_url,
                $($more: $value,)?
                ..CheckRequest::default()
            };
            check.expected = Some(added);
            let findings = call(&node, netns, async |channel| {
                let shown = AdminClient::new(channel.clone()).list_connections(ListRequest::default()).await?;
                ensure!(shown.into_inner().items.len() == 1);
                let info = AdminClient::new(channel.clone()).info(InfoRequest::default()).await?.into_inner();
                ensure!(info.node_name == "node-1", "{info:?}");
                Ok(CniClient::new(channel).check(check).await?.into_inner().findings)
            })?;
            ensure!(findings.is_empty(), "{findings:?}");

            let del = || DelRequest { key: Some(key()), ..DelRequest::default() };
            for found in [true, false] {
                let deleted = call(&node, netns, async |channel| {
                    Ok(CniClient::new(channel).del(del()).await?.into_inner().found)
                })?;
                ensure!(deleted == found, "DEL found an attachment: {deleted}");
            }
            node.nothing_left(&before)
        }
    };
}

whole_life!(of_the_version_before, v0_1,);
whole_life!(of_a_later_version, later, added_later: "what this agent does not know".into());

pub(crate) fn a_call_of_a_later_version_is_refused_by_its_kind() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let status = call(&node, pod.namespace().path(), async |channel| {
        let call = later::cni::AddRequest::default();
        Ok(later::cni::cni_client::CniClient::new(channel).added_later(call).await.map(drop).unwrap_err())
    })?;
    ensure!(status.code() == Code::Unimplemented, "{status:?}");
    node.nothing_left(&before)
}
