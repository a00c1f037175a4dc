//! The way to a Kubernetes API server: who is asked, as whom, and what its refusals mean.
//!
//! Guarantees: every call has a bound (`bounded`). That the API server is away is no error of [`connect`].

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{Client, config::Kubeconfig};

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

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// Nobody answered, or with "not now".
    #[error("{0}")]
    Away(String),
    /// Somebody else wrote at the same time.
    #[error("{0}")]
    Conflict(String),
    /// What the call names is not there.
    #[error("{0}")]
    Missing(String),
    /// The caller may not.
    #[error("{0}")]
    Forbidden(String),
    /// The object is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else { return Self::Away(chain(&error)) };
        let why = status.message.clone();
        match status.code {
            409 => Self::Conflict(why),
            404 => Self::Missing(why),
            401 | 403 => Self::Forbidden(why),
            400 | 413 | 422 => Self::Invalid(why),
            _ => Self::Away(format!("{} {why}", status.code)),
        }
    }
}

/// A call that ends within its bound.
pub(crate) async fn bounded<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(CALL, call).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::Away(format!("no answer within {CALL:?}"))),
    }
}

/// An error with its causes, as far as they say something new.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Three quarters to five quarters of it: many nodes do not do the same at the same time.
pub(crate) fn jitter(time: Duration) -> Duration {
    let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    time * (3 * 128 + random) / 512
}
