//! Peers.

fn main() {}
