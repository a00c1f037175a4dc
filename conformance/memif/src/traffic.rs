//! Packets that a peer sends back, whatever peer.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use memif::{Client, ConnectError, Connection};

/// How long anything may take.
pub const SOON: Duration = Duration::from_secs(20);

/// Connects to a server that may not have seen yet that the last client is gone, and refuses the next one until then.
///
/// # Errors
/// It does so for too long, or something else is wrong.
pub fn connected(client: &Client) -> Result<Connection, ConnectError> {
    let began = Instant::now();
    loop {
        match client.connect(SOON) {
            Err(ConnectError::Refused { .. }) if began.elapsed() < SOON => {}
            answer => return answer,
        }
    }
}

/// A packet whose bytes tell its number.
pub fn packet(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((number * 31 + at * 7) % 251).unwrap_or(0)).collect()
}

/// Sends these by one queue and takes them back by another, each whole and in order.
///
/// # Errors
/// One does not come back as it was, or not in time.
pub fn echoed_by(connection: &mut Connection, tx: usize, rx: usize, packets: &[Vec<u8>]) -> anyhow::Result<()> {
    let (mut sent, mut received) = (0, 0);
    let began = Instant::now();
    let tx = connection.tx.get_mut(tx).context("no such queue")?;
    let rx = connection.rx.get_mut(rx).context("no such queue")?;
    while received < packets.len() {
        let all = packets.len();
        ensure!(began.elapsed() < SOON, "{received} of {all} came back, {sent} were sent, {:?}", rx.counters().read());
        let mut burst = tx.burst()?;
        // No more than fits the ring that they come back by.
        while sent < packets.len() && sent - received < 200 && burst.push(&packets[sent]).is_ok() {
            sent += 1;
        }
        burst.send()?;
        rx.wait(Duration::from_millis(10))?;
        for packet in rx.burst(256)?.iter() {
            let expected = packets.get(received).context("more than was sent")?;
            ensure!(packet.to_vec() == *expected, "packet {received} of {} bytes is another one", expected.len());
            received += 1;
        }
    }
    ensure!(rx.counters().read().invalid == 0, "{:?}", rx.counters().read());
    Ok(())
}

/// The same by the first queues.
///
/// # Errors
/// As [`echoed_by`].
pub fn echoed(connection: &mut Connection, packets: &[Vec<u8>]) -> anyhow::Result<()> {
    echoed_by(connection, 0, 0, packets)
}

/// A peer takes packets before it can send them back: only when one comes back it is ready for [`echoed`].
///
/// # Errors
/// None ever does.
pub fn warm(connection: &mut Connection) -> anyhow::Result<()> {
    let began = Instant::now();
    let rx = connection.rx.first_mut().context("no queue")?;
    let tx = connection.tx.first_mut().context("no queue")?;
    while rx.burst(256)?.is_empty() {
        ensure!(began.elapsed() < SOON, "nothing comes back");
        let _ = tx.send(&[0xff; 60])?;
        rx.wait(Duration::from_millis(20))?;
    }
    while rx.wait(Duration::from_millis(200))? {
        drop(rx.burst(256)?);
    }
    Ok(())
}
