//! The agent's private API as other versions speak it: `nsm-cni`, `nsmctl` and `nsm-agent` must work one version apart.
//!
//! [`v0_1`] is what version 0.1 spoke, kept in `v0.1/`; [`later`] is today's API with a field more in each message and a method
//! more in each service. When a version is released, its files of `proto/proto/` are copied to a folder of their own here, and
//! the one before the last may go.

macro_rules! api {
    ($folder:literal) => {
        pub mod connection {
            include!(concat!(env!("OUT_DIR"), "/", $folder, "/connection.rs"));
        }
        pub mod connectioncontext {
            include!(concat!(env!("OUT_DIR"), "/", $folder, "/connectioncontext.rs"));
        }
        pub mod registry {
            include!(concat!(env!("OUT_DIR"), "/", $folder, "/registry.rs"));
        }
        mod nsm {
            pub mod cni {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/", $folder, "/nsm.cni.v1.rs"));
                }
            }
            pub mod admin {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/", $folder, "/nsm.admin.v1.rs"));
                }
            }
        }
        pub use nsm::{admin::v1 as admin, cni::v1 as cni};
    };
}

/// Version 0.1.
pub mod v0_1 {
    api!("v0_1");
}

/// A version to come.
pub mod later {
    api!("later");
}

/// Version 0.1 as a `FileDescriptorSet`.
pub const V0_1: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/v0_1.bin"));
/// Today's private API as a `FileDescriptorSet`.
pub const CURRENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/current.bin"));
