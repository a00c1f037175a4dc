//! The agents of `deploy/nsm.yaml`: a DaemonSet, in the place of processes of the test.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::mesh::{Mesh, patiently};
use crate::pods::file;
use crate::runtime::CONF_DIR;

const NAMESPACE: &str = "nsm-system";
const SET: &str = "/apis/apps/v1/namespaces/nsm-system/daemonsets/nsm-agent";

/// For agents to come and go on all machines, one after the other.
const ROLLED: Duration = Duration::from_mins(3);

impl Mesh {
    /// Ends the agents that are processes, with what was installed for them.
    pub fn without_agents(&mut self) -> anyhow::Result<()> {
        for at in 0..self.len() {
            let machine = self.machine_mut(at)?;
            if let Some(agent) = machine.agent.take() {
                agent.stop()?;
                machine.uninstall()?;
            }
        }
        Ok(())
    }

    /// `kubectl apply` of the manifests, and every agent is ready.
    pub fn deploy(&self) -> anyhow::Result<()> {
        for manifest in ["crds.yaml", "nsm.yaml", "admission.yaml"] {
            self.kubectl(&["apply", "-f", &file(&format!("deploy/{manifest}"))?])?;
        }
        self.rolled_out()
    }

    /// Waits until every machine has an agent of the newest kind.
    pub fn rolled_out(&self) -> anyhow::Result<()> {
        let all = self.len();
        let look = || {
            let set = self.cluster().get(SET)?;
            let number = |key: &str| set["status"][key].as_u64().unwrap_or_default();
            let seen = set["metadata"]["generation"] == set["status"]["observedGeneration"];
            Ok((seen, number("updatedNumberScheduled"), number("numberReady")))
        };
        let wanted = u64::try_from(all)?;
        patiently("agents of the DaemonSet", ROLLED, look, |seen| *seen == (true, wanted, wanted))
            .map(drop)
            .with_context(|| self.agents_log())
    }

    /// The ends of the logs of our namespace, those of agents and of what uninstalls them, and its events.
    pub(crate) fn agents_log(&self) -> String {
        let text = |words: &str| {
            let mut args = vec!["--request-timeout=10s", "-n", NAMESPACE];
            args.extend(words.split(' '));
            self.kubectl(&args).unwrap_or_else(|error| format!("{error:#}"))
        };
        let logs = text("logs -l app.kubernetes.io/name --all-containers --tail=20 --prefix");
        format!("{logs}\n{}", text("get events"))
    }

    /// Deletes the DaemonSet; its agents are gone.
    pub fn undeploy(&self) -> anyhow::Result<()> {
        self.cluster().delete(SET)?;
        let left = || Ok(self.pods(NAMESPACE)?.len());
        patiently("end of the agents", ROLLED, left, |count| *count == 0).map(drop)
    }

    /// Has the agents replaced by those of another image.
    pub fn upgrade(&self, image: &str) -> anyhow::Result<()> {
        self.kubectl(&["-n", NAMESPACE, "set", "image", "daemonset/nsm-agent", &format!("nsm-agent={image}")]).map(drop)
    }

    /// Gives the agents the door to a machine, as the chart's `runningPodNetworks` does.
    pub fn open_door(&self, machine: &Machine) -> anyhow::Result<()> {
        let container = "/spec/template/spec/containers/0";
        let add = |to: &str, value: &str| json!({ "op": "add", "path": format!("{container}/{to}/-"), "value": value });
        let patch = json!([
            add("args", &format!("--host-mount-namespace={}", machine.mount_namespace()?)),
            add("securityContext/capabilities/add", "SYS_PTRACE"),
            add("securityContext/capabilities/add", "SYS_CHROOT"),
        ]);
        let patch = patch.to_string();
        self.kubectl(&["-n", NAMESPACE, "patch", "daemonset", "nsm-agent", "--type=json", "-p", &patch])?;
        self.rolled_out()
    }

    /// Gives each agent so much memory and no more, in MiB.
    pub fn limit_agents(&self, memory: u32) -> anyhow::Result<()> {
        let limit = format!("--limits=memory={memory}Mi");
        self.kubectl(&["-n", NAMESPACE, "set", "resources", "daemonset/nsm-agent", "--containers=nsm-agent", &limit])?;
        self.rolled_out()
    }

    /// The process of a machine's agent.
    pub fn agent_of(&self, machine: &Machine) -> anyhow::Result<u32> {
        let container = self.agents_container(machine)?;
        let id = container["containerID"].as_str().context("no container")?;
        machine.task(id.trim_start_matches("containerd://"))
    }

    /// How often a machine's agent was started again in its pod.
    pub fn restarts_of_agent(&self, machine: &Machine) -> anyhow::Result<u64> {
        self.agents_container(machine)?["restartCount"].as_u64().context("no count")
    }

    fn agents_container(&self, machine: &Machine) -> anyhow::Result<Value> {
        let pods = self.pods(NAMESPACE)?;
        let here = |pod: &&Value| pod["spec"]["nodeName"] == machine.name();
        let pod = pods.iter().find(here).with_context(|| format!("no agent on {}", machine.name()))?;
        Ok(pod["status"]["containerStatuses"][0].clone())
    }
}

impl Machine {
    /// The name of the file of the first network configuration.
    pub fn first_configuration(&self) -> anyhow::Result<Option<String>> {
        let is_one = |name: &String| [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
        Ok(self.place().list(CONF_DIR)?.into_iter().find(is_one))
    }
}
