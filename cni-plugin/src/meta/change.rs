//! One network more, or one less, for a pod that runs: asked by the agent, of the host's plugin.
//!
//! Guarantees: the pod's record has the network before it is made and until it is gone, so that the pod's own DEL ends it too; a
//! failure leaves the pod as it was. Repeated calls change nothing. A call that is killed is repeated from its beginning, or undone by
//! [`detach`]: what it has begun is on disk first, and so are the default routes that it may take, which go back to whom they were of.

use nsm_cni_types::{Error, code};
use nsm_npwg::{Attach, Changed, Detach, Meta};
use serde_json::json;

use super::{
    devinfo,
    inside::{Claim, Inside},
    network::{Network, Sandbox},
    patience::{Patience, share},
    plan,
    record::{Found, Held, Progress, Record, Store},
    search, settled,
};
use crate::{Call, failpoint, netns::Netns};

/// ADD of one network. Tells all that the pod has then.
pub(crate) fn attach(call: &Call, meta: &Meta, attach: &Attach) -> Result<String, Error> {
    let patience = Patience::of_change();
    let netns = Netns::open(&call.env)?;
    let store = Store::of(&meta.cni_dir);
    let held = store.hold(&call.env, patience.lock)?;
    let (mut record, mut progress) = running(call, &held, &netns)?;
    let is_it = |network: &Network| network.ifname == attach.ifname;
    let search = search(&meta.bin_dir);
    let sandbox =
        Sandbox { container_id: &call.env.container_id, netns: &call.env.netns, search: &search, until: patience.work };
    let wanted = plan::one(call, meta, attach.clone())?;
    let inside = Inside::open(&netns)?;
    if let Some(place) = record.networks.iter().position(is_it) {
        let network = &record.networks[place];
        let is_made = progress.is_made(&attach.ifname);
        if is_made && network.is_made_as(&wanted.network) {
            // Whoever asked for it first has not heard the answer.
            record.networks[place].note = wanted.network.note;
            held.put(&record)?;
            return Ok(changed(&record, &progress));
        }
        if place == 0 || (is_made && network.name != attach.name) {
            let msg =
                format!("interface {} is network {:?} of the pod: nothing was changed", attach.ifname, network.name);
            return Err(Error::new(code::CONFLICT, msg));
        }
        // Of a change that did not come to its end, or asked for otherwise since.
        end((&held, &mut record, &mut progress), place, sandbox, Some(&inside))?;
    }

    inside.refuse_taken([attach.ifname.as_str()])?;
    wanted.network.find_plugins(&search)?;
    let before = progress.defaults.clone();
    progress.begin_change(&attach.ifname);
    held.put_progress(&progress);
    record.networks.push(wanted.network.clone());
    held.put(&record)?;

    if let Some(device) = &wanted.device {
        devinfo::offer(device, &wanted.network, sandbox.container_id);
    }
    let gate = store.making(&wanted.network.list.name, share(patience.work, 2));
    let made = gate.and_then(|_gate| wanted.network.add(sandbox)).and_then(|result| {
        // DEL gets it, whatever comes after.
        progress.results.insert(attach.ifname.clone(), result.clone());
        held.put_progress(&progress);
        wanted.verify(&result)?;
        let last = record.networks.len() - 1;
        let asked = |place: usize| match wanted.default_route.as_deref() {
            Some(gateways) => Some(gateways).filter(|_| place == last),
            None => before.wants_none(&record.networks[place].ifname),
        };
        let claims: Vec<Claim<'_>> =
            (0..=last).map(|place| Claim { network: &record.networks[place], default_route: asked(place) }).collect();
        progress.defaults.may_take(&attach.ifname, &inside, &record.networks, &progress.results)?;
        held.put_progress(&progress);
        let mut settled = before.clone();
        settled.settle(&inside, &claims, &mut progress.results)?;
        failpoint::hit("attach.routes-settled");
        progress.defaults = settled;
        Ok(())
    });
    match made {
        Ok(()) => {
            progress.end_change(&attach.ifname);
            held.put_progress(&progress);
            Ok(changed(&record, &progress))
        }
        Err(error) => {
            let sandbox = Sandbox { until: patience.undo, ..sandbox };
            match wanted.network.del(sandbox, progress.results.get(&attach.ifname)) {
                Ok(()) => {
                    record.networks.pop();
                    progress.results.remove(&attach.ifname);
                    let Progress { defaults, results, .. } = &mut progress;
                    defaults.give_back(&attach.ifname, &inside, &record.networks, results)?;
                    progress.defaults = before;
                    progress.end_change(&attach.ifname);
                    held.put_progress(&progress);
                    held.put(&record)?;
                }
                Err(left) => eprintln!("nsm-cni: not undone, DEL will try again: {left}"),
            }
            Err(error)
        }
    }
}

