//! Who calls from the agent's own network, asked before a call is looked at.
//!
//! Guarantees: the kernel is asked once for each socket, on a thread that may wait, and of nobody but callers of that network; only in
//! Kubernetes, where pods are known.

use std::{pin::Pin, sync::Arc};

use nsm_fdpass::Connection;
use tonic::{body::Body, codegen::http::Request};
use tower::{BoxError, filter::AsyncPredicate};

use crate::{config::RegistryKind, manager::Ids, state::blocking};

/// Lets every call through; of some the caller is asked about first.
#[derive(Debug, Clone)]
pub(crate) struct Identified {
    ids: Arc<Ids>,
    registry: RegistryKind,
}

impl Identified {
    /// `ids` tells which callers are of the agent's own network.
    pub(crate) fn new(ids: Arc<Ids>, registry: RegistryKind) -> Self {
        Self { ids, registry }
    }
}

impl AsyncPredicate<Request<Body>> for Identified {
    type Future = Pin<Box<dyn Future<Output = Result<Request<Body>, BoxError>> + Send>>;
    type Request = Request<Body>;

    fn check(&mut self, call: Request<Body>) -> Self::Future {
        let known = match self.registry {
            RegistryKind::Embedded => None,
            RegistryKind::Kubernetes => call.extensions().get::<Connection>().map(|socket| socket.peer.clone()),
        };
        let asked = known.filter(|peer| peer.groups().is_none() && self.ids.is_in_our_network(peer));
        Box::pin(async move {
            if let Some(peer) = asked {
                blocking(move || {
                    peer.ask_groups();
                })
                .await;
            }
            Ok(call)
        })
    }
}
