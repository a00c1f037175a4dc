//! The least that a call could take: bytes of the same number over a socket and back, with nothing in between.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// A control_ping with its header, and the answer.
const REQUEST: usize = 16 + 10;
const REPLY: usize = 16 + 18;

pub(crate) struct Echo {
    stream: UnixStream,
}

/// Answers on a thread, until the other side goes.
pub(crate) fn start(path: &Path) -> anyhow::Result<Echo> {
    let listener = UnixListener::bind(path)?;
    let stream = UnixStream::connect(path)?;
    let (mut peer, _) = listener.accept()?;
    std::thread::Builder::new().name("echo".into()).spawn(move || {
        let mut request = [0; REQUEST];
        while peer.read_exact(&mut request).and_then(|()| peer.write_all(&[0; REPLY])).is_ok() {}
    })?;
    Ok(Echo { stream })
}

impl Echo {
    pub(crate) fn once(&mut self) -> std::io::Result<()> {
        self.stream.write_all(&[0; REQUEST])?;
        self.stream.read_exact(&mut [0; REPLY])
    }
}