fn changed(record: &Record, progress: &Progress) -> String {
    json!(Changed { networks: settled::made(record, progress) }).to_string()
}

/// DEL of one network; harmless when the pod has none of that interface, or another one's. Tells all that the pod has then.
pub(crate) fn detach(call: &Call, meta: &Meta, detach: &Detach) -> Result<String, Error> {
    let patience = Patience::of_change();
    let held = Store::of(&meta.cni_dir).hold(&call.env, patience.lock)?;
    let (mut record, mut progress) = match held.load() {
        Found::Record(record, progress) => (*record, progress),
        Found::Nothing => {
            let msg = format!(
                "interface {} of container {} stays: nothing is recorded of it: it is older than the meta-plugin, or gone",
                detach.ifname, call.env.container_id
            );
            return Err(Error::new(code::TRY_AGAIN, msg));
        }
        Found::Damaged(why) => {
            let msg = format!(
                "interface {} of container {} stays: its record cannot be read ({why}); the pod's own DEL sets the record aside",
                detach.ifname, call.env.container_id
            );
            return Err(Error::new(code::IO, msg));
        }
    };
    let is_it = |network: &Network| {
        network.ifname == detach.ifname && detach.name.as_ref().is_none_or(|name| *name == network.name)
    };
    let Some(place) = record.networks.iter().position(is_it) else {
        return Ok(changed(&record, &progress));
    };
    if place == 0 {
        let msg = format!("interface {} is the pod's first network, which only the pod's own DEL ends", detach.ifname);
        return Err(Error::new(code::INVALID_CONFIG, msg));
    }
    let search = search(&record.bin_dir);
    let sandbox =
        Sandbox { container_id: &call.env.container_id, netns: &call.env.netns, search: &search, until: patience.work };
    // Without its namespace there are no routes.
    let netns = Netns::open(&call.env).ok().filter(|netns| record.is_of(netns));
    let inside = netns.map(|netns| Inside::open(&netns)).transpose()?;
    end((&held, &mut record, &mut progress), place, sandbox, inside.as_ref())?;
    Ok(changed(&record, &progress))
}

/// Ends the network at that place, which leaves the record; default routes that it took go back to the others.
fn end(
    (held, record, progress): (&Held, &mut Record, &mut Progress),
    place: usize,
    sandbox: Sandbox<'_>,
    inside: Option<&Inside>,
) -> Result<(), Error> {
    let ifname = record.networks[place].ifname.clone();
    progress.begin_change(&ifname);
    held.put_progress(progress);
    record.networks[place].del(sandbox, progress.results.get(&ifname))?;
    devinfo::remove(&record.networks[place], sandbox.container_id);
    record.networks.remove(place);
    progress.results.remove(&ifname);
    if let Some(inside) = inside {
        let Progress { defaults, results, .. } = &mut *progress;
        defaults.give_back(&ifname, inside, &record.networks, results)?;
    }
    failpoint::hit("detach.ended");
    progress.end_change(&ifname);
    // The record last: what it names and has no result is ended once more.
    held.put_progress(progress);
    held.put(record)
}

/// The record of a pod that has all its networks.
fn running(call: &Call, held: &Held, netns: &Netns) -> Result<(Record, Progress), Error> {
    let why = match held.load() {
        Found::Record(record, progress) if progress.complete && record.is_of(netns) => return Ok((*record, progress)),
        Found::Record(..) => "its own ADD has not come to its end".to_owned(),
        Found::Nothing => "nothing is recorded of it: it is older than the meta-plugin, or gone".to_owned(),
        Found::Damaged(why) => format!("its record cannot be read: {why}"),
    };
    let msg = format!("container {} gets no further network: {why}", call.env.container_id);
    Err(Error::new(code::TRY_AGAIN, msg))
}
