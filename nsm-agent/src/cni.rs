//! The CNI server: what `nsm-cni` asks for, on the root-only socket.
//!
//! Guarantees: operations on one attachment run one after another, and DEL calls off an ADD that is under way. Each runs in a
//! task of its own, so that a plugin that is killed cannot cut it in half; an ADD whose plugin has gone is undone. DEL is
//! harmless whatever is missing.

mod add;
mod check;
mod gc;
pub mod plugins;
mod pod;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nsm_cni_types::Mechanism;
use nsm_proto::cni::{self, cni_server};
use nsm_sdk::serve::Connection as Socket;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use crate::{
    annotations::Elsewhere,
    attach::Engine,
    manager::Slot,
    metrics::{Metrics, Operation},
    networks::Networks,
    sandboxes::Namespaces,
    selftest::SelfTest,
    state::AttachmentKey,
};

/// What the server needs of the agent.
pub struct Parts {
    /// What makes attachments.
    pub engine: Engine,
    /// For STATUS.
    pub selftest: SelfTest,
    /// Counts and durations.
    pub metrics: Metrics,
    /// Who calls.
    pub plugins: plugins::Plugins,
    /// The namespaces whose annotations ask.
    pub namespaces: Namespaces,
    /// Who knows the annotations of pods that the runtime does not give.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// What plans the networks of pods.
    pub networks: Arc<Networks>,
}

/// The server. Clones share it.
#[derive(Clone)]
pub struct Server {
    parts: Arc<Parts>,
    tasks: TaskTracker,
}

impl Server {
    /// Serves with these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), tasks: TaskTracker::new() }
    }

    /// Waits for what is under way, at most until `deadline`.
    pub async fn drain(&self, deadline: tokio::time::Instant) {
        self.tasks.close();
        let _ = tokio::time::timeout_at(deadline, self.tasks.wait()).await;
    }

    /// Runs an ADD, which is called off by a DEL, or when the plugin hangs up.
    async fn adding<W, R>(
        &self,
        key: AttachmentKey,
        started: Instant,
        work: W,
    ) -> Result<Response<cni::AddResponse>, Status>
    where
        W: FnOnce(Self, Adding) -> R + Send + 'static,
        R: Future<Output = Result<cni::AddResponse, Status>> + Send + 'static,
    {
        let (server, slot) = (self.clone(), self.parts.engine.manager().turns.at(&key));
        let called_off = slot.called_off();
        // Dropped with this call when the plugin hangs up.
        let caller = called_off.clone().drop_guard();
        let done = self
            .run(async move {
                let adding = Adding { key: key.clone(), slot: slot.clone(), called_off };
                let done = work(server.clone(), adding).await;
                // Until here a DEL finds this slot, and no other one.
                drop(slot);
                report(&server.parts.metrics, Operation::Add, &key, started, done.as_ref().map(|_| ()));
                done
            })
            .await;
        drop(caller);
        done.map(Response::new)
    }

    /// Runs an operation in a task of its own, which goes on when the caller hangs up.
    async fn run<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        match self.tasks.spawn(operation).await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "an operation of the CNI plugin ended in a panic");
                Err(Status::internal("the agent failed inside: its log has more"))
            }
        }
    }
}

/// An ADD under way.
struct Adding {
    key: AttachmentKey,
    slot: Arc<Slot>,
    called_off: CancellationToken,
}

/// One log line and one count per outcome.
fn report(
    metrics: &Metrics,
    operation: Operation,
    key: &AttachmentKey,
    started: Instant,
    outcome: Result<(), &Status>,
) {
    let duration = started.elapsed();
    metrics.cni(operation, outcome.is_ok(), duration);
    let duration_ms = milliseconds(duration);
    match outcome {
        Ok(()) => tracing::info!(container = key.container_id, ifname = key.ifname, duration_ms, "{operation}"),
        Err(status) => tracing::warn!(
            container = key.container_id,
            ifname = key.ifname,
            duration_ms,
            error = status.message(),
            "{operation} failed"
        ),
    }
}

