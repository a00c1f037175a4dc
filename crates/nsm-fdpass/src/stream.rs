//! A unix stream socket whose bytes and files both arrive.
//!
//! Guarantees: every read has room for control data, so no file is lost to a plain read; received descriptors are owned and
//! close-on-exec before anything looks at them; a file queued in the outbox leaves with one byte of its own ahead of what is
//! written next; an accepted peer that leaves more than [`crate::MAX_FILES`] files unclaimed loses the connection.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::UnixStream,
    sync::Semaphore,
};

use crate::{Inbox, MAX_FILES, Outbox, TooMany, sys};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Connected,
    Accepted,
}

/// A unix stream socket that carries files beside bytes.
#[derive(Debug)]
pub struct FdStream {
    socket: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
    side: Side,
    /// Its end tells that the socket is closed.
    alive: Arc<()>,
}

impl FdStream {
    /// Takes over a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            side: Side::Connected,
            alive: Arc::default(),
        }
    }

    /// The same for an accepted socket, whose peer has this room for files that nobody has claimed.
    pub(crate) fn accepted(socket: UnixStream, room: Arc<Semaphore>) -> Self {
        let mut stream = Self::new(socket);
        stream.inbox = Inbox::sharing(room);
        stream.side = Side::Accepted;
        stream
    }

    /// Files that came.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Files to go.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Can be upgraded as long as the socket is open.
    pub(crate) fn alive(&self) -> Weak<()> {
        Arc::downgrade(&self.alive)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let message = sys::receive(&self.socket, buffer)?;
        let mut too_many = false;
        for file in message.files {
            too_many |= self.inbox.put(file) == Err(TooMany);
        }
        if message.truncated {
            tracing::warn!("passed files were lost, most likely for want of descriptors: the connection is closed");
            return Err(io::Error::other(
                "passed files were lost: is the limit of open files (RLIMIT_NOFILE) reached?",
            ));
        }
        if too_many {
            tracing::warn!(most = MAX_FILES, "a peer passed more files than it named: its connection is closed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, TooMany));
        }
        Ok(message.bytes)
    }

    /// One byte with the first queued file; `None` when none is queued.
    fn send_file(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let file = self.outbox.next()?;
        let fds = [file.as_raw_fd()];
        let first = [IoSlice::new(bytes.get(..1)?)];
        let rights = [ControlMessage::ScmRights(&fds)];
        let sent = sendmsg::<()>(self.socket.as_raw_fd(), &first, &rights, MsgFlags::MSG_NOSIGNAL, None);
        if sent.is_ok() {
            self.outbox.sent();
        }
        Some(sent.map_err(io::Error::from))
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        first: &[u8],
        plain: impl Fn() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let write = || self.send_file(first).unwrap_or_else(&plain);
            match self.socket.try_io(Interest::WRITABLE, write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncRead for FdStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            match self.socket.try_io(Interest::READABLE, || self.receive(room)) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for FdStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_send(cx, bytes, || send(&self.socket, &[IoSlice::new(bytes)]))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(first) = parts.iter().find(|part| !part.is_empty()) else { return Poll::Ready(Ok(0)) };
        self.poll_send(cx, first, || send(&self.socket, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl AsFd for FdStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Files that nobody claimed pin what they are of: they go with the accepted socket, whoever still holds the inbox. On the
/// calling side an answer may still be on its way to its caller when the socket ends; the channel's owner drops the inbox.
impl Drop for FdStream {
    fn drop(&mut self) {
        if self.side == Side::Accepted {
            self.inbox.clear();
        }
    }
}

fn send(socket: &UnixStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(sendmsg::<()>(socket.as_raw_fd(), parts, &[], MsgFlags::MSG_NOSIGNAL, None)?)
}
