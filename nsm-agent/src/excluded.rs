//! Prefixes that no network service may give a pod addresses of: those of the cluster's pods and services, and what the operator names.
//!
//! Guarantees: what is asked of endpoints has at most [`MOST`] prefixes, which cover all of them; a cluster of many nodes has wider ones.
//! Nothing is polled: two watches, of ServiceCIDRs and of nodes' podCIDRs; what was seen last counts while the API server is away. A new
//! choice waits for the first reading, until a little while after the start and never later. What nodes tell again and again (images,
//! conditions) is neither kept nor counted. A prefix that appears later is excluded at the next choice: addresses
//! of a connection that there is do not move.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::{core::v1::Node, networking::v1::ServiceCIDR};
use kube::{
    Api, ResourceExt,
    api::ApiResource,
    core::{NotUsed, Object},
    runtime::watcher::{Config, Event},
};
use nsm_netlink::IpNetwork;
use nsm_proto::connection::Connection;
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    forwarder::kernel::present::{joined, wide},
    kubernetes::{Answer, Failed, Way, watched},
};

/// Most prefixes that a Request gets from here.
pub const MOST: usize = 256;
/// Objects of one page. Nodes are large, and of each little is read.
const PAGE: u32 = 50;
/// How long choices wait for the first reading, from the start on.
const PATIENCE: Duration = Duration::from_secs(2);

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
    /// Until then choices wait for what is not read yet.
    patience: Option<Instant>,
}

/// What of a node, or of a ServiceCIDR, is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
    cidrs: Option<Vec<String>>,
}

/// An object without the rest.
type Trimmed = Object<Spec, NotUsed>;

/// The prefixes of the objects of a kind.
#[derive(Debug, Default)]
struct Seen {
    by_name: HashMap<String, Vec<IpNetwork>>,
    /// While a list is read.
    listed: HashMap<String, Vec<IpNetwork>>,
}

impl Seen {
    /// Answers whether there are other prefixes than before, perhaps.
    fn take(&mut self, event: Event<Trimmed>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(object) => {
                self.listed.insert(object.name_any(), prefixes(&object));
                false
            }
            Event::InitDone => {
                self.by_name = std::mem::take(&mut self.listed);
                true
            }
            Event::Apply(object) => {
                let now = prefixes(&object);
                let before = self.by_name.insert(object.name_any(), now.clone());
                before.unwrap_or_default() != now
            }
            Event::Delete(object) => self.by_name.remove(&object.name_any()).is_some_and(|gone| !gone.is_empty()),
        }
    }

    fn all(&self) -> Vec<IpNetwork> {
        self.by_name.values().flatten().copied().collect()
    }
}

fn prefixes(object: &Trimmed) -> Vec<IpNetwork> {
    let Spec { pod_cidr, pod_cidrs, cidrs } = &object.spec;
    let all = pod_cidr.iter().chain(pod_cidrs.iter().flatten()).chain(cidrs.iter().flatten());
    all.filter_map(|prefix| prefix.parse().ok()).collect()
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
        self.await_reading();
        for (part, kind) in
            [(Part::Services, ApiResource::erase::<ServiceCIDR>(&())), (Part::Nodes, ApiResource::erase::<Node>(&()))]
        {
            let watching = self.clone().watch(Api::all_with(way.client.clone(), &kind), part, kind.plural);
            tasks.spawn(stop.clone().run_until_cancelled_owned(watching));
        }
    }

    fn await_reading(&self) {
        self.0.send_modify(|state| {
            (state.services, state.nodes) = (None, None);
            state.patience = Some(Instant::now() + PATIENCE);
        });
    }

    /// The prefixes, as text.
    pub fn prefixes(&self) -> Arc<[String]> {
        self.0.borrow().text.clone()
    }

    /// Asks for addresses outside of them; waits for the first reading, but not to the end of the call.
    pub(crate) async fn add_to(&self, connection: &mut Connection, remaining: Duration) {
        let mut state = self.0.subscribe();
        let patience = state.borrow().patience;
        if let Some(until) = patience {
            let until = until.min(Instant::now() + remaining / 4);
            let _ = tokio::time::timeout_at(until, state.wait_for(State::read)).await;
        }
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

    async fn watch(self, api: Api<Trimmed>, part: Part, what: String) {
        let mut events = watched(&what, api, Config::default(), PAGE);
        let mut seen = Seen::default();
        while let Some(event) = events.next().await {
            let Failed { why: error, answer, to_be_told } = match event {
                Ok(event) => {
                    if seen.take(event) {
                        self.put(part, seen.all());
                    }
                    continue;
                }
                Err(failed) => failed,
            };
            match answer {
                _ if !to_be_told => {}
                Some(Answer::Missing | Answer::Refused) => {
                    tracing::warn!(error, "the cluster does not tell its prefixes: name them with --excluded-prefix");
                }
                None => tracing::warn!(error, "prefixes of the cluster cannot be read: what was seen last counts"),
            }
            match answer {
                // An API server before 1.33 has no ServiceCIDRs: asking again would not help.
                Some(Answer::Missing) => return self.put(part, Vec::new()),
                // Nobody waits for what may not be read.
                Some(Answer::Refused) => self.put(part, seen.all()),
                None => {}
            }
        }
    }
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
        excluded.await_reading();
        let asked = async |excluded: &Excluded| {
            let mut connection = Connection::default();
            excluded.add_to(&mut connection, Duration::from_mins(1)).await;
            connection.context.unwrap().ip_context.unwrap().excluded_prefixes
        };
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(asked(&excluded).await, ["192.0.2.0/24"], "without a word of the cluster");
        }
        assert_eq!(began.elapsed(), PATIENCE, "the first one waited for all of them");
        excluded.await_reading();
        let waiting = {
            let excluded = excluded.clone();
            tokio::spawn(async move { asked(&excluded).await })
        };
        tokio::task::yield_now().await;
        excluded.put(Part::Services, vec!["10.96.0.0/12".parse().unwrap()]);
        excluded.put(Part::Nodes, Vec::new());
        assert_eq!(waiting.await.unwrap(), ["10.96.0.0/12", "192.0.2.0/24"]);
    }

    #[test]
    fn what_a_node_says_of_other_things_is_no_change() {
        let node = |image: &str, prefix: Option<&str>| -> Trimmed {
            serde_json::from_value(serde_json::json!({
                "metadata": { "name": "a", "resourceVersion": image },
                "spec": { "podCIDR": prefix, "podCIDRs": prefix.map(|prefix| [prefix, "fd00::/64"]), "taints": [] },
                "status": { "images": [{ "names": [image] }] },
            }))
            .unwrap()
        };
        let mut seen = Seen::default();
        assert!(!seen.take(Event::Init) && !seen.take(Event::InitApply(node("x", Some("10.1.0.0/24")))));
        assert!(seen.take(Event::InitDone));
        assert_eq!(seen.all().len(), 3, "the list names the first one again");
        assert!(!seen.take(Event::Apply(node("y", Some("10.1.0.0/24")))));
        assert!(seen.take(Event::Apply(node("y", Some("10.2.0.0/24")))));
        assert!(seen.take(Event::Apply(node("y", None))));
        assert!(!seen.take(Event::Delete(node("z", None))) && seen.all().is_empty());
    }
}
