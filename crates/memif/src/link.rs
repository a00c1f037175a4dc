//! Whether the two ends are still connected: the control socket after the handshake.
//!
//! Guarantees: the first cause is the one that is told, to everybody; once down a link stays down (the next connection has a link of its
//! own), and whoever waits on it is woken.

use std::{
    fmt,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use rustix::net::{Shutdown, shutdown};

use crate::{
    channel::{self, left, readable},
    control::Message,
    text::Text,
};

/// Why a link is down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Down {
    /// The peer said goodbye.
    #[error("the peer disconnected: {reason} (code {code})")]
    Disconnected {
        /// 0 in all implementations that are known.
        code: u32,
        /// Why, in the peer's words.
        reason: Text<96>,
    },
    /// The peer is gone without a word.
    #[error("the peer has closed the connection")]
    Closed,
    /// The peer broke the protocol and was disconnected.
    #[error("the peer was disconnected: {0}")]
    Broken(String),
    /// This end has closed the connection.
    #[error("closed here: {0}")]
    Local(String),
}

/// A handle on a connection's link. It keeps neither the connection up nor its memory.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    control: OwnedFd,
    down: OnceLock<Down>,
    /// One at a time hears what the peer says, so that a goodbye is not overtaken by the end behind it.
    hearing: Mutex<()>,
}

impl Link {
    pub(crate) fn new(control: OwnedFd) -> Self {
        Self(Arc::new(Inner { control, down: OnceLock::new(), hearing: Mutex::new(()) }))
    }

    /// Whether the link is up, as far as is known: costs nothing.
    #[inline]
    pub fn known(&self) -> Result<(), Down> {
        self.0.down.get().map_or(Ok(()), |down| Err(down.clone()))
    }

    /// Whether the link is up, asked of the kernel.
    ///
    /// # Errors
    /// Why it is down.
    pub fn check(&self) -> Result<(), Down> {
        let hearing = self.0.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        self.known()?;
        let down = match channel::receive(&self.0.control) {
            Ok(None) => return Ok(()),
            Ok(Some(received)) => match received.message {
                Message::Disconnect { code, reason } => Down::Disconnected { code, reason },
                other => Down::Broken(format!("{} on a link that is up: expected DISCONNECT", other.name())),
            },
            Err(channel::Error::Closed) => Down::Closed,
            Err(error) => Down::Broken(error.to_string()),
        };
        drop(hearing);
        self.end(down);
        self.known()
    }

    /// Waits until the link is down, at most `timeout` long.
    pub fn wait_down(&self, timeout: Duration) -> Option<Down> {
        let deadline = channel::deadline(timeout);
        loop {
            if let Err(down) = self.check() {
                return Some(down);
            }
            let rest = left(deadline);
            if rest.is_zero() || channel::wait(&mut [readable(&self.0.control)], rest).is_err() {
                return self.check().err();
            }
        }
    }

    /// Closes the connection and tells the peer why, in at most 95 bytes.
    pub fn close(&self, reason: &str) {
        self.end(Down::Local(reason.to_owned()));
    }

    /// The peer breaks the protocol.
    pub(crate) fn broken(&self, how: impl fmt::Display) -> Down {
        self.end(Down::Broken(how.to_string()));
        self.known().err().unwrap_or(Down::Closed)
    }

    fn end(&self, down: Down) {
        let told = match &down {
            Down::Local(reason) | Down::Broken(reason) => Some(Text::cut(reason)),
            Down::Disconnected { .. } | Down::Closed => None,
        };
        if self.0.down.set(down).is_ok() {
            if let Some(reason) = told {
                let _ = channel::send(&self.0.control, &Message::Disconnect { code: 0, reason }, None);
            }
            // Whoever waits on the socket, here or there, is woken by its end.
            let _ = shutdown(self.0.control.as_fd(), Shutdown::Both);
        }
    }

    pub(crate) fn control(&self) -> &OwnedFd {
        &self.0.control
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Ok(()) => f.write_str("up"),
            Err(down) => write!(f, "down: {down}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn links() -> (Link, Link) {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Link::new(a), Link::new(b))
    }

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_goodbye_is_heard_with_its_reason() {
        let (near, far) = links();
        assert_eq!((near.check(), far.check()), (Ok(()), Ok(())));
        assert_eq!(far.wait_down(Duration::ZERO), None);
        near.close("maintenance");
        let reason = Text::cut("maintenance");
        assert_eq!(far.wait_down(SOON), Some(Down::Disconnected { code: 0, reason }));
        assert_eq!(near.known(), Err(Down::Local("maintenance".into())));
        near.close("again");
        assert_eq!(near.known(), Err(Down::Local("maintenance".into())));
    }

    #[test]
    fn the_end_of_the_peer_is_noticed() {
        let (near, far) = links();
        drop(near);
        assert_eq!(far.wait_down(SOON), Some(Down::Closed));
    }

    #[test]
    fn nothing_but_a_goodbye_comes_on_a_link() {
        let (near, far) = links();
        channel::send(near.control(), &Message::Ack, None).unwrap();
        let down = far.wait_down(SOON).unwrap();
        assert_eq!(down, Down::Broken("ACK on a link that is up: expected DISCONNECT".into()));
        assert!(matches!(near.wait_down(SOON), Some(Down::Disconnected { .. })));
    }
}
