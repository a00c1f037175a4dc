//! DEL: what the record says, in reverse order, with exactly what ADD got.
//!
//! Guarantees: neither agent nor cluster is needed for networks. The record stays until all of it is gone; a repeated DEL repeats
//! what is left. A pod that Multus made is ended by Multus's records. Without any the configuration's own first network is ended, and it is told that more may be left.

use nsm_cni_types::{Args, Error};
use nsm_npwg::{Chosen, Meta};

use super::{
    add::of_pod,
    multus,
    network::Sandbox,
    plan,
    record::{Found, Held, Progress, Record, Store},
    search, undo,
};
use crate::{
    Call,
    netns::{Netns, refuse_own},
    pod,
};

pub(crate) fn run(call: &Call, meta: &Meta) -> Result<(), Error> {
    let store = Store::of(&meta.cni_dir);
    // A full disk must not keep a pod from ending.
    let held = store.hold(&call.env).or_else(|error| {
        if error.code == nsm_cni_types::code::TRY_AGAIN {
            return Err(error);
        }
        eprintln!("nsm-cni: DEL goes on without a lock: {error}");
        Ok(store.loose(&call.env))
    })?;
    let services = pod::del(call, &meta.socket, &of_pod(meta));
    let networks = match held.load() {
        Found::Record(record, progress) => recorded(call, &held, *record, &progress),
        Found::Damaged(why) => {
            let aside = held.set_aside();
            eprintln!(
                "nsm-cni: the record of container {} cannot be read and is kept as {}: {why}",
                call.env.container_id,
                aside.display()
            );
            unrecorded(call, meta)
        }
        Found::Nothing => unrecorded(call, meta),
    };
    undo::one_of(&[services, networks].into_iter().filter_map(Result::err).collect::<Vec<_>>())?;
    // As the library does: after the work, and silent about a namespace that is gone.
    Netns::open(&call.env).map_or(Ok(()), |netns| refuse_own(&call.env, &netns))
}

fn recorded(call: &Call, held: &Held, mut record: Record, progress: &Progress) -> Result<(), Error> {
    let search = search(&record.bin_dir);
    let sandbox = Sandbox { container_id: &call.env.container_id, netns: &call.env.netns, search: &search };
    let left = undo::all(&record.networks, &progress.results, sandbox);
    if left.networks.is_empty() {
        return held.remove();
    }
    record.networks = left.networks;
    held.put(&record)?;
    undo::one_of(&left.errors)
}

/// What Multus recorded, of a pod that it made.
fn of_multus(call: &Call, meta: &Meta, pod: &multus::Pod) -> Result<(), Error> {
    let search = search(&meta.bin_dir);
    let sandbox = Sandbox { container_id: &call.env.container_id, netns: &call.env.netns, search: &search };
    undo::one_of(&undo::all(&pod.networks, &pod.results, sandbox).errors)?;
    pod.forget();
    Ok(())
}

/// What the configuration itself says that the container has: its first network.
fn unrecorded(call: &Call, meta: &Meta) -> Result<(), Error> {
    if let Some(pod) = multus::pod(&meta.cni_dir, &call.env.container_id, &call.env.ifname, meta.version) {
        return of_multus(call, meta, &pod);
    }
    let args = Args::parse(&call.env.args).unwrap_or_default();
    let certain = match &meta.default {
        Chosen::ClusterNetwork(name) => name.contains('/'),
        Chosen::Delegates(lists) => !lists.is_empty(),
    };
    let first = if certain {
        plan::first(call, meta, &args).map_err(|error| error.to_string())
    } else {
        Err("its first network is an object of the cluster".to_owned())
    };
    match first {
        Ok(network) => {
            eprintln!(
                "nsm-cni: nothing is recorded of container {}: only its first network, {:?}, is ended",
                call.env.container_id, network.name
            );
            let search = search(&meta.bin_dir);
            let sandbox = Sandbox { container_id: &call.env.container_id, netns: &call.env.netns, search: &search };
            network.del(sandbox, call.stdin.keys.get("prevResult").filter(|before| before.is_object()))
        }
        Err(why) => {
            eprintln!(
                "nsm-cni: nothing is recorded of container {}, and nothing is ended: {why}",
                call.env.container_id
            );
            Ok(())
        }
    }
}
