//! What the fuzz targets call: the readers of everything that a peer, a runtime, an operator or the kernel says.
//!
//! Guarantees: whatever the bytes, a target returns; it panics only where a reader panics or breaks the promise that its target
//! states. No target touches the node.
//!
//! `fuzz/` wraps each one for libFuzzer; `tests/corpus.rs` runs them over `fuzz/seeds/` and over the same mutations of these
//! each time.
#![forbid(unsafe_code)]

mod cni;
mod documents;
mod kernel;
mod memif;
mod networks;
mod nsm;
mod records;
mod settings;
mod vpp;

pub use cni::{cni_call, cni_environment, cni_result};
pub use documents::manifest;
pub use kernel::netlink;
pub use memif::{memif_control, memif_memory};
pub use networks::{meta_configuration, network_definition, network_selection, network_status};
pub use nsm::{addresses, connection, registry};
pub use records::{record, stored};
pub use settings::{annotations, cidr_prefix, control_groups, network_services, setting};
pub use vpp::{vpp_definitions, vpp_message, vpp_message_seed};

/// What a fuzzer calls with bytes.
pub type Target = fn(&[u8]);

/// All targets by name: that of the function, of its file in `fuzz/fuzz_targets/` and of its folder in `fuzz/seeds/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("addresses", addresses),
    ("annotations", annotations),
    ("cidr_prefix", cidr_prefix),
    ("cni_call", cni_call),
    ("cni_environment", cni_environment),
    ("cni_result", cni_result),
    ("connection", connection),
    ("control_groups", control_groups),
    ("manifest", manifest),
    ("memif_control", memif_control),
    ("memif_memory", memif_memory),
    ("meta_configuration", meta_configuration),
    ("netlink", netlink),
    ("network_definition", network_definition),
    ("network_selection", network_selection),
    ("network_services", network_services),
    ("network_status", network_status),
    ("record", record),
    ("registry", registry),
    ("setting", setting),
    ("stored", stored),
    ("vpp_definitions", vpp_definitions),
    ("vpp_message", vpp_message),
];
