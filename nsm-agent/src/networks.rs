//! The networks of the node's pods beside its network services: what NetworkAttachmentDefinitions, a pod's annotations and the
//! meta-plugin's configuration make of a pod, and what became of it.
//!
//! Guarantees: nothing is made here, and a plan leaves nothing behind. The API server is asked only for what its watch has not told:
//! a definition that was created a moment ago, or is too big to be kept, and what the devices of a pod's claims are. Every wait is
//! bounded; what cannot be known in time is an answer to try again, never a pod with fewer networks. No pod waits for what is told of it.

mod answer;
mod claims;
mod collect;
mod definitions;
mod devices;
mod given;
mod lost;
mod running;
mod settled;
mod view;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nsm_cni_types::{Command, Stdin};
use nsm_npwg::{Annotations, DEFAULT_NETWORK, Meta, NETWORKS, Planned, Selection};
use nsm_proto::cni::{PlanRequest, PlanResponse, SettledRequest};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

pub use definitions::Definitions;
pub use devices::{Devices, SOCKET};
use settled::Note;
pub use settled::{Made, Settled};

use self::{
    claims::Claims,
    collect::Collector,
    given::{Given, Lacking},
    running::{Running, qualified},
    view::{View, Wanted},
};
use crate::{
    config::Settings,
    host::{Door, Host},
    kubernetes::Way,
    metrics::Metrics,
    pods::{Pods, Reason, Unknown},
    sandboxes::{Sandbox, Sandboxes},
    state::{AttachmentKey, Pod, Records, blocking},
};

/// Longest plan, whatever the plugin says.
const LONGEST: Duration = Duration::from_mins(2);
/// The first interface of a pod that is no particular one.
const FIRST: &str = "eth0";
/// Most times that a plan is made anew because something of it had to be asked first.
const ROUNDS: usize = nsm_npwg::MOST + 4;

/// What plans are made of.
pub struct Networks {
    /// Of the cluster; none: there is no cluster, and every network is a file of the host.
    definitions: Option<Definitions>,
    pods: Option<Arc<Pods>>,
    devices: Devices,
    /// None: there is no cluster, and no claims.
    claims: Option<Claims>,
    settled: Records<Settled>,
    /// Since when ADDs are under way.
    plans: Mutex<HashMap<AttachmentKey, Instant>>,
    since: Instant,
}

