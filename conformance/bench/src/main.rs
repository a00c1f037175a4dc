//! nsm-bench

fn main() {}
