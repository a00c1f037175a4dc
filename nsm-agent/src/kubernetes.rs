//! The way to a Kubernetes API server: who is asked, and as whom.
//!
//! Guarantees: every call has a bound (`bounded`). That the API server is away is no error of [`connect`].

mod watched;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{Client, config::Kubeconfig};
pub(crate) use nsm_apiserver::{Failure, chain};
pub(crate) use watched::{Answer, Failed, watched};

/// Longest call.
const CALL: Duration = Duration::from_secs(8);

/// Why there is no way to an API server.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The named file.
    #[error("--kubeconfig {}: {cause}", path.display())]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// No file, and no pod.
    #[error("this process is in no pod with a service account ({0}): name a --kubeconfig")]
    NoCluster(String),
    /// What is in it.
    #[error("the credentials for the Kubernetes API server cannot be used: {0}")]
    Credentials(String),
}

/// A way to an API server. Clones share its connections.
#[derive(Clone)]
pub struct Way {
    /// Who asks.
    pub client: Client,
    /// The namespace of the pod, or of the kubeconfig's context.
    pub namespace: String,
}

/// The way that the kubeconfig names; without one: to the cluster that this process is a pod of.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Way, OpenError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let wrong =
                |error: &dyn std::error::Error| OpenError::Kubeconfig { path: path.to_owned(), cause: chain(error) };
            let file = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
            let read = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await;
            read.map_err(|error| wrong(&error))?
        }
        None => kube::Config::incluster().map_err(|error| OpenError::NoCluster(chain(&error)))?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| OpenError::Credentials(chain(&error)))?;
    Ok(Way { client, namespace })
}

/// Who tells events.
pub(crate) const REPORTER: &str = "networkservicemesh.io/nsm-agent";

/// Which of the agents tells an event: as much of its node's name as an event takes, by which `deploy/admission.yaml` knows it.
pub(crate) fn reporting_instance(node: &str) -> String {
    node.chars().take(128).collect()
}

/// A call that ends within its bound.
pub(crate) async fn bounded<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    nsm_apiserver::bounded(CALL, call).await
}

/// Three quarters to five quarters of it: many nodes do not do the same at the same time.
pub(crate) fn jitter(time: Duration) -> Duration {
    let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    time * (3 * 128 + random) / 512
}
