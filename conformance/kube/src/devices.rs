//! A device plugin of the lab, whose devices are names.
//!
//! Guarantee: it serves until it is dropped; the kubelet then finds its devices gone.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use futures::{Stream, StreamExt, stream};
use nsm_fdpass::Permissions;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use self::api::device_plugin_server::{DevicePlugin, DevicePluginServer};
use self::api::registration_client::RegistrationClient;
use self::api::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, Device, DevicePluginOptions, Empty,
    ListAndWatchResponse, RegisterRequest,
};
use crate::machine::Machine;

/// As it is generated.
#[allow(
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    reason = "nobody wrote it"
)]
mod api {
    tonic::include_proto!("v1beta1");
}

/// Where kubelets look for plugins, whatever their own directory is.
const FOLDER: &str = "/var/lib/kubelet/device-plugins";
const SOCKET: &str = "lab.sock";
const READY: Duration = Duration::from_secs(10);

/// A running plugin.
#[derive(Debug)]
pub struct Devices {
    _runtime: Runtime,
}

struct Plugin(Vec<String>);

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions {}))
    }

    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let device = |id: &String| Device { id: id.clone(), health: "Healthy".into() };
        let all = ListAndWatchResponse { devices: self.0.iter().map(device).collect() };
        // None of them ever changes.
        Ok(Response::new(Box::pin(stream::iter([Ok(all)]).chain(stream::pending()))))
    }

    async fn allocate(&self, asked: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let one = |_: &_| ContainerAllocateResponse {};
        let container_responses = asked.into_inner().container_requests.iter().map(one).collect();
        Ok(Response::new(AllocateResponse { container_responses }))
    }
}

impl Machine {
    /// Where the machine's kubelet tells which devices its pods have.
    pub fn pod_resources(&self) -> std::path::PathBuf {
        self.place().dir().join("kubelet/pod-resources/kubelet.sock")
    }

    /// Tells the machine's kubelet of devices.
    pub fn offer(&self, resource: &str, devices: &[&str]) -> anyhow::Result<Devices> {
        let plugin = Plugin(devices.iter().map(|&name| name.to_owned()).collect());
        // Its threads stay where they are made.
        let runtime = self.place().run(|| serve(plugin, resource))??;
        Ok(Devices { _runtime: runtime })
    }
}

fn serve(plugin: Plugin, resource: &str) -> anyhow::Result<Runtime> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let permissions = Permissions { mode: 0o600, uid: None, gid: None };
    let registered = runtime.block_on(async {
        let socket = nsm_fdpass::bind(&Path::new(FOLDER).join(SOCKET), permissions)?;
        let server = Server::builder().add_service(DevicePluginServer::new(plugin));
        tokio::spawn(server.serve_with_incoming(socket.incoming()));
        let kubelet = nsm_fdpass::connect(&Path::new(FOLDER).join("kubelet.sock"), Instant::now() + READY).await?;
        let request =
            RegisterRequest { version: "v1beta1".into(), endpoint: SOCKET.into(), resource_name: resource.to_owned() };
        RegistrationClient::new(kubelet.channel).register(request).await.context("registration with the kubelet")?;
        anyhow::Ok(())
    });
    registered.map(|()| runtime)
}
