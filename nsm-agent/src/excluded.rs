//! Prefixes that no network service may give a pod addresses of: those of the cluster's pods and services, and what the operator names.
//!
//! Guarantees: what is asked of endpoints has at most [`MOST`] prefixes, which cover all of them; a cluster of many nodes has wider ones.
//! Nothing is polled: two watches, of ServiceCIDRs and of nodes' podCIDRs; what was seen last counts while the API server is away. A new
//! choice waits for the first reading, a little while. A prefix that appears later is excluded at the next choice: addresses
//! of a connection that there is do not move.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::{core::v1::Node, networking::v1::ServiceCIDR};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event},
    },
};
use nsm_netlink::IpNetwork;
use nsm_proto::connection::Connection;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    forwarder::kernel::present::{joined, wide},
    kubernetes::{Way, chain},
};

/// Most prefixes that a Request gets from here.
pub const MOST: usize = 256;
/// Objects of one page. Nodes are large, and of each little is kept.
const PAGE: u32 = 50;
/// How long a choice waits for the first reading.
const PATIENCE: Duration = Duration::from_secs(2);
/// Shortest time between two lines of the log about a watch that does not work.
const QUIET: Duration = Duration::from_secs(30);

/// The prefixes. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Excluded(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Default)]
struct State {
    own: Vec<IpNetwork>,
    /// None: not read yet.
    services: Option<Vec<IpNetwork>>,
    nodes: Option<Vec<IpNetwork>>,
    text: Arc<[String]>,
}

/// What of the cluster is read.
#[derive(Debug, Clone, Copy)]
enum Part {
    Services,
    Nodes,
}

impl State {
    fn read(&self) -> bool {
        self.services.is_some() && self.nodes.is_some()
    }

    fn part(&mut self, part: Part) -> &mut Option<Vec<IpNetwork>> {
        match part {
            Part::Services => &mut self.services,
            Part::Nodes => &mut self.nodes,
        }
    }

    fn joined(&self) -> Arc<[String]> {
        let all = [Some(&self.own), self.services.as_ref(), self.nodes.as_ref()];
        cover(all.into_iter().flatten().flatten().copied(), MOST).iter().map(ToString::to_string).collect()
    }
}

impl Excluded {
    /// These, and nothing of a cluster.
    pub fn new(own: Vec<IpNetwork>) -> Self {
        let mut state = State { own, services: Some(Vec::new()), nodes: Some(Vec::new()), ..State::default() };
        state.text = state.joined();
        Self(Arc::new(watch::Sender::new(state)))
    }

    /// The cluster's too, from now on.
    pub fn follow(&self, way: &Way, tasks: &TaskTracker, stop: &CancellationToken) {
        self.0.send_modify(|state| (state.services, state.nodes) = (None, None));
        let services =
            |found: &ServiceCIDR| found.spec.as_ref().and_then(|spec| spec.cidrs.clone()).unwrap_or_default();
        let of_services = self.clone().watch(Api::all(way.client.clone()), Part::Services, services);
        tasks.spawn(stop.clone().run_until_cancelled_owned(of_services));
        let nodes = |found: &Node| {
            let spec = found.spec.as_ref();
            let one = spec.and_then(|spec| spec.pod_cidr.clone());
            let all = spec.map(|spec| spec.pod_cidrs.clone().unwrap_or_default()).unwrap_or_default();
            one.into_iter().chain(all).collect()
        };
        let of_nodes = self.clone().watch(Api::all(way.client.clone()), Part::Nodes, nodes);
        tasks.spawn(stop.clone().run_until_cancelled_owned(of_nodes));
    }

    /// The prefixes, as text.
    pub fn prefixes(&self) -> Arc<[String]> {
        self.0.borrow().text.clone()
    }

    /// Asks for addresses outside of them; waits for the first reading, but not to the end of the call.
    pub(crate) async fn add_to(&self, connection: &mut Connection, remaining: Duration) {
        let mut state = self.0.subscribe();
        let _ = tokio::time::timeout(PATIENCE.min(remaining / 4), state.wait_for(State::read)).await;
        let prefixes = self.prefixes();
        if prefixes.is_empty() {
            return;
        }
        let context = connection.context.get_or_insert_default().ip_context.get_or_insert_default();
        let there: BTreeSet<String> = context.excluded_prefixes.iter().cloned().collect();
        context.excluded_prefixes.extend(prefixes.iter().filter(|prefix| !there.contains(*prefix)).cloned());
    }

    fn put(&self, part: Part, prefixes: Vec<IpNetwork>) {
        self.0.send_if_modified(|state| {
            let before = state.text.clone();
            let first = state.part(part).replace(prefixes).is_none();
            state.text = state.joined();
            if state.text != before {
                tracing::info!(prefixes = ?state.text, "addresses of the cluster are excluded from network services");
            }
            first || state.text != before
        });
    }

