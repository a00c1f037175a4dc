//! One agent: its parts in the order in which they start, and the other way round when it stops.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use nsm_fdpass::{Permissions, bind};
use nsm_netlink::Netlink;
use nsm_proto::{
    admin::admin_server::AdminServer,
    cni::cni_server::CniServer,
    registry::{
        network_service_endpoint_registry_server::NetworkServiceEndpointRegistryServer,
        network_service_registry_server::NetworkServiceRegistryServer,
    },
};
use nsm_sdk::{connect::Peers, limits, monitor::Monitor, serve::Serve, token::Unsigned};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::InterceptorLayer, transport::Server as Tonic};
use tower::{filter::AsyncFilterLayer, util::MapRequestLayer};

use crate::{
    admin::Admin,
    annotations::{Elsewhere, Nowhere},
    arrival::in_time,
    attach::{self, Engine},
    cni,
    config::{RegistryKind, Settings},
    excluded::Excluded,
    forwarder::{Forwarders, kernel::Kernel},
    http,
    identified::Identified,
    install::Installer,
    kubernetes,
    manager::{Endpoints, Ids, Manager, Owed, Parts, Recovered, recover},
    metrics::Metrics,
    networks::{Networks, Settled},
    node::{Tests, ThisNode},
    notes,
    pods::{Pods, With},
    privileges::is_operator,
    registry::{self, Embedded, Kubernetes, Registrar, Registry, Rivals},
    sandboxes::{Known, Namespaces, Sandboxes},
    selftest::SelfTest,
    share::{CALLS, CALLS_IN_ALL, InFlight, MONITORS_IN_ALL, Shares, WATCHES},
    state::{self, Connected, Hold, Records, blocking},
};

/// Longest life of a registration that nobody renews.
const REGISTRATION: Duration = Duration::from_mins(1);

/// Most calls and watches on one socket: a peer that wants more opens another, and those are counted.
const STREAMS: u32 = 256;

/// How long a peer may say nothing before it is asked whether it lives, and then again before its socket is closed.
const ALIVE: Duration = Duration::from_secs(30);

/// A running agent.
pub struct Agent {
    settings: Settings,
    ids: Arc<Ids>,
    manager: Manager,
    registry: Arc<Registrar>,
    cni: cni::Server,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// The run directory is ours to the end.
    _held: Hold,
}

/// The records of one run directory.
struct Stored {
    connections: Records<Connected>,
    attachments: Records<state::Attachment>,
    pod_adds: Records<state::PodAdd>,
    inherited: Records<state::Inherited>,
    settled: Records<Settled>,
    owed: Records<crate::manager::OwedClose>,
}

/// What plugin and agent tell each other in folders beside the socket.
struct Host {
    notes: notes::Folder,
    sandboxes: Sandboxes,
    namespaces: Namespaces,
}

impl Host {
    fn open(cni_socket: &std::path::Path) -> std::io::Result<Self> {
        Ok(Self {
            notes: notes::Folder::open(cni_socket)?,
            sandboxes: Sandboxes::open(cni_socket)?,
            namespaces: Namespaces::open(cni_socket)?,
        })
    }

    /// Which pods are known.
    fn pods(&self, attachments: Records<state::Attachment>, watched: Option<Arc<Pods>>) -> Arc<dyn registry::Pods> {
        Arc::new(Known { attachments, sandboxes: self.sandboxes.clone(), watched })
    }
}

