//! GC: ends what the runtime no longer knows, has the networks' plugins do the same, and the agent for services.
//!
//! Guarantees: an attachment that some call works on is left alone. With a list, what is not in it is ended by DEL, also where a
//! plugin knows no GC; without one, what has lost its namespace. A plugin is told of all attachments of its network on this
//! host, or, where one cannot be read or is just being made, nothing.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nsm_cni_types::{Attachment, Error, Lenient, code};
use nsm_npwg::Meta;

use super::{
    multus,
    network::{Network, Sandbox},
    patience::{Patience, share},
    plan::{self, Everybodys, FIRST},
    record::{Found, Held, Progress, Record, Store},
    search, undo,
};
use crate::{Call, gc};

/// Longest wait until nothing is being made.
const ALONE: Duration = Duration::from_secs(5);
/// Longest time for one pod.
const LONGEST: Duration = Duration::from_secs(10);

pub(crate) fn run(call: &Call, meta: &Meta) -> Result<(), Error> {
    let valid = Lenient::valid_attachments(&call.stdin)?;
    let store = Store::of(&meta.cni_dir);
    let until = Patience::of_change().work;
    let mut errors = Vec::new();
    for held in store.idle() {
        match held.load() {
            Found::Record(record, progress) if is_stale(&held, &record, &call.stdin.name, valid.as_deref()) => {
                errors.extend(end(&held, &record, &progress, valid.is_some(), until).err());
            }
            Found::Damaged(why) => eprintln!("nsm-cni: GC: a record cannot be read, DEL will set it aside: {why}"),
            Found::Record(..) | Found::Nothing => {}
        }
    }
    store.sweep();
    if let Some(valid) = &valid {
        errors.extend(of_multus(meta, &store, valid, until));
        errors.extend(of_plugins(call, meta, &store, valid, until));
    }
    errors.extend(gc::services(call, &meta.socket, meta.timeout, valid).err());
    undo::one_of(&errors).map_err(|error| Error { code: code::PARTLY_FREED, ..error })
}

fn is_stale(held: &Held, record: &Record, network: &str, valid: Option<&[Attachment]>) -> bool {
    match valid {
        Some(valid) => {
            record.network == network
                && !valid.iter().any(|one| one.container_id == record.container_id && one.ifname == record.ifname)
        }
        None if record.networks.is_empty() => held.is_old(),
        None => record.has_lost_its_namespace(),
    }
}

/// When the time of one pod is over: one whose plugin hangs leaves the others theirs.
fn of_one() -> Instant {
    Instant::now() + LONGEST
}

/// `known`: that the runtime knows it no more. Otherwise its DEL may come, and is to find that there was nothing left.
fn end(held: &Held, record: &Record, progress: &Progress, known: bool, until: Instant) -> Result<(), Error> {
    let search = search(&record.bin_dir);
    // A namespace that the runtime does not know may be another's by now.
    let netns = if record.has_lost_its_namespace() { "" } else { &record.netns };
    let sandbox = Sandbox { container_id: &record.container_id, netns, search: &search, until: until.min(of_one()) };
    let errors = undo::recorded(held, record, progress, sandbox)?;
    if errors.is_empty() && !record.networks.is_empty() {
        if !known {
            held.put(&record.with(Vec::new()))?;
        }
        eprintln!("nsm-cni: GC freed container={} ifname={}", record.container_id, record.ifname);
    }
    undo::one_of(&errors)
}

