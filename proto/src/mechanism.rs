//! Mechanism classes, types and parameter keys, as networkservicemesh/api spells them.

/// Class of a mechanism within a node.
pub const LOCAL: &str = "LOCAL";
/// Class of a mechanism between nodes.
pub const REMOTE: &str = "REMOTE";

/// A kernel interface.
pub const KERNEL: &str = "KERNEL";
/// Shared memory packet interface.
pub const MEMIF: &str = "MEMIF";
/// VXLAN tunnel (RFC 7348).
pub const VXLAN: &str = "VXLAN";
/// WireGuard tunnel.
pub const WIREGUARD: &str = "WIREGUARD";
/// IEEE 802.1Q VLAN.
pub const VLAN: &str = "VLAN";

/// URL of the network namespace (KERNEL) or of the socket (MEMIF): `inode://DEV/INO` on the wire.
pub const INODE_URL: &str = "inodeURL";
/// KERNEL: the interface's name, at most 15 bytes.
pub const INTERFACE_NAME: &str = "name";
/// MEMIF: the socket's file name.
pub const SOCKET_FILE: &str = "socketfile";
/// Largest packet, in bytes, in decimal.
pub const MTU: &str = "MTU";
