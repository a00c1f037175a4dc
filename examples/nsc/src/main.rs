//! nsc

fn main() {}
