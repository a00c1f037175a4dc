//! CHECK: every network of the record, by its plugins, then the pod's network services.

use nsm_cni_types::{Args, Error, Version, code};
use nsm_npwg::Meta;

use super::{
    add::{conf, of_pod},
    exec::SearchPath,
    multus,
    network::Sandbox,
    patience::Patience,
    plan,
    record::{Found, Store},
    search, undo,
};
use crate::{Call, check, netns::Netns};

pub(crate) fn run(call: &Call, meta: &Meta) -> Result<(), Error> {
    let Some(before) = &meta.prev_result else {
        return Err(Error::new(code::INVALID_CONFIG, "prevResult is missing: run ADD first, and pass its result"));
    };
    Netns::open(&call.env)?;
    let patience = Patience::of_del();
    let held = Store::of(&meta.cni_dir).hold(&call.env, patience.lock)?;
    let networks = match held.load() {
        Found::Record(record, progress) => {
            let search = search(&record.bin_dir);
            let sandbox = sandbox(call, &search, patience);
            let checked = record.networks.iter().map(|network| {
                let result = progress.results.get(&network.ifname).ok_or_else(|| {
                    let msg = format!("network {:?}: its ADD did not come to its end", network.name);
                    Error::new(code::CHANGED, msg)
                });
                network.check(sandbox, result?)
            });
            undo::one_of(&checked.filter_map(Result::err).collect::<Vec<_>>())
        }
        Found::Nothing | Found::Damaged(_) => {
            if let Some(pod) = multus::pod(&meta.cni_dir, &call.env, meta.version) {
                return of_multus(call, meta, &pod, patience);
            }
            let args = Args::parse(&call.env.args)?;
            let first = plan::first(call, meta, &args)?;
            let search = search(&meta.bin_dir);
            let sandbox = sandbox(call, &search, patience);
            let before = before.clone().convert(first.list.version()?).to_json()?;
            first.check(sandbox, &before)
        }
    };
    drop(held);
    networks?;
    let conf = conf(meta, before.clone());
    check::services(call, &conf, &of_pod(meta), before.clone().convert(Version::NEWEST))
}

/// Of a pod that Multus made: what Multus recorded no result of cannot be compared.
fn of_multus(call: &Call, meta: &Meta, pod: &multus::Pod, patience: Patience) -> Result<(), Error> {
    let search = search(&meta.bin_dir);
    let sandbox = sandbox(call, &search, patience);
    let known = pod.networks.iter().filter_map(|network| Some((network, pod.results.get(&network.ifname)?)));
    let errors: Vec<Error> = known.filter_map(|(network, result)| network.check(sandbox, result).err()).collect();
    undo::one_of(&errors)
}

fn sandbox<'a>(call: &'a Call, search: &'a SearchPath, patience: Patience) -> Sandbox<'a> {
    Sandbox { container_id: &call.env.container_id, netns: &call.env.netns, search, until: patience.work }
}
