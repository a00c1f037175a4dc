//! A real kube-apiserver with etcd in a lab, and nodes whose agents use it.
//!
//! Guarantees: both run in a network namespace of their own, on its loopback, with certificates and tokens made for the test;
//! each node reaches the API server through a relay that can be cut. Agents have the rights of `deploy/rbac.yaml` and no others,
//! and every call is in the API server's audit log, so that a test can tell what was asked.
//!
//! Assumption: inside a lab's sandbox (`nsm_lab::runner`).
#![forbid(unsafe_code)]

mod audit;
mod cluster;
mod relay;

pub use audit::Asked;
pub use cluster::{Cluster, Member};
pub use relay::Relay;
