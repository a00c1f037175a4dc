//! A real kube-apiserver with etcd in a lab, and nodes whose agents use it; or a whole cluster, with kubelets and containerd.
//!
//! Guarantees: both run in a network namespace of their own, on its loopback, with certificates and tokens made for the test;
//! each node reaches the API server through a relay that can be cut. Agents have the rights of `deploy/rbac.yaml` and no others,
//! and every call is in the API server's audit log, so that a test can tell what was asked.
//!
//! A [`Mesh`] has machines: each a network and mounts of its own in the lab, whose containers are ordinary ones. Nothing of them is
//! left when the lab ends, except control groups, which [`mod@scenarios`] removes.
//!
//! Assumption: inside a lab's sandbox (`nsm_lab::runner`).
#![forbid(unsafe_code)]

mod agent;
mod audit;
mod cgroups;
mod claims;
mod cluster;
pub mod definitions;
mod deployed;
mod devices;
pub mod documented;
mod images;
mod machine;
mod member;
mod mesh;
mod place;
pub mod pods;
mod power;
mod relay;
pub mod releases;
mod runtime;
pub mod scenarios;
mod traces;

pub use agent::Agent;
pub use audit::Asked;
pub use claims::{Driver, RESOURCE_API};
pub use cluster::{Cluster, deployed};
pub use devices::Devices;
pub use images::{BUSYBOX, IDLE, Image};
pub use machine::Machine;
pub use member::Member;
pub use mesh::{Mesh, SOON, idle, is, patiently, sandbox_of};
pub use nsm_peers::tools::tool;
pub use place::Place;
pub use relay::Relay;
pub use runtime::{BIN_DIR, CONF_DIR, Release};
pub use traces::Traces;
