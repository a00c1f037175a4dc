//! An agent of the test's own, for what the plugin does by itself.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use nsm_fdpass::{Connection, InodeId, Permissions, bind};
use nsm_proto::cni::{
    AddPodRequest, AddRequest, AddResponse, CheckRequest, CheckResponse, DelRequest, DelResponse, Dns, GcRequest,
    GcResponse, Interface, Ip, PlanRequest, PlanResponse, SettledRequest, SettledResponse, StatusRequest,
    StatusResponse,
    cni_server::{Cni, CniServer},
};
use tonic::{Code, Request, Response, Status};

/// How the agent answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// Never.
    pub(crate) hang: bool,
    /// Every call with this status.
    pub(crate) refuse: Option<Code>,
    /// ADD without addresses.
    pub(crate) no_address: bool,
    /// CHECK and STATUS with this.
    pub(crate) finding: Option<String>,
    /// It plans networks, of pods alone.
    pub(crate) plans_pods: bool,
}

/// What the agent was asked.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) adds: Vec<AddRequest>,
    pub(crate) dels: Vec<DelRequest>,
    pub(crate) checks: Vec<CheckRequest>,
    pub(crate) pods: Vec<AddPodRequest>,
    pub(crate) pod_checks: Vec<CheckRequest>,
    pub(crate) gcs: Vec<GcRequest>,
}

/// A running agent; it ends with the value.
pub(crate) struct Agent {
    pub(crate) seen: Arc<Mutex<Seen>>,
    _runtime: tokio::runtime::Runtime,
}

struct Service {
    script: Script,
    seen: Arc<Mutex<Seen>>,
}

impl Agent {
    pub(crate) fn start(socket: &Path, script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let service = CniServer::new(Service { script, seen: seen.clone() });
        let permissions = Permissions { mode: 0o600, uid: None, gid: None };
        let path: PathBuf = socket.to_owned();
        let listening = runtime.block_on(async move { bind(&path, permissions) }).unwrap();
        let _guard = runtime.enter();
        runtime
            .spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(listening.incoming()));
        Self { seen, _runtime: runtime }
    }
}

impl Service {
    async fn say<T>(&self, answer: T) -> Result<Response<T>, Status> {
        if self.script.hang {
            std::future::pending::<()>().await;
        }
        match self.script.refuse {
            Some(code) => Err(Status::new(code, "because")),
            None => Ok(Response::new(answer)),
        }
    }
}

#[tonic::async_trait]
impl Cni for Service {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddResponse>, Status> {
        let socket = request.extensions().get::<Connection>().cloned();
        let asked = request.into_inner();
        let id: InodeId = asked.netns_url.parse().map_err(|_| Status::internal("no inode URL"))?;
        socket
            .and_then(|socket| socket.inbox.take(id))
            .ok_or_else(|| Status::internal("the file did not come first"))?;
        let interface = Interface {
            name: asked.key.clone().unwrap_or_default().ifname,
            mac: "02:00:00:00:00:01".into(),
            sandbox: asked.netns_path.clone(),
            mtu: 1400,
        };
        self.seen.lock().unwrap().adds.push(asked);
        let ip = Ip { address: "10.0.0.1/32".into(), gateway: String::new(), interface: 0 };
        let ips = if self.script.no_address { vec![] } else { vec![ip] };
        self.say(AddResponse { interfaces: vec![interface], ips, ..AddResponse::default() }).await
    }

    async fn add_pod(&self, request: Request<AddPodRequest>) -> Result<Response<AddResponse>, Status> {
        let socket = request.extensions().get::<Connection>().cloned();
        let asked = request.into_inner();
        let id: InodeId = asked.netns_url.parse().map_err(|_| Status::internal("no inode URL"))?;
        socket
            .and_then(|socket| socket.inbox.take(id))
            .ok_or_else(|| Status::internal("the file did not come first"))?;
        let interface = |name: &str| Interface {
            name: name.into(),
            mac: "02:00:00:00:00:01".into(),
            sandbox: asked.netns_path.clone(),
            mtu: 1400,
        };
        let interfaces = vec![interface("nsm-1"), interface("nsm-2")];
        self.seen.lock().unwrap().pods.push(asked);
        let ip = |address: &str, interface| Ip { address: address.into(), gateway: String::new(), interface };
        let ips = vec![ip("10.0.0.1/32", 0), ip("10.0.0.3/32", 1)];
        let dns = Some(Dns { nameservers: vec!["10.9.9.9".into()], search: vec![] });
        self.say(AddResponse { interfaces, ips, dns, ..AddResponse::default() }).await
    }

    async fn check_pod(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        self.seen.lock().unwrap().pod_checks.push(request.into_inner());
        self.say(CheckResponse { findings: self.script.finding.iter().cloned().collect() }).await
    }

    async fn del(&self, request: Request<DelRequest>) -> Result<Response<DelResponse>, Status> {
        self.seen.lock().unwrap().dels.push(request.into_inner());
        self.say(DelResponse { found: true }).await
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        self.seen.lock().unwrap().checks.push(request.into_inner());
        self.say(CheckResponse { findings: self.script.finding.iter().cloned().collect() }).await
    }

    async fn gc(&self, request: Request<GcRequest>) -> Result<Response<GcResponse>, Status> {
        self.seen.lock().unwrap().gcs.push(request.into_inner());
        self.say(GcResponse::default()).await
    }

    async fn plan(&self, _: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        Err(if self.script.plans_pods {
            Status::invalid_argument("the call names no attachment")
        } else {
            Status::unimplemented("no plan")
        })
    }

    async fn settled(&self, _: Request<SettledRequest>) -> Result<Response<SettledResponse>, Status> {
        Err(Status::unimplemented("no status"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let problems = self.script.finding.iter().cloned().collect();
        self.say(StatusResponse { problems, agent_version: "0".into() }).await
    }
}
