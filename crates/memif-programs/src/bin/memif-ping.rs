//! Answers pings at a shared-memory interface, for as long as it is let: ARP, neighbour discovery, ICMP and ICMPv6.
#![forbid(unsafe_code)]

use std::{net::IpAddr, time::Duration};

use anyhow::bail;
use clap::Parser;
use memif::Connection;
use memif_programs::{interface, respond::Host, stop::Stop};

/// How long to wait for packets before looking whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// The longest packet that is answered.
const LONGEST: usize = 65536;

/// Answers ARP, neighbour discovery and pings at a memif.
#[derive(Debug, Parser)]
#[command(name = "memif-ping", version)]
struct Flags {
    #[command(flatten)]
    interface: interface::Flags,
    /// An address to answer at; may be given several times.
    #[arg(long = "address", required = true, value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// The Ethernet address to answer with.
    #[arg(long, default_value = "02:fe:6d:65:6d:03", value_parser = mac, value_name = "MAC")]
    mac: [u8; 6],
    /// Stop after so many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
    let bytes: Option<[u8; 6]> = bytes.ok().and_then(|bytes| bytes.try_into().ok());
    bytes
        .filter(|mac| mac[0] & 1 == 0)
        .ok_or(format!("{text:?}: expected six bytes such as 02:00:00:00:00:01, not of a group"))
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let stop = Stop::new(flags.seconds.map(Duration::from_secs))?;
    let host = Host { mac: flags.mac, addresses: flags.addresses };
    let mut interface = flags.interface.open()?;
    let mut answered = 0_u64;
    while let Some(mut connection) = interface.next(|| stop.over())? {
        let down = serve(&mut connection, &host, &stop, &mut answered);
        if let Err(down) = down {
            eprintln!("down: {down}");
        }
    }
    println!("answered={answered}");
    if answered == 0 {
        interface.met()?;
        bail!("nobody asked");
    }
    Ok(())
}

fn serve(connection: &mut Connection, host: &Host, stop: &Stop, answered: &mut u64) -> Result<(), memif::Down> {
    let mode = connection.mode;
    let (Some(rx), Some(tx)) = (connection.rx.first_mut(), connection.tx.first_mut()) else { return Ok(()) };
    let mut copy = vec![0; LONGEST];
    while !stop.over() {
        if !rx.wait(LOOK)? {
            continue;
        }
        let burst = rx.burst(256)?;
        let mut answers = tx.burst()?;
        for packet in burst.iter() {
            // A copy: what is judged must be what is answered.
            let length = packet.copy_to(&mut copy);
            if let Some(answer) = host.answer(&copy[..length], mode) {
                // What does not fit is lost, as on a full link.
                *answered += u64::from(answer.put(&mut answers).is_ok());
            }
        }
        answers.send()?;
    }
    Ok(())
}
