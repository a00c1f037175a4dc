//! The NSM v1 API ([`networkservice`], [`connection`], [`connectioncontext`], [`registry`]), the agent's private API
//! ([`cni`], [`admin`]), and the constants that NSM v1 writes as plain strings ([`mechanism`], [`payload`], [`header`]).
//!
//! Package, message, field names and numbers are those of networkservicemesh/api v1.18. Maps are `BTreeMap`, so that
//! equal messages encode to equal bytes.

pub mod header;
pub mod mechanism;
pub mod payload;

/// NSM v1 package `networkservice`: Request and Close.
pub mod networkservice {
    tonic::include_proto!("networkservice");
}

/// NSM v1 package `connection`: connections, paths and their events.
pub mod connection {
    tonic::include_proto!("connection");
}

/// NSM v1 package `connectioncontext`: addresses, routes, DNS, Ethernet, MTU.
pub mod connectioncontext {
    tonic::include_proto!("connectioncontext");
}

/// NSM v1 package `registry`: network services and endpoints.
pub mod registry {
    tonic::include_proto!("registry");
}

/// What is asked of the kubelet about devices: package `v1` of its pod-resources API.
pub mod podresources {
    tonic::include_proto!("v1");
}

/// The private packages, nested as their names say because the generated code refers to its neighbours that way.
mod nsm {
    pub mod cni {
        pub mod v1 {
            tonic::include_proto!("nsm.cni.v1");
        }
    }
    pub mod admin {
        pub mod v1 {
            tonic::include_proto!("nsm.admin.v1");
        }
    }
}

/// The agent's private API towards `nsmctl`.
pub use nsm::admin::v1 as admin;
/// The agent's private API towards `nsm-cni`.
pub use nsm::cni::v1 as cni;
