//! The task of a connection: reads what comes, writes what callers left.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::shared::Shared;
use crate::error::Loss;
use crate::frame::Incoming;

/// Reads in a row before others get a turn.
const READS: usize = 16;

pub(super) async fn run(shared: Arc<Shared>, mut incoming: Incoming) {
    let loss = follow(&shared, &mut incoming).await;
    shared.end(&loss);
}

async fn follow(shared: &Shared, incoming: &mut Incoming) -> Loss {
    loop {
        // What came with the answer to the handshake is here already.
        loop {
            match incoming.next() {
                Ok(Some(message)) => shared.deliver(message),
                Ok(None) => break,
                Err(long) => {
                    return Loss::Nonsense(format!(
                        "VPP announces a message of {} bytes, expected at most {}",
                        long.length, shared.limits.message
                    ));
                }
            }
        }
        if let Some(loss) = shared.loss() {
            return loss;
        }
        match step(shared, incoming).await {
            Ok(true) => {}
            Ok(false) if shared.has_parted() => return Loss::Here,
            Ok(false) => return Loss::Closed,
            Err(error) => return Loss::Io(Arc::new(error)),
        }
    }
}

/// Waits until something can be done, and does it; false at the stream's end.
async fn step(shared: &Shared, incoming: &mut Incoming) -> io::Result<bool> {
    let written = shared.flush()?;
    let interest = if written { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
    tokio::select! {
        ready = shared.stream.ready(interest) => {
            if !ready?.is_readable() {
                return Ok(true);
            }
        }
        () = shared.wake.notified() => return Ok(true),
    }
    for _ in 0..READS {
        match shared.stream.try_read_buf(incoming.room()) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
        // One whole message at a time is held, and what one read brings behind it.
        if incoming.has_whole() {
            return Ok(true);
        }
    }
    Ok(true)
}

/// Writes all of it.
pub(crate) async fn write_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads some; 0 is the end.
pub(crate) async fn read(stream: &UnixStream, room: &mut BytesMut) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read_buf(room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}
