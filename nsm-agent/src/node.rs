//! What this node tells its operator: its connections, what an ADD would do, what is wrong with it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use nsm_cni_types::Mechanism;
use nsm_netlink::{IfName, Netlink, Netns, NetnsSocket};
use nsm_proto::admin::{ConnectionInfo, Finding, InfoResponse, PlanRequest, PlanResponse, finding::Level};
use tokio::sync::watch;

use crate::{
    admin,
    cni::plugins::Plugins,
    config::Settings,
    forwarder::{Wire, kernel::present_prefixes},
    install::{Installed, Outcome},
    manager::{Healer, Manager},
    privileges,
    registry::{Party, Rivals},
    selftest::SelfTest,
    state::{Attachment, Connected, Owner, blocking},
};

/// What tells whether the node can be used.
#[derive(Clone)]
pub struct Tests {
    /// Whether an ADD could be served.
    pub selftest: SelfTest,
    /// What is to be installed on the node.
    pub installed: Installed,
    /// Whether another agent has this node's name.
    pub rivals: Rivals,
}

impl Tests {
    /// What is wrong, a line each.
    pub async fn problems(&self) -> Vec<String> {
        let mut problems = self.selftest.problems().await;
        problems.extend(self.installed.problems());
        problems
    }
}

/// How long another agent's last renewal counts: the longest lease.
const RIVAL: Duration = Duration::from_hours(1);

/// The running agent, as its operator sees it.
pub struct ThisNode {
    info: InfoResponse,
    manager: Manager,
    healer: Healer,
    tests: Tests,
    plugins: Plugins,
    netlink: Netlink,
}

impl ThisNode {
    /// Shows these parts.
    pub fn new(
        settings: &Settings,
        manager: Manager,
        healer: Healer,
        tests: Tests,
        plugins: Plugins,
        netlink: &Netlink,
    ) -> Self {
        let info = InfoResponse {
            version: crate::VERSION.into(),
            node_name: settings.node_name(),
            registry: settings.registry.name().into(),
            nsm_socket: settings.nsm_socket.display().to_string(),
            state_dir: settings.state_dir.display().to_string(),
            run_dir: settings.run_dir.display().to_string(),
            started: Some(SystemTime::now().into()),
            pid: std::process::id(),
            plugins: Vec::new(),
            cni_plugin_dir: directory(settings.install_plugin.as_ref()),
            cni_conf_dir: directory(settings.install_cni_conf.as_ref()),
        };
        Self { info, manager, healer, tests, plugins, netlink: netlink.clone() }
    }

    fn shown(&self, record: &Connected) -> ConnectionInfo {
        let mut info = ConnectionInfo {
            connection: Some(record.client_side.decoded()),
            phase: if self.healer.heals(&record.id) { "healing".into() } else { record.phase.to_string() },
            owner: record.owner.to_string(),
            since: Some(record.since.into()),
            ..ConnectionInfo::default()
        };
        if let Some(Wire::Kernel(wire)) = &record.wire {
            info.endpoint_ifname = wire.endpoint.name.to_string();
        }
        if let Owner::Attachment(key) = &record.owner
            && let Some(attachment) = self.manager.wires.attachments.get(key)
        {
            info.container_id.clone_from(&key.container_id);
            info.ifname = attachment.interface.to_string();
            info.network.clone_from(&attachment.network);
            info.netns_path = attachment.netns_path.display().to_string();
            if let Some(pod) = &attachment.pod {
                info.pod_name.clone_from(&pod.name);
                info.pod_namespace.clone_from(&pod.namespace);
            }
        } else if let Some(Wire::Kernel(wire)) = &record.wire {
            info.ifname = wire.client.name.to_string();
        }
        info
    }

    /// Whose pod a client would be: the label `namespace`, which agents give, says it, else the pod's network namespace.
    async fn client(&self, labels: &BTreeMap<String, String>, netns: &str) -> Party {
        let (named, path) = (admin::party(labels), PathBuf::from(netns));
        if named != Party::Operator || netns.is_empty() {
            return named;
        }
        let netns = blocking(move || Netns::open(&path)).await;
        match netns {
            Ok(netns) => self.manager.clients.in_netns(netns.id()).await,
            Err(_) => named,
        }
    }

