//! What an agent says of itself, over its private socket: for comparing, where `nsmctl` is for people.

use std::time::Duration;

use anyhow::Context;
use nsm_proto::admin::admin_client::AdminClient;
use nsm_proto::admin::{ConnectionInfo, Endpoint, ListRequest};
use tokio::runtime;
use tokio::time::Instant;

use crate::Node;

/// For one answer.
const BOUND: Duration = Duration::from_secs(5);

/// All that the agent lists.
pub(crate) fn lists(node: &Node) -> anyhow::Result<(Vec<Endpoint>, Vec<ConnectionInfo>)> {
    let socket = node.cni_socket();
    node.namespace().run(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let channel = nsm_fdpass::connect(&socket, Instant::now() + BOUND).await?.channel;
            let mut admin = AdminClient::new(channel);
            let ask = async {
                let endpoints = admin.list_endpoints(ListRequest::default()).await?.into_inner().items;
                let connections = admin.list_connections(ListRequest::default()).await?.into_inner().items;
                anyhow::Ok((endpoints, connections))
            };
            tokio::time::timeout(BOUND, ask).await.context("the agent does not answer")?
        })
    })?
}
