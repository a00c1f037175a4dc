//! A driver of ResourceClaims of the lab (dynamic resource allocation), whose devices are names.
//!
//! Guarantees: it serves until it is dropped; containers get nothing of it. What it knows of claims the API server has told it.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use nsm_fdpass::Permissions;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use self::dra::dra_plugin_server::{DraPlugin, DraPluginServer};
use self::dra::{
    Claim, Device, NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use self::registration::registration_server::{Registration, RegistrationServer};
use self::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::machine::Machine;
use crate::mesh::{Mesh, SOON};

/// As it is generated.
#[allow(
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    reason = "nobody wrote it"
)]
mod dra {
    tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");
}

/// As it is generated.
#[allow(
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    reason = "nobody wrote it"
)]
mod registration {
    tonic::include_proto!("pluginregistration");
}

/// Of all that is about claims.
pub const RESOURCE_API: &str = "resource.k8s.io/v1";
/// What Kubernetes needs for claims that the scheduler makes for containers' `resources.limits`.
pub(crate) const EXTENDED_RESOURCES: &str = "DRAExtendedResource";

/// A running driver.
#[derive(Debug)]
pub struct Driver {
    prepared: Arc<Mutex<BTreeSet<String>>>,
    /// By which the kubelet finds it.
    registered: PathBuf,
    _runtime: Runtime,
}

impl Driver {
    /// The claims that pods have, `NAMESPACE/NAME`.
    pub fn prepared(&self) -> Vec<String> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.registered);
    }
}

#[derive(Clone)]
struct Plugin {
    name: String,
    endpoint: String,
    client: kube::Client,
    prepared: Arc<Mutex<BTreeSet<String>>>,
    /// What the kubelet makes of it.
    registered: watch::Sender<Option<Result<(), String>>>,
}

impl Plugin {
    /// The devices of this driver that were allocated to a claim.
    async fn devices(&self, claim: &Claim) -> anyhow::Result<Vec<Device>> {
        let path = format!("/apis/{RESOURCE_API}/namespaces/{}/resourceclaims/{}", claim.namespace, claim.name);
        let object: Value = self.client.request(http::Request::get(path).body(Vec::new())?).await?;
        anyhow::ensure!(object["metadata"]["uid"] == *claim.uid, "another claim: {object}");
        let results = object["status"]["allocation"]["devices"]["results"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of_driver = results.iter().filter(|result| result["driver"] == *self.name);
        let device = |result: &Value| Device {
            request_names: vec![text(&result["request"])],
            pool_name: text(&result["pool"]),
            device_name: text(&result["device"]),
        };
        Ok(of_driver.map(device).collect())
    }

    fn prepared(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(claim: &Claim) -> String {
    format!("{}/{}", claim.namespace, claim.name)
}

#[tonic::async_trait]
impl DraPlugin for Plugin {
    async fn node_prepare_resources(
        &self,
        asked: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let mut claims = HashMap::new();
        for claim in asked.into_inner().claims {
            let answer = match self.devices(&claim).await {
                Ok(devices) => NodePrepareResourceResponse { devices, error: String::new() },
                Err(error) => NodePrepareResourceResponse { devices: Vec::new(), error: format!("{error:#}") },
            };
            self.prepared().insert(key(&claim));
            claims.insert(claim.uid, answer);
        }
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        asked: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let undone = |claim: Claim| {
            self.prepared().remove(&key(&claim));
            (claim.uid, NodeUnprepareResourceResponse { error: String::new() })
        };
        let claims = asked.into_inner().claims.into_iter().map(undone).collect();
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}

#[tonic::async_trait]
impl Registration for Plugin {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "DRAPlugin".into(),
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec!["v1.DRAPlugin".into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = status.into_inner();
        self.registered.send_replace(Some(if plugin_registered { Ok(()) } else { Err(error) }));
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

impl Mesh {
    /// Serves claims on a machine with these devices of one pool: names and attributes. Its class is called as it is, and so is the
    /// extended resource that any of them serves, with `/device`.
    pub fn serve_claims(&self, at: usize, driver: &str, devices: &[(&str, Value)]) -> anyhow::Result<Driver> {
        let machine = self.machine(at)?;
        let way = self.kubeconfig_for_machines("admin-token");
        let served = machine.place().run(|| serve(machine, driver, way))??;
        let is_ours = format!("device.driver == {driver:?}");
        self.kubectl_apply(&json!({
            "apiVersion": RESOURCE_API, "kind": "DeviceClass", "metadata": { "name": driver },
            "spec": { "selectors": [{ "cel": { "expression": is_ours } }], "extendedResourceName": format!("{driver}/device") },
        }))?;
        let device = |(name, attributes): &(&str, Value)| json!({ "name": name, "attributes": attributes });
        self.kubectl_apply(&json!({
            "apiVersion": RESOURCE_API, "kind": "ResourceSlice", "metadata": { "name": format!("{}-{driver}", machine.name()) },
            "spec": {
                "driver": driver, "nodeName": machine.name(), "devices": devices.iter().map(device).collect::<Vec<_>>(),
                "pool": { "name": machine.name(), "generation": 1, "resourceSliceCount": 1 },
            },
        }))?;
        Ok(served)
    }

    /// Takes away what [`Mesh::serve_claims`] has put into the cluster.
    pub fn forget_claims(&self, at: usize, driver: &str) -> anyhow::Result<()> {
        let slice = format!("resourceslice/{}-{driver}", self.machine(at)?.name());
        self.kubectl(&["delete", "--ignore-not-found", &slice, &format!("deviceclass/{driver}")]).map(drop)
    }
}

fn serve(machine: &Machine, name: &str, way: Value) -> anyhow::Result<Driver> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let kubelet = machine.place().dir().join("kubelet");
    let endpoint = kubelet.join(format!("plugins/{name}/dra.sock"));
    // The kubelet says this path as `:authority`, where HTTP/2 here takes no `%2F` but before an `@`.
    let link = kubelet.join(format!("plugins_registry/{name}@lab"));
    let prepared: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    runtime.block_on(async {
        let way: Kubeconfig = serde_json::from_value(way)?;
        let config = kube::Config::from_custom_kubeconfig(way, &KubeConfigOptions::default()).await?;
        let plugin = Plugin {
            name: name.to_owned(),
            endpoint: endpoint.display().to_string(),
            client: kube::Client::try_from(config)?,
            prepared: prepared.clone(),
            registered: watch::Sender::new(None),
        };
        let mut registered = plugin.registered.subscribe();
        let socket = nsm_fdpass::bind(&endpoint, Permissions { mode: 0o600, uid: None, gid: None })?;
        let server = Server::builder().add_service(DraPluginServer::new(plugin.clone()));
        tokio::spawn(server.add_service(RegistrationServer::new(plugin)).serve_with_incoming(socket.incoming()));
        // There the kubelet sees it at once, and whole.
        let _ = fs::remove_file(&link);
        fs::hard_link(&endpoint, &link).with_context(|| link.display().to_string())?;
        let told = tokio::time::timeout(SOON, registered.wait_for(Option::is_some)).await;
        match told.context("the kubelet does not register the driver")??.clone() {
            Some(Err(error)) => anyhow::bail!("the kubelet refuses the driver: {error}"),
            Some(Ok(())) | None => anyhow::Ok(()),
        }
    })?;
    Ok(Driver { prepared, registered: link, _runtime: runtime })
}