impl Networks {
    /// Starts with what the cluster says, if there is one, which is read from now on.
    pub fn start(
        settings: &Settings,
        settled: Records<Settled>,
        cluster: Option<(Way, Arc<Pods>)>,
        sandboxes: &Sandboxes,
        metrics: &Metrics,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> Arc<Self> {
        let of_host = Self::of_host(Devices::at(settings.pod_resources.clone()), settled);
        let networks = Arc::new(match cluster {
            Some((way, pods)) => {
                let claims = Some(Claims::new(way.client.clone(), settings.node_name()));
                let definitions = Some(Definitions::watch(way, tasks, stop));
                Self { definitions, pods: Some(pods), claims, ..of_host }
            }
            None => of_host,
        });
        tasks.spawn(stop.clone().run_until_cancelled_owned(networks.clone().keep(sandboxes.clone())));
        let door = Door::new(Host::of(settings.host_mount_namespace.clone()));
        let collector = Collector::new(sandboxes.clone(), door.clone(), &settings.state_dir);
        tasks.spawn(stop.clone().run_until_cancelled_owned(collector.run()));
        let lost = lost::run(settings.cni_socket.clone(), metrics.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(lost));
        if let Some(pods) = networks.pods.clone() {
            let (tasks, stop) = (tasks.clone(), stop.clone());
            let running = Running::new(networks.clone(), pods, sandboxes.clone(), door, tasks.clone(), stop.clone());
            tasks.spawn(stop.run_until_cancelled_owned(running.run()));
        }
        networks
    }

    /// Without a cluster.
    fn of_host(devices: Devices, settled: Records<Settled>) -> Self {
        let (plans, since) = (Mutex::default(), Instant::now());
        Self { definitions: None, pods: None, devices, claims: None, settled, plans, since }
    }

    /// Plans the networks of a pod that starts.
    ///
    /// # Errors
    /// Why there is none; the code says whether it is worth trying again.
    pub async fn plan(&self, key: &AttachmentKey, asked: PlanRequest) -> Result<PlanResponse, Status> {
        let now = Instant::now();
        // The other half is for the networks themselves.
        let until = now + time(asked.timeout_ms) / 2;
        let meta = read(&asked.configuration).map_err(wrong)?;
        let pod = asked.pod.map(|pod| Pod { name: pod.name, namespace: pod.namespace, uid: pod.uid });
        let pod = pod.filter(|pod| !pod.name.is_empty());
        let annotations = match (asked.annotations, &pod) {
            (Some(given), _) => Annotations::of(|key| match key {
                NETWORKS => Some(&given.networks),
                DEFAULT_NETWORK => Some(&given.default_network),
                _ => None,
            }),
            (None, Some(pod)) => self.annotations(pod, until).await?,
            (None, None) => Annotations::default(),
        };
        let planned = self.plan_for(&meta, &key.ifname, pod.as_ref(), &annotations, until).await;
        let planned = planned.inspect_err(|error| self.tell_refused(pod.as_ref(), error))?;
        let mut asked = Vec::new();
        if let Some(pod) = &pod {
            self.remember(key, now);
            asked = qualified(annotations.added().map_err(Refusal::Plan)?, pod);
        }
        // The annotation's come last.
        let others = planned.len().saturating_sub(asked.len());
        let asked = std::iter::repeat_n(None, others).chain(asked.into_iter().map(Some));
        let noted = |(one, asked): (&Planned, _)| answer::network(one, Note::of(asked, given::of(one)).to_text());
        Ok(PlanResponse { networks: planned.iter().zip(asked).map(noted).collect() })
    }

    /// Plans the networks that every pod gets, for STATUS and GC.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub async fn plan_everybodys(&self, asked: PlanRequest) -> Result<PlanResponse, Status> {
        let until = Instant::now() + time(asked.timeout_ms) / 2;
        let meta = read(&asked.configuration).map_err(wrong)?;
        let plan = |view: &mut View<'_>| [nsm_npwg::plan_everybodys(&meta, FIRST, view)];
        let [planned] = self.resolve(None, BTreeSet::new(), until, plan).await?;
        let planned = planned.map_err(Refusal::Plan)?;
        Ok(PlanResponse { networks: planned.iter().map(|one| answer::network(one, String::new())).collect() })
    }

    /// Keeps since when an ADD is under way until it has settled.
    fn remember(&self, key: &AttachmentKey, now: Instant) {
        let mut plans = self.plans();
        plans.retain(|_, since| since.elapsed() < LONGEST);
        plans.insert(key.clone(), now);
    }

    fn plans(&self) -> MutexGuard<'_, HashMap<AttachmentKey, Instant>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans more networks of a pod that runs, whose networks have these devices; each as it can be.
    async fn plan_added(
        &self,
        meta: &Meta,
        pod: &Pod,
        used: BTreeSet<given::Device>,
        selections: &[Selection],
        until: Instant,
    ) -> Vec<Result<Planned, Refusal>> {
        let plan = |view: &mut View<'_>| nsm_npwg::plan_added(meta, &pod.namespace, selections, view);
        match self.resolve(Some(pod), used, until, plan).await {
            Ok(all) => all.into_iter().map(|one| one.map_err(Refusal::Plan)).collect(),
            Err(refusal) => selections.iter().map(|_| Err(refusal.clone())).collect(),
        }
    }

    /// Plans with these annotations.
    pub(crate) async fn plan_for(
        &self,
        meta: &Meta,
        ifname: &str,
        pod: Option<&Pod>,
        annotations: &Annotations,
        until: Instant,
    ) -> Result<Vec<Planned>, Refusal> {
        let namespace = pod.map(|pod| pod.namespace.as_str()).unwrap_or_default();
        let plan = |view: &mut View<'_>| [nsm_npwg::plan(meta, ifname, namespace, annotations, view)];
        let [planned] = self.resolve(pod, BTreeSet::new(), until, plan).await?;
        planned.map_err(Refusal::Plan)
    }

