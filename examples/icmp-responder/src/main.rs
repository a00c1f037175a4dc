//! icmp-responder

fn main() {}
