//! What was made is told to the agent, which writes the pod's status: in the record of the sandbox, or, where the agent has planned it, by a
//! call.
//!
//! Guarantee: it never fails an ADD, and takes at most [`PATIENCE`] of it.

use std::time::Duration;

use nsm_cni_types::{Answer, Args, pods::MadeNetwork};
use nsm_npwg::Meta;
use nsm_proto::cni::{SettledNetwork, SettledRequest};

use super::{
    devinfo,
    network::Network,
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

/// All networks of the record that have been made.
pub(crate) fn made(record: &Record, progress: &Progress) -> Vec<MadeNetwork> {
    let made = |(place, network): (usize, &Network)| {
        let result = progress.results.get(&network.ifname)?;
        let result = Answer::parse(result, network.list.version().ok()?).ok()?.to_json().ok()?;
        Some(MadeNetwork {
            name: network.name.clone(),
            ifname: network.ifname.clone(),
            result,
            default: place == 0,
            device_info: devinfo::read(network, &record.container_id),
            note: network.note.clone(),
        })
    };
    record.networks.iter().enumerate().filter_map(made).collect()
}

/// Tells all networks of the record.
pub(crate) fn tell(call: &Call, meta: &Meta, args: &Args, record: &Record, progress: &Progress) {
    let settled = |made: MadeNetwork| SettledNetwork {
        name: made.name,
        ifname: made.ifname,
        result: made.result.to_string(),
        default: made.default,
        device_info: made.device_info,
        note: made.note,
    };
    let request = SettledRequest {
        key: Some(agent::key(&call.env)),
        pod: pod_of(args.clone()),
        networks: made(record, progress).into_iter().map(settled).collect(),
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