    /// Makes plans again until all that they need of the cluster is known.
    async fn resolve<T, P: AsRef<[Result<T, nsm_npwg::Error>]>>(
        &self,
        pod: Option<&Pod>,
        used: BTreeSet<given::Device>,
        until: Instant,
        plan: impl Fn(&mut View<'_>) -> P,
    ) -> Result<P, Refusal> {
        if let Some(definitions) = &self.definitions {
            definitions.read(until).await.map_err(Refusal::NotNow)?;
        }
        let mut view = View::new(self.definitions.as_ref(), Given::beside(used));
        for _ in 0..ROUNDS {
            let planned = plan(&mut view);
            match view.wanted(planned.as_ref().iter().filter_map(|one| one.as_ref().err())) {
                Wanted::Nothing => return Ok(planned),
                Wanted::Definitions(wanted) => {
                    let Some(definitions) = &self.definitions else { return Ok(planned) };
                    for (namespace, name) in wanted {
                        let found = definitions.ask(&namespace, &name, until).await.map_err(Refusal::NotNow)?;
                        view.put(namespace, name, found);
                    }
                }
                Wanted::Devices(lacking) => match pod {
                    Some(pod) => self.tell_devices(lacking, pod, &mut view.devices, until).await,
                    None => return Ok(planned),
                },
            }
        }
        Err(Refusal::NotNow("the definitions of its networks change all the time".to_owned()))
    }

    /// Asks what is not known of a pod's devices.
    async fn tell_devices(&self, lacking: Lacking, pod: &Pod, devices: &mut Given, until: Instant) {
        match lacking {
            Lacking::OfPod => devices.put_pod(self.devices.of_pod(pod, until).await),
            Lacking::OfClaims => {
                let of_pod = devices.of_pod().map(|of_pod| of_pod.claims.as_slice()).unwrap_or_default();
                devices.put_claims(match &self.claims {
                    Some(claims) => claims.devices(of_pod, until).await,
                    None => Ok(Vec::new()),
                });
            }
        }
    }

    /// What a pod asks for by itself.
    async fn annotations(&self, pod: &Pod, until: Instant) -> Result<Annotations, Status> {
        let Some(pods) = &self.pods else { return Ok(Annotations::default()) };
        let Pod { name, namespace, uid } = pod;
        pods.networks(pod, until).await.map_err(|unknown| match unknown {
            Unknown::Unseen => Status::not_found(format!(
                "pod \"{namespace}/{name}\" is not known to nsm-agent yet: is it deleted, or the API server away? nothing is attached \
                 until its annotations are known"
            )),
            Unknown::Another(other) => Status::failed_precondition(format!(
                "pod \"{namespace}/{name}\" has uid {other} now, the runtime starts {uid}: expected the pod that there is; the older one \
                 gets no networks any more"
            )),
        })
    }

    /// Takes what the meta-plugin has made, to be told.
    ///
    /// # Errors
    /// The call says something else than it may, or the disk is full.
    pub async fn settle(&self, key: AttachmentKey, asked: SettledRequest) -> Result<(), Status> {
        let record = Settled::read(key, asked).map_err(Status::invalid_argument)?;
        self.plans().remove(&record.key);
        let (pod, told) = (record.pod.clone(), record.told());
        self.put(record).await.map_err(Status::internal)?;
        if let Some(pods) = &self.pods {
            pods.tell(&pod, Reason::AddedInterface, &told);
        }
        Ok(())
    }

    /// Records what a pod has, in the place of what it had in an earlier sandbox.
    async fn put(&self, record: Settled) -> Result<(), String> {
        let earlier = self.settled.select(|one| one.pod == record.pod && one.key != record.key);
        self.settled.put(record).await.map_err(|error| error.to_string())?;
        for one in earlier {
            let _ = self.settled.remove(&one.key).await;
        }
        Ok(())
    }

    /// Forgets what was made in sandboxes that have gone, and takes what was made where nobody asked, until the end.
    async fn keep(self: Arc<Self>, sandboxes: Sandboxes) {
        let mut changes = sandboxes.changes();
        loop {
            // Before the look: a sandbox is recorded before its networks are.
            let (settled, all) = (self.settled.all(), sandboxes.clone());
            if let Ok(all) = blocking(move || all.all()).await {
                let is =
                    |key: &AttachmentKey| all.iter().any(|known| known.record.is_of(&key.container_id, &key.ifname));
                for gone in settled.iter().filter(|one| !is(&one.key)) {
                    let _ = self.settled.remove(&gone.key).await;
                }
                for sandbox in newest(all) {
                    self.take_recorded(&sandbox).await;
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes the networks of a pod that were planned without the agent: the record of its sandbox has them.
    async fn take_recorded(&self, sandbox: &Sandbox) {
        let (key, record) = (sandbox.call(), &sandbox.record);
        if record.networks.is_empty() || record.pod_name.is_empty() || self.settled.get(&key).is_some() {
            return;
        }
        let Pod { name, namespace, uid } = sandbox.pod();
        let pod = Some(nsm_proto::cni::Pod { name, namespace, uid });
        let networks = record.networks.iter().map(settled::as_told).collect();
        let taken = Settled::read(key, SettledRequest { pod, networks, ..SettledRequest::default() });
        let kept = match taken {
            Ok(settled) => self.put(settled).await,
            Err(why) => Err(why),
        };
        if let Err(why) = kept {
            let (pod, namespace) = (&record.pod_name, &record.pod_namespace);
            tracing::warn!(pod, namespace, why, "the networks of a pod are not told in its status");
        }
    }

    /// Says on the pod why it does not start.
    fn tell_refused(&self, pod: Option<&Pod>, refusal: &Refusal) {
        let (Some(pods), Some(pod)) = (&self.pods, pod) else { return };
        pods.tell(pod, refusal.reason(), &format!("the pod does not start: {refusal}"));
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It cannot be made of what is asked.
    #[error("{0}")]
    Plan(#[from] nsm_npwg::Error),
    /// Something that it needs is not known in time.
    #[error("{0}")]
    NotNow(String),
}

impl Refusal {
    /// The event that tells it.
    fn reason(&self) -> Reason {
        match self {
            Self::Plan(nsm_npwg::Error::NoDefinition { .. }) => Reason::NoNetworkFound,
            Self::Plan(_) | Self::NotNow(_) => Reason::NetworkRefused,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        use nsm_npwg::Error;
        let why = refusal.to_string();
        match refusal {
            Refusal::NotNow(_) => Self::unavailable(why),
            Refusal::Plan(Error::Annotation { .. } | Error::Refused { .. }) => Self::invalid_argument(why),
            // Whoever creates it has the pod started by the next try.
            Refusal::Plan(Error::NoDefinition { .. }) => Self::not_found(why),
            Refusal::Plan(Error::Isolated { .. }) => Self::permission_denied(why),
            Refusal::Plan(Error::NoDevice { .. }) => Self::failed_precondition(why),
        }
    }
}

/// The newest sandbox of each pod.
fn newest(mut all: Vec<Arc<Sandbox>>) -> Vec<Arc<Sandbox>> {
    all.sort_by_key(|sandbox| sandbox.since);
    let by_pod: HashMap<(String, String), Arc<Sandbox>> = all
        .into_iter()
        .map(|sandbox| ((sandbox.record.pod_namespace.clone(), sandbox.record.pod_name.clone()), sandbox))
        .collect();
    by_pod.into_values().collect()
}

/// The time of a plan, by its caller's milliseconds.
fn time(milliseconds: u32) -> Duration {
    Duration::from_millis(milliseconds.into()).clamp(Duration::from_secs(1), LONGEST)
}

#[expect(clippy::needless_pass_by_value, reason = "as an argument of map_err")]
fn wrong(error: nsm_cni_types::Error) -> Status {
    Status::invalid_argument(format!("configuration of the meta-plugin: {error}"))
}

fn read(configuration: &str) -> Result<Meta, nsm_cni_types::Error> {
    Meta::parse(&Stdin::parse(configuration.as_bytes(), &Command::Add)?)
}

#[cfg(test)]
mod tests;
