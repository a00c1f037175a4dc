//! Why there is no connection, and what to do about it.

use std::{io, time::Duration};

use rustix::io::Errno;

use crate::{address::Address, handshake::Refusal, layout::TooLarge};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens there, or this process may not connect.
    #[error("memif socket {address}: {cause}{}", unreachable(address, cause))]
    Connect {
        /// Where.
        address: Address,
        /// What the kernel says.
        cause: io::Error,
    },
    /// The server refuses.
    #[error("memif socket {address}: the server refuses{}: {reason} (code {code}){}", named(*id, reason), fix(reason))]
    Refused {
        /// Where.
        address: Address,
        /// Which interface was asked for.
        id: u32,
        /// 0 in all servers that are known.
        code: u32,
        /// Why, in the server's words.
        reason: String,
    },
    /// The server has hung up without a word. VPP does so for another version.
    #[error("memif socket {address}: closed by the server where {awaited} was expected")]
    Closed {
        /// Where.
        address: Address,
        /// What would have been next.
        awaited: &'static str,
    },
    /// The server is silent.
    #[error("memif socket {address}: no {awaited} within {timeout:?}")]
    Timeout {
        /// Where.
        address: Address,
        /// What would have been next.
        awaited: &'static str,
        /// How long was waited in all.
        timeout: Duration,
    },
    /// The server breaks the protocol. It was told so.
    #[error("memif socket {address}: {refusal}")]
    Protocol {
        /// Where.
        address: Address,
        /// How.
        refusal: Refusal,
    },
    /// More than fits one region.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// No memory or no descriptors.
    #[error("memory and eventfds of a memif: {0}")]
    Memory(io::Error),
}

/// What to look at when the kernel does not connect.
fn unreachable(address: &Address, cause: &io::Error) -> &'static str {
    match (Errno::from_io_error(cause), address.as_path()) {
        // A namespace can be given to the client: which one it is, it knows best.
        (Some(Errno::CONNREFUSED), None) => "; does the server run, and in the same network namespace?",
        (Some(Errno::CONNREFUSED), Some(_)) => "; the file is no listening socket: does the server run?",
        (Some(Errno::NOENT), _) => "; does the server run?",
        (Some(Errno::ACCESS), _) => {
            "; the user needs write permission on the socket, and search permission on its directories"
        }
        (Some(Errno::PROTOTYPE), _) => "; another kind of server listens there: a memif's is SOCK_SEQPACKET",
        (Some(Errno::AGAIN), _) => "; the server's queue is full: does it still accept?",
        (_, _) => "",
    }
}

/// The interface, unless the server has named it.
fn named(id: u32, reason: &str) -> String {
    let name = format!("interface id {id}");
    if reason.contains(&name) { String::new() } else { format!(" {name}") }
}

/// What to set, by the words that this crate, VPP, DPDK and libmemif have for it. A server may say anything; then there is no advice.
fn fix(reason: &str) -> &'static str {
    let reason = reason.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if says(&["secret"]) {
        "; set the interface's secret (Client::secret)"
    } else if says(&["mode mismatch"]) {
        "; set the interface's mode (Client::mode)"
    } else if says(&["already connected"]) {
        "; it is free once its other client has gone"
    } else if says(&["unknown interface id", "unmatched interface id", "id not found"]) {
        "; set the id of an interface that the server has (Client::id)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_interface_once_and_what_to_set() {
        let cases = [
            ("unknown interface id 7", "refuses: ", "(Client::id)"),
            ("unmatched interface id", "refuses interface id 7: ", "(Client::id)"),
            ("ID not found", "refuses interface id 7: ", "(Client::id)"),
            ("incorrect secret for interface id 7", "refuses: ", "(Client::secret)"),
            ("Incorrect secret", "refuses interface id 7: ", "(Client::secret)"),
            ("mode mismatch: IP, expected Ethernet", "refuses interface id 7: ", "(Client::mode)"),
            ("interface id 7 is already connected", "refuses: ", "its other client has gone"),
            ("user 3 may not connect to interface id 7", "refuses: ", "(code 0)"),
        ];
        for (reason, before, after) in cases {
            let address = "@x".parse().unwrap();
            let said = ConnectError::Refused { address, id: 7, code: 0, reason: reason.into() }.to_string();
            assert!(said.contains(&format!("{before}{reason} (code 0)")) && said.ends_with(after), "{said}");
        }
    }
}
