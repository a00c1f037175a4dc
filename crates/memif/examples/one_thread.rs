//! Both ends of an interface in one thread: what a packet costs, without the time that processors wait for each other.

use std::time::{Duration, Instant};

use memif::{Address, Client, Connection, Listener, Rings, RxQueue, Server, TxQueue};

const BURST: usize = 256;
const BURSTS: u32 = 40_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = Address::abstract_name(format!("memif-example/{}", std::process::id()))?;
    let listener = Listener::bind(&address)?;
    let port = listener.add(Server::new(0))?;
    let soon = Duration::from_secs(5);
    let mut client = Client::new(address).rings(Rings::default()).connect(soon)?;
    let mut server = port.accept(soon)?.ok_or("nobody came")?;
    let (Connection { rx, tx, .. }, Connection { rx: to_server, tx: from_server, .. }) = (&mut client, &mut server);
    for length in [64, 1500] {
        let (up, down) = (cost(&mut tx[0], &mut to_server[0], length)?, cost(&mut from_server[0], &mut rx[0], length)?);
        println!("{length} bytes: {up:.1} ns to the server, {down:.1} ns to the client, sent and received");
    }
    Ok(())
}

/// Nanoseconds for a packet to be written, handed over, and read.
fn cost(tx: &mut TxQueue, rx: &mut RxQueue, length: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let packet = vec![7; length];
    let mut copy = vec![0; length];
    let began = Instant::now();
    for _ in 0..BURSTS {
        let mut burst = tx.burst()?;
        for _ in 0..BURST {
            burst.push(&packet)?;
        }
        burst.send()?;
        for packet in rx.burst(BURST)?.iter() {
            std::hint::black_box(packet.copy_to(&mut copy));
        }
    }
    Ok(began.elapsed().as_secs_f64() * 1e9 / (f64::from(BURSTS) * 256.0))
}
