//! DEL: what the record says, in reverse order, with exactly what ADD got.
//!
//! Guarantees: neither agent nor cluster is needed for networks. The record stays until all of it is gone; a repeated DEL repeats
//! what is left. A pod that Multus made is ended by Multus's records. Without any the networks are ended that the configuration gives to
//! every pod, and it is told that more may be left, unless the container has nothing.

use std::path::PathBuf;

use nsm_cni_types::{Args, Error, lost::Cause};
use nsm_npwg::Meta;

use super::{
    add::of_pod,
    exec::SearchPath,
    lost, multus,
    network::Sandbox,
    patience::Patience,
    plan,
    record::{Found, Store},
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
    let patience = Patience::of_del();
    let held = store.hold(&call.env, patience.lock).or_else(|error| {
        if error.code == nsm_cni_types::code::TRY_AGAIN {
            return Err(error);
        }
        eprintln!("nsm-cni: DEL goes on without a lock: {error}");
        Ok(store.loose(&call.env))
    })?;
    let services = pod::del(call, &meta.socket, &of_pod(meta));
    let networks = match held.load() {
        Found::Record(record, progress) => {
            let search = search(&record.bin_dir);
            let sandbox = sandbox(call, &search, patience);
            let ended = undo::recorded(&held, &record, &progress, sandbox).and_then(|errors| undo::one_of(&errors));
            if ended.is_ok() && services.is_err() {
                // The DEL that is to come for services is to find that of networks nothing was left.
                held.put(&record.with(Vec::new()))?;
            }
            ended
        }
        Found::Damaged(why) => {
            eprintln!("nsm-cni: the record of container {}: {why}", call.env.container_id);
            unrecorded(call, meta, Some((Cause::Damaged, Some(held.set_aside()))), patience)
        }
        Found::Nothing => {
            unrecorded(call, meta, lost::missed(call, store.folder()).map(|cause| (cause, None)), patience)
        }
    };
    undo::one_of(&[services, networks].into_iter().filter_map(Result::err).collect::<Vec<_>>())?;
    // As the library does: after the work, and silent about a namespace that is gone.
    Netns::open(&call.env).map_or(Ok(()), |netns| refuse_own(&call.env, &netns))
}

/// What Multus recorded, of a pod that it made.
fn of_multus(call: &Call, meta: &Meta, pod: &multus::Pod, patience: Patience) -> Result<(), Error> {
    let search = search(&meta.bin_dir);
    let sandbox = sandbox(call, &search, patience);
    undo::one_of(&undo::all(&pod.networks, &pod.results, sandbox))?;
    pod.forget()
}

/// What the configuration itself says that the container has: the networks of every pod. `lost`, if there was a record.
fn unrecorded(
    call: &Call,
    meta: &Meta,
    lost: Option<(Cause, Option<PathBuf>)>,
    patience: Patience,
) -> Result<(), Error> {
    if let Some(pod) = multus::pod(&meta.cni_dir, &call.env, meta.version) {
        return of_multus(call, meta, &pod, patience);
    }
    let args = Args::parse(&call.env.args).unwrap_or_default();
    let (certain, errors) = plan::certain(call, meta, &args);
    // Else its ADD was refused, or its DEL was here before.
    if let Some(lost) = lost {
        for error in errors {
            eprintln!("nsm-cni: nothing is recorded of container {}: {error}", call.env.container_id);
        }
        lost::tell(call, meta, lost, &certain);
    }
    // The runtime's own memory is of the first network.
    let before = call.stdin.keys.get("prevResult").filter(|before| before.is_object());
    let results = before.map(|before| (call.env.ifname.clone(), before.clone())).into_iter().collect();
    let search = search(&meta.bin_dir);
    undo::one_of(&undo::all(&certain, &results, sandbox(call, &search, patience)))
}

fn sandbox<'a>(call: &'a Call, search: &'a SearchPath, patience: Patience) -> Sandbox<'a> {
    Sandbox { container_id: &call.env.container_id, netns: &call.env.netns, search, until: patience.work }
}
