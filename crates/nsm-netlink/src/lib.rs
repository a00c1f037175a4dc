//! nsm-netlink