/// Pods that Multus made, that the runtime no longer knows and whose namespace is gone: Multus may still be at work here, in another
/// network of the runtime's.
fn of_multus(meta: &Meta, store: &Store, valid: &[Attachment], until: Instant) -> Vec<Error> {
    let search = search(&meta.bin_dir);
    let mut errors = Vec::new();
    for pod in multus::pods(&meta.cni_dir, meta.version).pods {
        let is_valid = valid.iter().any(|one| one.container_id == pod.container_id);
        if is_valid || !pod.has_lost_its_namespace() {
            continue;
        }
        let Some(_held) = store.idle_one(&pod.container_id, &pod.ifname) else { continue };
        let sandbox =
            Sandbox { container_id: &pod.container_id, netns: "", search: &search, until: until.min(of_one()) };
        let left = undo::all(&pod.networks, &pod.results, sandbox);
        if left.is_empty() {
            match pod.forget() {
                Ok(()) => eprintln!("nsm-cni: GC freed container={}, which Multus made", pod.container_id),
                Err(error) => errors.push(error),
            }
        }
        errors.extend(left);
    }
    errors
}

/// GC of each network's plugins.
fn of_plugins(call: &Call, meta: &Meta, store: &Store, valid: &[Attachment], until: Instant) -> Vec<Error> {
    let Everybodys { networks: everybodys, mut errors, unknown } = everybodys(call, meta, until);
    if let Some(why) = unknown {
        eprintln!(
            "nsm-cni: GC leaves networks alone that are called by name, unless a pod of this host has them: {why}"
        );
    }
    // What is made meanwhile would not be in the list.
    let _gate = match store.collecting(until.min(Instant::now() + ALONE)) {
        Ok(gate) => gate,
        Err(error) => {
            errors.push(error);
            return errors;
        }
    };
    let (records, mut unread) = store.all();
    let search = search(&meta.bin_dir);
    let multus = multus::pods(&meta.cni_dir, meta.version);
    unread |= multus.unread;
    // The runtime's list is about the first network, also where somebody else's configuration calls itself so, and pods may have had it
    // before there were records.
    // Of a pod whose end has begun there may be added ones alone.
    let first = |record: &'_ Record| record.networks.iter().position(|network| network.ifname == record.ifname);
    let of_pods = records.iter().filter_map(|record| record.networks.get(first(record)?));
    let firsts: BTreeSet<&str> = everybodys
        .iter()
        .filter(|network| network.ifname == FIRST)
        .chain(of_pods)
        .map(|network| network.list.name.as_str())
        .collect();
    let mut seen: Vec<&Network> = Vec::new();
    let added = records.iter().flat_map(|record| &record.networks);
    for network in everybodys.iter().chain(added) {
        if seen.iter().any(|other| other.list == network.list) {
            continue;
        }
        seen.push(network);
        let first = firsts.contains(network.list.name.as_str());
        if unread && !first {
            eprintln!(
                "nsm-cni: GC of network {:?} is left out, as a record cannot be read and its addresses may be in use",
                network.name
            );
            continue;
        }
        let mut all = attached(&records, &network.list.name);
        for pod in &multus.pods {
            let of_it = pod.networks.iter().filter(|other| other.list.name == network.list.name);
            all.extend(
                of_it.map(|other| Attachment { container_id: pod.container_id.clone(), ifname: other.ifname.clone() }),
            );
        }
        all.extend(valid.iter().filter(|one| first && !all.contains(one)).cloned().collect::<Vec<_>>());
        errors.extend(network.gc(&search, &all, until));
    }
    errors
}

/// What every pod gets. The agent has a part of the time.
fn everybodys(call: &Call, meta: &Meta, until: Instant) -> Everybodys {
    let timeout = meta.timeout.min(share(until, 2).saturating_duration_since(Instant::now()));
    plan::everybodys(call, meta, (Duration::ZERO, timeout))
}

/// All that have a network of that name.
fn attached(records: &[Record], name: &str) -> Vec<Attachment> {
    let networks = records.iter().flat_map(|record| record.networks.iter().map(move |network| (record, network)));
    let of_it = networks.filter(|(_, network)| network.list.name == name);
    let key = |(record, network): (&Record, &Network)| Attachment {
        container_id: record.container_id.clone(),
        ifname: network.ifname.clone(),
    };
    of_it.map(key).collect()
}
