//! nsm-cni

fn main() {}