    /// What the pod's namespace says to the plan.
    async fn look_into(&self, request: &PlanRequest, plan: &mut PlanResponse) {
        let ifname = if request.ifname.is_empty() { "nsm-1" } else { &request.ifname };
        let name = match IfName::new(ifname) {
            Ok(name) => name,
            Err(error) => return plan.problems.push(error.to_string()),
        };
        if request.netns_path.is_empty() {
            plan.steps
                .push(format!("make interface {ifname} in the pod, its peer in the endpoint's network namespace"));
            return;
        }
        let (path, own) = (PathBuf::from(&request.netns_path), self.netlink.netns().id());
        let looked = blocking(move || {
            let netns = Netns::open(&path).map_err(|error| error.to_string())?;
            if netns.id() == own {
                return Err(format!("{} is the agent's own network namespace", path.display()));
            }
            let mut pod = NetnsSocket::open(&netns).map_err(|error| error.to_string())?;
            let taken = pod.link_by_name(&name).map_err(|error| error.to_string())?.is_some();
            let prefixes = present_prefixes(&mut pod, &[]).map_err(|error| error.to_string())?;
            Ok((taken, prefixes))
        })
        .await;
        match looked {
            Err(problem) => plan.problems.push(problem),
            Ok((taken, prefixes)) => {
                if taken {
                    plan.problems.push(format!("the pod has an interface {ifname} already"));
                }
                let of_cluster = self.manager.excluded.prefixes();
                let prefixes = prefixes.iter().map(ToString::to_string).chain(of_cluster.iter().cloned());
                let prefixes: Vec<String> = prefixes.collect();
                plan.steps.push(match prefixes.as_slice() {
                    [] => "ask for addresses: the pod reaches no other prefix yet".into(),
                    prefixes => format!("ask for addresses outside {}", prefixes.join(", ")),
                });
                plan.steps.push(format!(
                    "make interface {ifname} in {}, its peer in the endpoint's network namespace",
                    request.netns_path
                ));
            }
        }
    }
}

/// As the private API tells it: nothing where there is none.
fn directory(dir: Option<&PathBuf>) -> String {
    dir.map(|dir| dir.display().to_string()).unwrap_or_default()
}

#[async_trait]
impl admin::Node for ThisNode {
    fn info(&self) -> InfoResponse {
        InfoResponse { plugins: self.plugins.seen(), ..self.info.clone() }
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        let mut records = self.manager.wires.connections.all();
        records.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.id.cmp(&b.id)));
        records.iter().map(|record| self.shown(record)).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.manager.wires.connections.changes()
    }

    async fn close(&self, id: &str) -> Result<bool, nsm_sdk::Error> {
        let Some(record) = self.manager.wires.connections.get(&id.to_owned()) else { return Ok(false) };
        let events = match &record.owner {
            Owner::Attachment(key) => self.manager.events_of(key),
            Owner::Pod(_) | Owner::Host { .. } => self.manager.begin.events(id),
        };
        match events {
            Some(events) => events.close(|_| true).await.map(|_| true),
            // Nothing but the record is left of it.
            None => self.manager.wires.end(id, None).await.map(|()| true),
        }
    }

    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, nsm_sdk::Error> {
        let mut plan = PlanResponse::default();
        plan.problems.extend(Mechanism::parse(&request.mechanism).err().map(|error| error.to_string()));
        let client = self.client(&request.labels, &request.netns_path).await;
        match self.manager.endpoints.foreseen(&request.network_service, &request.labels, &client) {
            Ok(candidates) => {
                let names: Vec<&str> = candidates.iter().map(|entry| entry.message.name.as_str()).collect();
                plan.steps.push(format!("ask, until one serves: {}", names.join(", ")));
            }
            Err(error) => {
                plan.problems.push(error.to_string());
                // What else is wrong is worth telling; nothing of it would be done.
                let mut rest = PlanResponse::default();
                self.look_into(&request, &mut rest).await;
                plan.problems.extend(rest.problems);
                plan.problems.extend(self.tests.selftest.problems().await);
                return Ok(plan);
            }
        }
        self.look_into(&request, &mut plan).await;
        plan.problems.extend(self.tests.selftest.problems().await);
        Ok(plan)
    }

    async fn self_test(&self) -> Vec<Finding> {
        let findings = self.tests.selftest.findings().await.into_iter();
        let tested = findings.map(|finding| match finding.problem {
            None => Finding {
                level: Level::Ok.into(),
                subject: finding.subject.into(),
                detail: String::new(),
                fix: String::new(),
            },
            Some(problem) => Finding {
                level: Level::Error.into(),
                subject: finding.subject.into(),
                detail: problem.detail,
                fix: problem.fix.into(),
            },
        });
        let installed = self.tests.installed.all().into_iter().map(|(part, outcome)| {
            let subject = part.subject().into();
            match outcome {
                Outcome::Done(detail) => Finding { level: Level::Ok.into(), subject, detail, fix: String::new() },
                Outcome::Problem { detail, fix } => Finding { level: Level::Error.into(), subject, detail, fix },
            }
        });
        let rival = self.tests.rivals.of_late(RIVAL).map(|holder| Finding {
            level: Level::Error.into(),
            subject: "node name".into(),
            detail: format!("another agent renews the lease of node {}: {holder}", self.info.node_name),
            fix: "give one of the two another --node-name: each takes the other's endpoints away".into(),
        });
        let by_process = |attachment: &Attachment| attachment.netns_path.starts_with("/proc");
        let by_process = self.manager.attachments.find(by_process).is_some();
        tested.chain(installed).chain(rival).chain(privileges::findings(by_process)).collect()
    }
}
