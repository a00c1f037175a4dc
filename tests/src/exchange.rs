//! Bytes both ways over UDP and TCP, between two namespaces.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::Namespace;

const BOUND: Duration = Duration::from_secs(3);

/// More than any window: segments of full size cross in both directions.
const STREAM: usize = 512 * 1024;

/// Sends a datagram of `length` bytes from `client` to `address` in `server`, and back.
pub fn udp_exchange(client: &Namespace, server: &Namespace, address: IpAddr, length: usize) -> anyhow::Result<()> {
    let listening = server.run(move || UdpSocket::bind(SocketAddr::new(address, 0)))?.context("UDP server")?;
    listening.set_read_timeout(Some(BOUND))?;
    let target = listening.local_addr()?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sending = client.run(move || UdpSocket::bind(any))?.context("UDP client")?;
    sending.set_read_timeout(Some(BOUND))?;
    sending.connect(target).context("UDP client")?;

    let message = pattern(length);
    let mut buffer = vec![0; length + 1];
    sending.send(&message).context("UDP request")?;
    let (got, from) = listening.recv_from(&mut buffer).context("UDP request")?;
    listening.send_to(&buffer[..got], from).context("UDP answer")?;
    let got = sending.recv(&mut buffer).context("UDP answer")?;
    ensure!(buffer[..got] == message, "the datagram came back changed");
    Ok(())
}

/// Sends half a megabyte from `client` to `address` in `server` and back.
pub fn tcp_exchange(client: &Namespace, server: &Namespace, address: IpAddr) -> anyhow::Result<()> {
    let listening = server.run(move || TcpListener::bind(SocketAddr::new(address, 0)))?.context("TCP server")?;
    let target = listening.local_addr()?;
    let echo = thread::spawn(move || -> anyhow::Result<()> {
        let (mut stream, _) = listening.accept()?;
        stream.set_read_timeout(Some(BOUND))?;
        let mut received = vec![0; STREAM];
        stream.read_exact(&mut received)?;
        Ok(stream.write_all(&received)?)
    });
    let mut stream = client.run(move || TcpStream::connect_timeout(&target, BOUND))?.context("TCP connection")?;
    stream.set_read_timeout(Some(BOUND))?;
    let message = pattern(STREAM);
    stream.write_all(&message).context("TCP request")?;
    let mut received = vec![0; STREAM];
    stream.read_exact(&mut received).context("TCP answer")?;
    ensure!(received == message, "the stream came back changed");
    echo.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("TCP server")
}

/// Bytes that differ by place.
fn pattern(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}
