//! GC: ends what the runtime no longer knows, has the networks' plugins do the same, and the agent for services.
//!
//! Guarantees: an attachment that some call works on is left alone. With a list, what is not in it is ended by DEL, also where a
//! plugin knows no GC; without one, what has lost its namespace. A plugin is told of all attachments of its network on this
//! host, or, where one cannot be read, nothing. What hangs takes no more than its part of the time, and none of other networks'.

use std::time::{Duration, Instant};

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

/// Longest time for one pod.
const LONGEST: Duration = Duration::from_secs(10);
/// Longest time for the plugins of one network, whose ADDs wait meanwhile; less than they do.
const LONGEST_OF_NETWORK: Duration = Duration::from_secs(8);

pub(crate) fn run(call: &Call, meta: &Meta) -> Result<(), Error> {
    let valid = Lenient::valid_attachments(&call.stdin)?;
    let store = Store::of(&meta.cni_dir);
    let until = Patience::of_change().work;
    let mut errors = of_ended(call, &store, valid.as_deref(), share(until, 2));
    store.sweep();
    if let Some(valid) = &valid {
        errors.extend(of_multus(meta, &store, valid, share(until, 2)));
        errors.extend(of_plugins(call, meta, &store, valid, until));
    }
    errors.extend(gc::services(call, &meta.socket, meta.timeout, valid).err());
    undo::one_of(&errors).map_err(|error| Error { code: code::PARTLY_FREED, ..error })
}

/// Pods that are recorded, and gone.
fn of_ended(call: &Call, store: &Store, valid: Option<&[Attachment]>, until: Instant) -> Vec<Error> {
    let mut errors = Vec::new();
    for held in store.idle() {
        match held.load() {
            Found::Record(record, progress) if is_stale(&held, &record, &call.stdin.name, valid) => {
                if Instant::now() >= until {
                    let msg = "the time for pods that have ended is over: the rest of them is left for the next GC";
                    errors.push(Error::new(code::TRY_AGAIN, msg));
                    break;
                }
                errors.extend(end(&held, &record, &progress, valid.is_some(), until).err());
            }
            Found::Damaged(why) => eprintln!("nsm-cni: GC: a record cannot be read, DEL will set it aside: {why}"),
            Found::Record(..) | Found::Nothing => {}
        }
    }
    errors
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
    let Everybodys { networks: everybodys, mut errors, unknown, .. } = everybodys(call, meta, until);
    if let Some(why) = unknown {
        eprintln!(
            "nsm-cni: GC leaves networks alone that are called by name, unless a pod of this host has them: {why}"
        );
    }
    let search = search(&meta.bin_dir);
    let before = Known::read(meta, store);
    let networks = before.networks(&everybodys);
    for (place, network) in networks.iter().enumerate() {
        let until = share(until, networks.len() - place).min(Instant::now() + LONGEST_OF_NETWORK);
        let list = &network.list.name;
        let _gate = match store.collecting(list, until) {
            Ok(gate) => gate,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        // Behind the gate: what was made since is attached too.
        let known = Known::read(meta, store);
        let is_first = known.is_first(&everybodys, list);
        if known.unread && !is_first {
            eprintln!(
                "nsm-cni: GC of network {:?} is left out, as a record cannot be read and its addresses may be in use",
                network.name
            );
            continue;
        }
        let mut all = known.attached(list);
        all.extend(valid.iter().filter(|one| is_first && !all.contains(one)).cloned().collect::<Vec<_>>());
        errors.extend(network.gc(&search, &all, until));
    }
    errors
}

/// What every pod gets. The agent has a part of the time.
fn everybodys(call: &Call, meta: &Meta, until: Instant) -> Everybodys {
    let timeout = meta.timeout.min(share(until, 2).saturating_duration_since(Instant::now()));
    plan::everybodys(call, meta, (Duration::ZERO, timeout))
}

/// What this host knows of networks.
struct Known {
    records: Vec<Record>,
    multus: multus::Pods,
    /// Whether there is more.
    unread: bool,
}

impl Known {
    fn read(meta: &Meta, store: &Store) -> Self {
        let (records, unread) = store.all();
        let multus = multus::pods(&meta.cni_dir, meta.version);
        let unread = unread || multus.unread;
        Self { records, multus, unread }
    }

    /// All networks whose plugins know GC, each list once.
    fn networks<'a>(&'a self, everybodys: &'a [Network]) -> Vec<&'a Network> {
        let mut networks: Vec<&Network> = Vec::new();
        for network in everybodys.iter().chain(self.records.iter().flat_map(|record| &record.networks)) {
            if network.list.has_gc() && !networks.iter().any(|other| other.list == network.list) {
                networks.push(network);
            }
        }
        networks
    }

    /// Whether it is some pod's first network: the runtime's list is about that, also where somebody else's configuration calls itself so,
    /// and pods may have had it before there were records. Of a pod whose end has begun there may be added ones alone.
    fn is_first(&self, everybodys: &[Network], name: &str) -> bool {
        let of_pod = |record: &Record| {
            record.networks.iter().any(|network| network.ifname == record.ifname && network.list.name == name)
        };
        everybodys.iter().any(|network| network.ifname == FIRST && network.list.name == name)
            || self.records.iter().any(of_pod)
    }

    /// All that have a network of that name.
    fn attached(&self, name: &str) -> Vec<Attachment> {
        let ours = self.records.iter().map(|record| (&record.container_id, &record.networks));
        let theirs = self.multus.pods.iter().map(|pod| (&pod.container_id, &pod.networks));
        let all = ours.chain(theirs).flat_map(|(container, networks)| {
            networks.iter().filter(|network| network.list.name == name).map(move |network| (container, network))
        });
        all.map(|(container, network)| Attachment { container_id: container.clone(), ifname: network.ifname.clone() })
            .collect()
    }
}
