//! What a connection carries.

/// IP packets; the default of a network service that names none.
pub const IP: &str = "IP";
/// Ethernet frames.
pub const ETHERNET: &str = "ETHERNET";
