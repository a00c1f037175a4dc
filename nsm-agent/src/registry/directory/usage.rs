//! How much peers have registered.
//!
//! Guarantees: a pod counts as one, whichever of its users registers, as root in a pod can be any of them; on the host each user is one.
//! All together have a bound too, and its last quarter is for those that have little. What is registered already can be renewed.
//! What is the operator's, or another node's, counts for nobody here.

use std::{collections::HashMap, fs::File};

use nsm_fdpass::InodeId;
use nsm_proto::registry::NetworkService;
use prost::Message;

use super::Entry;
use crate::{
    processes::PodUid,
    registry::{Error, Owner},
};

/// Most objects of one peer, and of all.
const OBJECTS: [usize; 2] = [4096, 32_768];
/// Most bytes of one peer's objects, encoded, and of all.
const BYTES: [usize; 2] = [8 << 20, 64 << 20];
/// Most endpoints of one peer that keep files open here, and of all: their sockets, their network namespaces, their processes.
const OPEN: [usize; 2] = [256, 4096];
/// Files of such an endpoint, for which this process may need room at the same time.
const FILES: usize = 8;
/// Of the last quarter nobody has more than this part of what one may have.
const FEW: usize = 64;
/// How much the encoded times of an object may vary.
const TIMES: usize = 32;

/// Whom an object counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::registry) enum Account {
    /// All of a network namespace: a pod.
    Netns(InodeId),
    /// A user of the agent's own network namespace.
    User(u32),
    /// A pod there.
    PodOfHost(PodUid),
}

/// What one object takes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Size {
    pub(in crate::registry) bytes: usize,
    /// Whether it keeps files open.
    pub(in crate::registry) open: bool,
}

impl Size {
    pub(in crate::registry) fn of_service(service: &NetworkService) -> Self {
        Self { bytes: service.encoded_len(), open: false }
    }

    pub(in crate::registry) fn of_endpoint(entry: &Entry) -> Self {
        Self { bytes: entry.message.encoded_len(), open: entry.netns.is_some() || entry.reach.is_open() }
    }
}

/// What there is of something.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    objects: usize,
    bytes: usize,
    open: usize,
}

impl Sum {
    fn add(&mut self, size: Size) {
        self.objects += 1;
        self.bytes += size.bytes;
        self.open += usize::from(size.open);
    }

    fn take(&mut self, size: Size) {
        self.objects -= 1;
        self.bytes -= size.bytes;
        self.open -= usize::from(size.open);
    }
}

/// All that peers have registered.
#[derive(Debug)]
pub(super) struct Usage {
    own_netns: Option<InodeId>,
    most_open: usize,
    by: HashMap<Account, Sum>,
    all: Sum,
}

impl Default for Usage {
    fn default() -> Self {
        let own_netns = File::open("/proc/self/ns/net").and_then(InodeId::of).ok();
        let most_open = (nsm_fdpass::file_limit() / FILES).min(OPEN[1]);
        Self { own_netns, most_open, by: HashMap::new(), all: Sum::default() }
    }
}

impl Usage {
    /// `None`: what is counted for nobody.
    pub(super) fn account(&self, owner: Owner) -> Option<Account> {
        match owner {
            Owner::Peer { netns, uid } if Some(netns) == self.own_netns => Some(Account::User(uid)),
            Owner::Peer { netns, .. } => Some(Account::Netns(netns)),
            Owner::PodOfHost(pod) => Some(Account::PodOfHost(pod)),
            Owner::Operator | Owner::Elsewhere | Owner::Departed => None,
        }
    }

    pub(super) fn add(&mut self, owner: Owner, size: Size) {
        let Some(account) = self.account(owner) else { return };
        self.by.entry(account).or_default().add(size);
        self.all.add(size);
    }

    pub(super) fn take(&mut self, owner: Owner, size: Size) {
        let Some(account) = self.account(owner) else { return };
        let Some(sum) = self.by.get_mut(&account) else { return };
        sum.take(size);
        if *sum == Sum::default() {
            self.by.remove(&account);
        }
        self.all.take(size);
    }

    /// Whether the owner may have this object, in the place of another.
    pub(super) fn check(&self, owner: Owner, size: Size, before: Option<(Owner, Size)>) -> Result<(), Error> {
        let Some(account) = self.account(owner) else { return Ok(()) };
        let (mut own, mut all) = (self.by.get(&account).copied().unwrap_or_default(), self.all);
        if let Some((of, old)) = before
            && self.account(of) == Some(account)
        {
            if size.bytes <= old.bytes + TIMES && (old.open || !size.open) {
                return Ok(());
            }
            own.take(old);
            all.take(old);
        }
        own.add(size);
        all.add(size);
        for (what, have, most, together, in_all) in [
            ("objects", own.objects, OBJECTS[0], all.objects, OBJECTS[1]),
            ("bytes", own.bytes, BYTES[0], all.bytes, BYTES[1]),
            ("endpoints", own.open, OPEN[0].min(self.most_open / 2), all.open, self.most_open),
        ] {
            let few = together > in_all - in_all / 4;
            let most = if few { most / FEW } else { most };
            if have > most {
                return Err(Error::TooMuch { owner, what, have, most });
            }
            if together > in_all {
                return Err(Error::Full { what, most: in_all });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ino: u64, uid: u32) -> Owner {
        Owner::Peer { netns: InodeId { dev: 4, ino }, uid }
    }

    fn plain(bytes: usize) -> Size {
        Size { bytes, open: false }
    }

    fn is_full(usage: &Usage, owner: Owner, size: Size) -> bool {
        matches!(usage.check(owner, size, None), Err(Error::TooMuch { .. } | Error::Full { .. }))
    }

    #[test]
    fn a_pod_is_one_whichever_of_its_users_registers() {
        let mut usage = Usage::default();
        for number in 0..OBJECTS[0] {
            usage.add(pod(2, u32::try_from(number).unwrap()), plain(1));
        }
        assert!(is_full(&usage, pod(2, 70_000), plain(1)), "another user, the same pod");
        assert!(!is_full(&usage, pod(3, 0), plain(1)));
        assert!(!is_full(&usage, Owner::Operator, plain(BYTES[0] + 1)));
        assert!(is_full(&usage, pod(3, 0), plain(BYTES[0] + 1)));
    }

    #[test]
    fn what_is_registered_can_be_renewed_and_counts_once() {
        let mut usage = Usage::default();
        let (owner, most) = (pod(2, 0), plain(BYTES[0]));
        usage.add(owner, most);
        assert!(is_full(&usage, owner, plain(1)));
        assert!(usage.check(owner, most, Some((owner, most))).is_ok());
        usage.take(owner, most);
        assert_eq!((usage.by.len(), usage.all), (0, Sum::default()));
    }

    #[test]
    fn files_of_endpoints_are_few_and_those_of_all_leave_some() {
        let mut usage = Usage { most_open: OPEN[1], ..Usage::default() };
        let open = Size { bytes: 1, open: true };
        let mut greedy = 0;
        while usage.all.open < OPEN[1] * 3 / 4 {
            greedy += 1;
            while !is_full(&usage, pod(greedy, 0), open) {
                usage.add(pod(greedy, 0), open);
            }
            assert!(usage.by.values().all(|sum| sum.open <= OPEN[0]));
        }
        assert!(is_full(&usage, pod(greedy, 0), open));
        assert!(!is_full(&usage, pod(greedy + 1, 0), open), "one that has none gets some");
    }
}
