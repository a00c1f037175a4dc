//! Waiting until IPv6 addresses can be used.
//!
//! The kernel acknowledges a new IPv6 address before it is one: a worker of its own enters it into the local table a moment
//! later, also without duplicate address detection, and tells so by RTM_NEWADDR. Until then packets to it are dropped. On a
//! busy machine the moment is longer than the way to the first packet.

use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::frame::Frames;
use crate::{Error, IfIndex, IpNetwork, message, sys};

/// Longest wait: the addresses are there then all the same, only nobody said so.
const LONGEST: Duration = Duration::from_millis(500);
/// Room for one datagram of the kernel's.
const BUFFER_BYTES: usize = 8 << 10;

/// Hears of IPv6 addresses in one namespace.
pub(crate) struct AddressEvents {
    socket: Socket,
}

impl AddressEvents {
    /// Hears of those in the calling thread's namespace, from now on.
    pub(crate) fn open() -> Result<Self, Error> {
        let open = || -> std::io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.set_non_blocking(true)?;
            socket.add_membership(libc::RTNLGRP_IPV6_IFADDR)?;
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(|e| Error::io("listen for IPv6 addresses", e))? })
    }

    /// Returns when all of these have been heard of, or after a bounded time.
    pub(crate) fn wait_for(&self, index: IfIndex, mut missing: Vec<IpNetwork>) {
        let until = Instant::now() + LONGEST;
        let mut buffer = vec![0; BUFFER_BYTES];
        while !missing.is_empty() && self.readable(until) {
            match self.socket.recv(&mut buffer.as_mut_slice(), 0) {
                Ok(len) => {
                    for frame in Frames::new(&buffer[..len]).map_while(Result::ok) {
                        if frame.kind == libc::RTM_NEWADDR
                            && let Ok(Some(address)) = message::read_address(frame.payload)
                        {
                            missing.retain(|wanted| address.index != index || address.network != *wanted);
                        }
                    }
                }
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {}
                // Too much was said to keep: what was to be heard may have been among it.
                Err(_) => return,
            }
        }
        if !missing.is_empty() {
            tracing::debug!(?missing, "IPv6 addresses were not announced in time");
        }
    }

    fn readable(&self, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let mut fds = [PollFd::new(sys::descriptor(&self.socket), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut fds, timeout) {
                Ok(ready) if ready > 0 => return true,
                Err(nix::errno::Errno::EINTR) => {}
                Ok(_) | Err(_) => return false,
            }
        }
    }
}
