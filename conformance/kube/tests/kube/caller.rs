//! A program of a pod that registers and looks for things.

use nsm_lab::{Namespace, Node};
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint, NetworkServiceLabels};
use nsm_sdk::registry::Registry;

/// Runs `work` inside a namespace, on the agent's NSM socket.
pub(crate) fn from<T: Send>(
    node: &Node,
    namespace: &Namespace,
    work: impl AsyncFnOnce(Registry) -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let socket = node.nsm_socket();
    namespace.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work(Registry::connect_to(socket)))
    })?
}

pub(crate) fn service(name: &str) -> NetworkService {
    NetworkService { name: name.into(), ..NetworkService::default() }
}

/// An endpoint that is somewhere, with a label.
pub(crate) fn endpoint(name: &str, of: &str) -> NetworkServiceEndpoint {
    let labels = NetworkServiceLabels { labels: [("app".to_owned(), name.to_owned())].into() };
    NetworkServiceEndpoint {
        name: name.into(),
        network_service_names: vec![of.into()],
        network_service_labels: [(of.to_owned(), labels)].into(),
        url: "tcp://10.0.0.1:5001".into(),
        ..NetworkServiceEndpoint::default()
    }
}

/// Names of the endpoints that the agent knows, reachable or not.
pub(crate) fn known(node: &Node) -> anyhow::Result<Vec<String>> {
    Ok(node.endpoints()?.into_iter().map(|item| item.endpoint.unwrap_or_default().name).collect())
}

/// Names of the services that the agent knows.
pub(crate) fn known_services(node: &Node) -> anyhow::Result<Vec<String>> {
    let name = |item: &serde_json::Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok(node.get("netsvc")?.iter().map(name).collect())
}
