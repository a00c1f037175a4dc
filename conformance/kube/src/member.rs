//! Nodes of a cluster without machines: a lab node whose agent has a token like that of a DaemonSet's pod.

use anyhow::Context;
use nsm_lab::Node;
use serde_json::json;

use crate::{Cluster, Relay};

/// A node of the cluster.
pub struct Member {
    /// The node, its agent not yet started.
    pub node: Node,
    /// Its way to the API server.
    pub relay: Relay,
    /// Its agent's token, bound to a pod of that node.
    pub token: String,
}

impl Cluster {
    /// A token of the agents' service account, bound to a pod of that node.
    fn token(&self, node: &str) -> anyhow::Result<String> {
        let pod = format!("nsm-agent-{node}");
        let uid = self.make_pod_of("nsm-system", &pod, node, "nsm-agent")?;
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": { "name": "nsm-agent" },
            "spec": { "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid } },
        });
        let path = "/api/v1/namespaces/nsm-system/serviceaccounts/nsm-agent/token";
        let answer = self.call("POST", path, &request)?.map_err(anyhow::Error::msg)?;
        Ok(answer["status"]["token"].as_str().context("no token")?.to_owned())
    }

    /// A node whose agent has the rights of an agent, not yet started. Leases are short.
    pub fn member(&self, name: &str) -> anyhow::Result<Member> {
        let token = self.token(name)?;
        let mut node = Node::create(name)?;
        let relay = Relay::start(Some(node.namespace()), self.namespace(), self.port())?;
        let kubeconfig = self.way_with(&format!("agent-{name}"), &token)?;
        node.set("NSM_REGISTRY", "kubernetes").set("NSM_KUBECONFIG", &kubeconfig.display().to_string());
        node.set("NSM_NAMESPACE", "nsm-system").set("NSM_LEASE_SECONDS", "4");
        Ok(Member { node, relay, token })
    }

    /// A node whose agent is ready.
    pub fn started(&self, name: &str) -> anyhow::Result<Member> {
        let mut member = self.member(name)?;
        member.node.start_agent()?;
        Ok(member)
    }
}