    async fn watch<K>(self, api: Api<K>, part: Part, cidrs: fn(&K) -> Vec<String>)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let mut events = watcher::watcher(api, Config::default().page_size(PAGE)).default_backoff().boxed();
        let (mut seen, mut listed, mut listing) = (HashMap::new(), HashMap::new(), true);
        let mut last_line: Option<Instant> = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => {
                    listed.clear();
                    listing = true;
                }
                Ok(Event::InitApply(object)) => drop(listed.insert(object.name_any(), parsed(&cidrs(&object)))),
                Ok(Event::InitDone) => {
                    seen = std::mem::take(&mut listed);
                    listing = false;
                }
                Ok(Event::Apply(object)) => drop(seen.insert(object.name_any(), parsed(&cidrs(&object)))),
                Ok(Event::Delete(object)) => drop(seen.remove(&object.name_any())),
                Err(error) => {
                    if last_line.is_none_or(|last| last.elapsed() > QUIET) {
                        last_line = Some(Instant::now());
                        let (what, error) = (K::plural(&()), chain(&error));
                        tracing::warn!(%what, error, "the cluster does not tell its prefixes: name them with --excluded-prefix");
                    }
                    // An API server before 1.33 has no ServiceCIDRs: asking again would not help.
                    if is_missing(&error) {
                        return self.put(part, Vec::new());
                    }
                    // Nobody waits for what may not be read.
                    listing &= !is_refused(&error);
                }
            }
            if !listing {
                self.put(part, seen.values().flatten().copied().collect());
            }
        }
    }
}

fn answered(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

fn is_missing(error: &watcher::Error) -> bool {
    answered(error) == Some(404)
}

fn is_refused(error: &watcher::Error) -> bool {
    answered(error) == Some(403)
}

fn parsed(cidrs: &[String]) -> Vec<IpNetwork> {
    cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect()
}

/// At most `most` prefixes that cover all of these: the narrowest give way to wider ones, a bit at a time.
fn cover(prefixes: impl Iterator<Item = IpNetwork>, most: usize) -> Vec<IpNetwork> {
    let mut made = joined(&prefixes.collect::<Vec<_>>());
    // In bits of IPv6; an IPv4 prefix has as many bits left to lose.
    for bits in (16..128_u8).rev() {
        if made.len() <= most {
            break;
        }
        let limit = |prefix: &IpNetwork| if prefix.is_ipv4() { (bits / 4).max(4) } else { bits };
        let wider = |prefix: &IpNetwork| wide(prefix, prefix.prefix().min(limit(prefix)));
        made = joined(&made.iter().filter_map(wider).collect::<Vec<_>>());
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(prefixes: &[&str], most: usize) -> Vec<String> {
        cover(prefixes.iter().map(|prefix| prefix.parse().unwrap()), most).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_covered_is_said_once_and_halves_are_one() {
        assert_eq!(
            covered(&["10.96.3.0/12", "10.244.1.0/24", "10.244.0.0/24", "10.96.0.0/16"], 9),
            ["10.96.0.0/12", "10.244.0.0/23"]
        );
        assert_eq!(
            covered(&["fd00::1:0/112", "fd00::0/112", "10.0.0.0/8", "10.1.0.0/16"], 9),
            ["10.0.0.0/8", "fd00::/111"]
        );
        let nodes: Vec<String> = (0..256).map(|node| format!("10.244.{node}.0/24")).collect();
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        assert_eq!(covered(&nodes, 9), ["10.244.0.0/16"]);
    }

    #[test]
    fn of_too_many_wider_ones_are_made_that_cover_them_all() {
        let sparse: Vec<String> = (0..200).map(|node| format!("10.{}.{}.0/24", node, node * 7 % 250)).collect();
        let all: Vec<IpNetwork> = sparse.iter().map(|prefix| prefix.parse().unwrap()).collect();
        let made = cover(all.iter().copied(), 50);
        assert!(made.len() <= 50 && made.iter().all(|made| made.prefix() >= 8), "{made:?}");
        assert!(all.iter().all(|one| made.iter().any(|made| made.contains(one.network()))), "{made:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_choice_waits_for_the_first_reading_and_not_for_ever() {
        let excluded = Excluded::new(vec!["192.0.2.0/24".parse().unwrap()]);
        excluded.0.send_modify(|state| (state.services, state.nodes) = (None, None));
        let asked = async |excluded: &Excluded| {
            let mut connection = Connection::default();
            excluded.add_to(&mut connection, Duration::from_mins(1)).await;
            connection.context.unwrap().ip_context.unwrap().excluded_prefixes
        };
        assert_eq!(asked(&excluded).await, ["192.0.2.0/24"], "without a word of the cluster");
        let waiting = {
            let excluded = excluded.clone();
            tokio::spawn(async move { asked(&excluded).await })
        };
        tokio::task::yield_now().await;
        excluded.put(Part::Services, vec!["10.96.0.0/12".parse().unwrap()]);
        excluded.put(Part::Nodes, Vec::new());
        assert_eq!(waiting.await.unwrap(), ["10.96.0.0/12", "192.0.2.0/24"]);
    }
}