impl Agent {
    /// Starts an agent: recovers, then serves. It serves when this returns.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let boot_id = state::boot_id()?;
        let (run_dir, boot) = (settings.run_dir.clone(), boot_id.clone());
        // The sockets first: a second agent must not touch what the first one works with.
        let (cni_socket, nsm_socket) = bind_sockets(&settings)?;
        let (held, stored) =
            blocking(move || Ok::<_, state::Error>((Hold::take(&run_dir)?, load(&run_dir, &boot)?))).await?;
        let netlink = blocking(Netlink::open).await.context("cannot talk to the kernel")?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let way = match settings.registry {
            RegistryKind::Embedded => None,
            RegistryKind::Kubernetes => Some(kubernetes::connect(settings.kubeconfig.as_deref()).await?),
        };
        let cni_path = settings.cni_socket.clone();
        let host = blocking(move || Host::open(&cni_path)).await.context("folders beside the CNI socket")?;
        let (name, metrics) = (settings.node_name(), Metrics::new());
        let watch = |way| Pods::watch(way, name.clone(), host.namespaces.clone(), metrics.clone(), &tasks, &stop);
        let watched_pods = way.clone().map(watch);
        let pods = host.pods(stored.attachments.clone(), watched_pods.clone());
        let Host { notes, sandboxes, namespaces } = host;
        let rivals = Rivals::default();
        let registry = Arc::new(open_registry(&settings, &boot_id, way.clone(), pods.clone(), rivals.clone()).await?);
        let excluded = excluded(&settings, way.as_ref(), &tasks, &stop);
        let peers = Peers::new();
        let life = Duration::from_secs(settings.max_token_lifetime_seconds);
        let ids = Ids::new(&boot_id, netlink.netns().id());
        let endpoints = Endpoints::new(registry.directory().clone(), peers.clone(), name.clone());
        let forwarders = Arc::new(Forwarders::new(Kernel::new(netlink.clone())));
        let monitor = Monitor::guarded(guard(ids.clone()));
        let owed = Owed::new(stored.owed, life);
        let manager = Manager::new(Parts {
            name: name.clone(),
            ids: ids.clone(),
            endpoints,
            pods,
            excluded: excluded.clone(),
            peers,
            tokens: Arc::new(Unsigned::new(format!("spiffe://nsm.local/agent/{name}")).lifetime(life)),
            connections: stored.connections.clone(),
            attachments: stored.attachments,
            forwarders,
            owed: owed.clone(),
            monitor,
            metrics: metrics.clone(),
        });
        let Recovered { whole, undone, forgotten } = recover(&manager).await;
        tracing::info!(whole, undone, forgotten, owed = owed.len(), "recovered");
        let engine = Engine::new(attach::Parts {
            manager: manager.clone(),
            netlink: netlink.clone(),
            node_labels: node_labels(&settings),
            notes: notes.clone(),
            sandboxes: sandboxes.clone(),
            pod_adds: stored.pod_adds,
            inherited: stored.inherited,
        });
        let healer = manager.start(&netlink, metrics.clone(), Arc::new(engine.clone()), &tasks, &stop);
        let selftest = SelfTest::new(netlink.clone(), settings.run_dir.clone());
        for problem in selftest.problems().await {
            tracing::error!(problem, "self-test failed: no ADD can be served until this is mended");
        }
        engine.recover().await;
        if way.is_none() {
            // Nobody writes more than there is.
            namespaces.complete()?;
        }
        let plugins = cni::plugins::Plugins::default();
        let elsewhere = elsewhere(watched_pods.clone());
        let cluster = way.clone().zip(watched_pods.clone());
        let settled = stored.settled.clone();
        let networks = Networks::start(&settings, settled, cluster, &sandboxes, &metrics, (&tasks, &stop));
        let server = cni::Server::new(cni::Parts {
            engine: engine.clone(),
            selftest: selftest.clone(),
            metrics: metrics.clone(),
            plugins: plugins.clone(),
            namespaces,
            elsewhere,
            networks,
        });
        let installer = Installer::new(&settings.install());
        let tests = Tests { selftest: selftest.clone(), installed: installer.installed(), rivals };
        let node =
            Arc::new(ThisNode::new(&settings, manager.clone(), healer.clone(), tests.clone(), plugins, &netlink));
        let directory = registry.directory().clone();
        let shown = http::Shown { metrics, tests, connections: stored.connections, owed, directory };
        show(settings.metrics, shown, &tasks, &stop).await?;
        let agent = Self { settings, ids, manager, registry, cni: server, stop, tasks, _held: held };
        let owed_dels = notes.watch();
        agent.serve(cni_socket, nsm_socket, node).await;
        if let Some((pods, way)) = watched_pods.zip(way) {
            let (tasks, stop) = (agent.tasks.clone(), agent.stop.clone());
            pods.follow(With { engine: engine.clone(), healer, settled: stored.settled, way, tasks, stop });
        }
        agent.tasks.spawn(engine.clone().work_off_notes(owed_dels, agent.stop.clone()));
        agent.tasks.spawn(engine.keep_pruned(agent.stop.clone()));
        agent.tasks.spawn(sandboxes.run(agent.stop.clone()));
        // The last: from then on the runtime calls.
        agent.tasks.spawn(installer.run(selftest, agent.stop.clone()));
        Ok(agent)
    }

    async fn serve(&self, cni_socket: nsm_fdpass::Socket, nsm_socket: nsm_fdpass::Socket, node: Arc<ThisNode>) {
        let registry: Arc<dyn Registry> = self.registry.clone();
        let (health, health_service) = tonic_health::server::health_reporter();
        for service in [
            "networkservice.NetworkService",
            "connection.MonitorConnection",
            "registry.NetworkServiceRegistry",
            "registry.NetworkServiceEndpointRegistry",
        ] {
            health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
        }
        let services = registry::services::NetworkServices::new(registry.clone(), self.ids.clone());
        let endpoints = registry::services::Endpoints::new(registry.clone(), self.ids.clone());
        let nsm = Tonic::builder()
            .max_concurrent_streams(STREAMS)
            .http2_keepalive_interval(Some(ALIVE))
            .http2_keepalive_timeout(Some(ALIVE))
            .layer(MapRequestLayer::new(in_time))
            .layer(AsyncFilterLayer::new(Identified::new(self.ids.clone(), self.settings.registry)))
            .layer(InterceptorLayer::new(counted(self.ids.clone())))
            .add_service(Serve::new(self.manager.serving.clone()))
            .add_service(self.manager.monitor.server())
            .add_service(NetworkServiceRegistryServer::new(services).max_decoding_message_size(limits::MESSAGE))
            .add_service(
                NetworkServiceEndpointRegistryServer::new(endpoints).max_decoding_message_size(limits::MESSAGE),
            )
            .add_service(health_service);
        let cni = Tonic::builder()
            .layer(InterceptorLayer::new(root_only))
            .add_service(CniServer::new(self.cni.clone()).max_decoding_message_size(limits::MESSAGE))
            .add_service(AdminServer::new(Admin::new(registry, node)).max_decoding_message_size(limits::MESSAGE));
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let served = nsm.serve_with_incoming_shutdown(nsm_socket.incoming(), stop.cancelled_owned()).await;
            ended("NSM", served);
        });
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let served = cni.serve_with_incoming_shutdown(cni_socket.incoming(), stop.cancelled_owned()).await;
            ended("CNI", served);
        });
    }

    /// Ends what is under way, at most for the time of the settings. Connections stay.
    pub async fn stop(self) {
        let bound = Duration::from_secs(self.settings.shutdown_seconds);
        self.stop.cancel();
        self.cni.drain(tokio::time::Instant::now() + bound).await;
        self.manager.drain(bound).await;
        self.registry.shutdown().await;
        self.tasks.close();
        if tokio::time::timeout(bound, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "some peers did not let go of their calls in time");
        }
    }
}

