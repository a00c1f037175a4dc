//! What the kernel says.

/// A datagram of netlink messages, in every place where one is read.
pub fn netlink(data: &[u8]) {
    nsm_netlink::fuzzing::read(data);
}
