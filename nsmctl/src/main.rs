//! nsmctl

fn main() {}