/// With three decimals, as a number.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// The same bounds as the CNI specification sets, whoever calls.
fn key(key: Option<cni::AttachmentKey>) -> Result<AttachmentKey, Status> {
    let key = key.ok_or_else(|| Status::invalid_argument("the call names no attachment"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let container = &key.container_id;
    if container.is_empty()
        || container.len() > 255
        || !container.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !container.chars().all(plain)
    {
        return Err(Status::invalid_argument(format!(
            "container id {container:?}: expected 1 to 255 letters, digits, '_', '.', '-', the first a letter or digit"
        )));
    }
    nsm_netlink::IfName::new(key.ifname.as_str()).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(key.into())
}

#[tonic::async_trait]
impl cni_server::Cni for Server {
    async fn add(&self, request: Request<cni::AddRequest>) -> Result<Response<cni::AddResponse>, Status> {
        let started = Instant::now();
        crate::failpoint::hit("add.start");
        let socket = socket(&request)?;
        let asked = request.into_inner();
        self.parts.plugins.called(&asked.plugin_version);
        let key = key(asked.key.clone())?;
        let netns = self.passed_netns(&socket, &asked.netns_url).await?;
        let work = |server: Self, Adding { key, called_off, .. }| async move {
            server.add_one(&key, asked, netns, called_off).await
        };
        let done = self.adding(key, started, work).await;
        crate::failpoint::hit("add.answered");
        done
    }

    async fn del(&self, request: Request<cni::DelRequest>) -> Result<Response<cni::DelResponse>, Status> {
        let started = Instant::now();
        crate::failpoint::hit("del.start");
        let asked = request.into_inner();
        self.parts.plugins.called(&asked.plugin_version);
        let key = key(asked.key)?;
        let server = self.clone();
        self.run(async move {
            let done = server.parts.engine.del(&key).await.map_err(Status::from);
            report(&server.parts.metrics, Operation::Del, &key, started, done.as_ref().map(|_| ()));
            done
        })
        .await
        .map(|found| Response::new(cni::DelResponse { found }))
    }

    async fn check(&self, request: Request<cni::CheckRequest>) -> Result<Response<cni::CheckResponse>, Status> {
        let started = Instant::now();
        let socket = socket(&request)?;
        let asked = request.into_inner();
        self.parts.plugins.called(&asked.plugin_version);
        let key = key(asked.key.clone())?;
        let netns = self.passed_netns(&socket, &asked.netns_url).await?;
        let done = self.check_one(&key, asked, netns).await;
        report(&self.parts.metrics, Operation::Check, &key, started, done.as_ref().map(|_| ()));
        done.map(|findings| Response::new(cni::CheckResponse { findings }))
    }

    async fn add_pod(&self, request: Request<cni::AddPodRequest>) -> Result<Response<cni::AddResponse>, Status> {
        let started = Instant::now();
        let socket = socket(&request)?;
        let asked = request.into_inner();
        self.parts.plugins.called(&asked.plugin_version);
        let key = key(asked.key.clone())?;
        let netns = self.passed_netns(&socket, &asked.netns_url).await?;
        let work = |server: Self, Adding { key, slot, called_off }| async move {
            server.add_pod_one(&key, &slot, asked, netns, called_off).await
        };
        self.adding(key, started, work).await
    }

    async fn check_pod(&self, request: Request<cni::CheckRequest>) -> Result<Response<cni::CheckResponse>, Status> {
        let started = Instant::now();
        let socket = socket(&request)?;
        let asked = request.into_inner();
        self.parts.plugins.called(&asked.plugin_version);
        let key = key(asked.key.clone())?;
        let netns = self.passed_netns(&socket, &asked.netns_url).await?;
        let done = self.check_pod_one(&key, asked, netns).await;
        report(&self.parts.metrics, Operation::Check, &key, started, done.as_ref().map(|_| ()));
        done.map(|findings| Response::new(cni::CheckResponse { findings }))
    }

    async fn plan(&self, request: Request<cni::PlanRequest>) -> Result<Response<cni::PlanResponse>, Status> {
        let started = Instant::now();
        let asked = request.into_inner();
        self.parts.plugins.called(&asked.plugin_version);
        let networks = &self.parts.networks;
        // Nothing is made: when the caller hangs up there is nothing to end.
        if asked.key.is_none() && asked.pod.is_none() {
            let done = networks.plan_everybodys(asked).await;
            self.parts.metrics.cni(Operation::Plan, done.is_ok(), started.elapsed());
            return done.map(Response::new);
        }
        let key = key(asked.key.clone())?;
        let done = networks.plan(&key, asked).await;
        report(&self.parts.metrics, Operation::Plan, &key, started, done.as_ref().map(|_| ()));
        done.map(Response::new)
    }

    async fn settled(&self, request: Request<cni::SettledRequest>) -> Result<Response<cni::SettledResponse>, Status> {
        let asked = request.into_inner();
        let key = key(asked.key.clone())?;
        let networks = self.parts.networks.clone();
        self.run(async move { networks.settle(key, asked).await }).await?;
        Ok(Response::new(cni::SettledResponse {}))
    }

    async fn gc(&self, request: Request<cni::GcRequest>) -> Result<Response<cni::GcResponse>, Status> {
        let started = Instant::now();
        let server = self.clone();
        let asked = request.into_inner();
        self.parts.plugins.called(&asked.plugin_version);
        self.run(async move {
            let done = server.collect(asked).await;
            server.parts.metrics.cni(Operation::Gc, done.errors.is_empty(), started.elapsed());
            Ok(done)
        })
        .await
        .map(Response::new)
    }

    async fn status(&self, request: Request<cni::StatusRequest>) -> Result<Response<cni::StatusResponse>, Status> {
        let started = Instant::now();
        let asked = request.into_inner();
        self.parts.plugins.called(&asked.plugin_version);
        let mut problems = self.parts.selftest.problems().await;
        problems.extend(Mechanism::parse(&asked.mechanism).err().map(|error| error.to_string()));
        self.parts.metrics.cni(Operation::Status, problems.is_empty(), started.elapsed());
        Ok(Response::new(cni::StatusResponse { problems, agent_version: crate::VERSION.into() }))
    }
}

fn socket<T>(request: &Request<T>) -> Result<Socket, Status> {
    request
        .extensions()
        .get::<Socket>()
        .cloned()
        .ok_or_else(|| Status::internal("this call did not come over the agent's socket"))
}
