//! `icmp-responder` processes: endpoints in pods of their own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use nsm_proto::admin;

use crate::program::{Program, bare, binary};
use crate::{Node, Pod, eventually};

/// For the registration.
const READY: Duration = Duration::from_secs(10);

/// What an endpoint shall be; [`EndpointPlan::start`] makes it so.
#[must_use]
#[derive(Debug, Clone)]
pub struct EndpointPlan {
    program: &'static str,
    name: String,
    service: String,
    cidr: String,
    extra: Vec<(String, String)>,
}

/// A running endpoint; `Drop` kills it.
#[derive(Debug)]
pub struct Endpoint {
    program: Program,
    name: String,
    // Last: the namespace outlives the process.
    pod: Pod,
}

impl Endpoint {
    /// An endpoint of `service` with addresses of 172.16.1.0/24.
    pub fn of(service: &str) -> EndpointPlan {
        EndpointPlan {
            program: "icmp-responder",
            name: format!("{service}-1"),
            service: service.to_owned(),
            cidr: "172.16.1.0/24".into(),
            extra: Vec::new(),
        }
    }

    /// The endpoint's name in the registry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pod it runs in.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Its process.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// SIGKILL; its pod's namespace stays and is handed back.
    pub fn kill(self) -> anyhow::Result<Pod> {
        self.program.kill()?;
        Ok(self.pod)
    }

    /// SIGTERM and an orderly end: unregistered.
    pub fn stop(self) -> anyhow::Result<Pod> {
        self.program.stop()?;
        Ok(self.pod)
    }
}

impl EndpointPlan {
    /// Its name; the pod is called so too.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// `NSM_CIDR_PREFIX`.
    pub fn cidr(mut self, cidr: &str) -> Self {
        cidr.clone_into(&mut self.cidr);
        self
    }

    /// Any other variable of its environment.
    pub fn set(mut self, variable: &str, value: &str) -> Self {
        self.extra.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Another program with the same environment in the place of `icmp-responder`.
    pub fn program(mut self, program: &'static str) -> Self {
        self.program = program;
        self
    }

    /// Starts it in a new pod of `node` and waits until it is registered.
    pub fn start(&self, node: &Node) -> anyhow::Result<Endpoint> {
        self.start_in(node, node.pod(&self.name)?)
    }

    /// Starts it in `pod`, as a container that restarts, and waits until it is registered.
    pub fn start_in(&self, node: &Node, pod: Pod) -> anyhow::Result<Endpoint> {
        let mut endpoint = self.spawn_in(node, pod)?;
        let name = &self.name;
        eventually(
            &format!("registration of endpoint {name}"),
            READY,
            || {
                endpoint.program.still_runs()?;
                registered(node)
            },
            |names| names.contains(name),
        )
        .with_context(|| endpoint.program.log())?;
        Ok(endpoint)
    }

    /// Starts it in `pod` without waiting.
    pub fn spawn_in(&self, node: &Node, pod: Pod) -> anyhow::Result<Endpoint> {
        let mut command: Command = bare(&binary(self.program)?);
        let listen: PathBuf = node.dir().join(format!("{}.sock", self.name));
        command
            .env("NSM_NAME", &self.name)
            .env("NSM_CONNECT_TO", format!("unix://{}", node.nsm_socket().display()))
            .env("NSM_LISTEN_ON", format!("unix://{}", listen.display()))
            .env("NSM_SERVICE_NAMES", &self.service)
            .env("NSM_CIDR_PREFIX", &self.cidr)
            .env("NSM_LOG_LEVEL", "info")
            .envs(self.extra.iter().map(|(name, value)| (name, value)));
        let log = node.dir().join(format!("{}.log", self.name));
        let program = Program::start(&self.name, &mut command, pod.namespace(), &log)?;
        Ok(Endpoint { program, name: self.name.clone(), pod })
    }
}

/// Names of the endpoints that the node's agent knows and can reach.
pub fn registered(node: &Node) -> anyhow::Result<Vec<String>> {
    let name = |item: admin::Endpoint| item.endpoint.unwrap_or_default().name;
    Ok(node.endpoints()?.into_iter().filter(|item| item.unreachable.is_empty()).map(name).collect())
}
