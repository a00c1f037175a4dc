//! nsm-agent

fn main() {}