/// Serves what there is to be seen, if somebody wants to see it.
async fn show(
    address: Option<std::net::SocketAddr>,
    shown: http::Shown,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if let Some(address) = address {
        let listener = http::bind(address).await?;
        tasks.spawn(http::serve(listener, shown, stop.clone()));
    }
    Ok(())
}

/// The private socket, which is root's alone, and the one of clients and endpoints.
fn bind_sockets(settings: &Settings) -> anyhow::Result<(nsm_fdpass::Socket, nsm_fdpass::Socket)> {
    let cni = bind(&settings.cni_socket, Permissions { mode: 0o600, uid: None, gid: None })?;
    let (uid, gid) = (settings.nsm_socket_owner, settings.nsm_socket_group);
    let nsm = bind(&settings.nsm_socket, Permissions { mode: settings.nsm_socket_mode, uid, gid })?;
    Ok((cni, nsm))
}

/// Prefixes that no network service gives addresses of.
fn excluded(
    settings: &Settings,
    way: Option<&kubernetes::Way>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Excluded {
    let excluded = Excluded::new(settings.excluded_prefix.clone());
    if let Some(way) = way {
        excluded.follow(way, tasks, stop);
    }
    excluded
}

/// Who knows annotations besides the runtime.
fn elsewhere(pods: Option<Arc<Pods>>) -> Arc<dyn Elsewhere> {
    match pods {
        Some(pods) => pods,
        None => Arc::new(Nowhere),
    }
}

async fn open_registry(
    settings: &Settings,
    boot_id: &str,
    way: Option<kubernetes::Way>,
    pods: Arc<dyn registry::Pods>,
    rivals: Rivals,
) -> anyhow::Result<Registrar> {
    let access = settings.service_access;
    match way {
        None => {
            let embedded = registry::Settings {
                dir: settings.state_dir.clone(),
                boot_id: boot_id.to_owned(),
                max_life: REGISTRATION,
                access,
            };
            Ok(Embedded::open(embedded, pods).await?)
        }
        Some(way) => {
            let kubernetes = registry::KubernetesSettings {
                namespace: settings.namespace.clone(),
                node: settings.node_name().into(),
                boot_id: boot_id.to_owned(),
                lease: Duration::from_secs(settings.lease_seconds),
                max_life: REGISTRATION,
                access,
                rivals,
            };
            Ok(Kubernetes::open(way, kubernetes, pods))
        }
    }
}

/// For root, and the user that this agent runs as, whatever became of the mode of the socket's file.
fn root_only(request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
    let uid = request.extensions().get::<nsm_fdpass::Connection>().map(|socket| socket.peer.uid);
    match uid {
        Some(uid) if is_operator(uid) => Ok(request),
        Some(uid) => Err(tonic::Status::permission_denied(format!(
            "user {uid} may not use the agent's private socket: it is for root"
        ))),
        None => Err(tonic::Status::internal("this call did not come over the agent's socket")),
    }
}

fn ended(socket: &str, served: Result<(), tonic::transport::Error>) {
    if let Err(error) = served {
        tracing::error!(socket, %error, "socket is not served any more");
    }
}

fn load(run_dir: &std::path::Path, boot_id: &str) -> Result<Stored, state::Error> {
    let (connections, mut found) = Records::open(run_dir, boot_id)?;
    let (attachments, of_attachments) = Records::open(run_dir, boot_id)?;
    let (pod_adds, of_pod_adds) = Records::open(run_dir, boot_id)?;
    let (inherited, of_inherited) = Records::open(run_dir, boot_id)?;
    let (settled, of_settled) = Records::open(run_dir, boot_id)?;
    let (owed, of_owed) = Records::open(run_dir, boot_id)?;
    for more in [of_attachments, of_pod_adds, of_inherited, of_settled, of_owed] {
        found.damaged.extend(more.damaged);
        found.earlier_boot += more.earlier_boot;
    }
    for path in &found.damaged {
        tracing::error!(path = %path.display(), "a record could not be read and was set aside");
    }
    if found.earlier_boot > 0 {
        tracing::info!(records = found.earlier_boot, "records of an earlier boot forgotten");
    }
    Ok(Stored { connections, attachments, pod_adds, inherited, settled, owed })
}

fn node_labels(settings: &Settings) -> BTreeMap<String, String> {
    let cluster = settings.cluster_name.clone().map(|name| ("clusterName".to_owned(), name));
    [("nodeName".to_owned(), settings.node_name())].into_iter().chain(cluster).collect()
}

/// Gives each call a place among its peer's, until its message is there: a message takes memory while it comes. What works for a
/// registry call longer than that holds the place too ([`InFlight`]).
fn counted(
    ids: Arc<Ids>,
) -> impl Fn(tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> + Clone + Send + Sync + 'static {
    let shares = Shares::new("calls", CALLS).in_all(CALLS_IN_ALL);
    move |mut request| {
        let owner = ids.owner_of(&socket(&request)?.peer)?;
        let share = ids.share(&owner, &shares)?;
        request.extensions_mut().insert(InFlight::of(share));
        Ok(request)
    }
}

fn socket<T>(request: &tonic::Request<T>) -> Result<&nsm_fdpass::Connection, tonic::Status> {
    let socket = request.extensions().get::<nsm_fdpass::Connection>();
    socket.ok_or_else(|| tonic::Status::internal("this call did not come over the agent's socket"))
}

/// A watcher sees its own connections; root on the host sees all.
fn guard(
    ids: Arc<Ids>,
) -> impl Fn(&tonic::Request<nsm_proto::connection::MonitorScopeSelector>) -> Result<nsm_sdk::monitor::Filter, tonic::Status>
+ Send
+ Sync
+ 'static {
    let shares = Shares::new("watches of connections", WATCHES).in_all(MONITORS_IN_ALL);
    move |request| {
        let watcher = ids.owner_of(&socket(request)?.peer)?;
        let share = ids.share(&watcher, &shares)?;
        let ids = ids.clone();
        Ok(Arc::new(move |connection| {
            let _held = &share;
            ids.acts_for_others(&watcher) || ids.belongs(connection, &watcher)
        }))
    }
}
