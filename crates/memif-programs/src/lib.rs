//! What the programs have in common: which interface, when to stop, and the packets that they read and write.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod interface;
pub mod pcap;
pub mod probe;
pub mod respond;
pub mod samples;
pub mod stop;
