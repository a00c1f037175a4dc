//! What was made is told to the agent, which writes the pod's status.
//!
//! Guarantee: it never fails an ADD, and takes at most [`PATIENCE`] of it.

use std::time::Duration;

use nsm_cni_types::{Answer, Args};
use nsm_npwg::Meta;
use nsm_proto::cni::{SettledNetwork, SettledRequest};

use super::{
    devinfo,
    record::{Progress, Record},
};
use crate::{
    Call,
    add::pod_of,
    agent::{self, Agent},
    in_runtime,
};

/// Longest that an ADD waits for an agent that has just planned it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells all networks of the record.
pub(crate) fn tell(call: &Call, meta: &Meta, args: &Args, record: &Record, progress: &Progress) {
    let settled = |(place, network): (usize, &super::network::Network)| {
        let result = progress.results.get(&network.ifname)?;
        let result = Answer::parse(result, network.list.version().ok()?).ok()?.to_json().ok()?;
        Some(SettledNetwork {
            name: network.name.clone(),
            ifname: network.ifname.clone(),
            result: result.to_string(),
            default: place == 0,
            device_info: devinfo::read(network, &record.container_id),
        })
    };
    let request = SettledRequest {
        key: Some(agent::key(&call.env)),
        pod: pod_of(args.clone()),
        networks: record.networks.iter().enumerate().filter_map(settled).collect(),
    };
    let told = in_runtime(async {
        let told = async {
            let mut agent = Agent::connect(&meta.socket, Duration::ZERO, PATIENCE).await?;
            agent.call(|mut client| async move { client.settled(request).await }).await
        };
        told.await.map_err(|failure| failure.error(&meta.socket, PATIENCE))
    });
    if let Err(error) = told {
        eprintln!("nsm-cni: the pod's status is not told to the agent: {error}");
    }
}
