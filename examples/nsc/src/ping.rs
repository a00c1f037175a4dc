//! Whether the other end of a connection answers pings.
//!
//! Guarantees: asks from the connection's own addresses to those of the endpoint, all families, and all must answer. Where
//! it may not ask (`net.ipv4.ping_group_range`), or there is nobody to ask, it says yes: a check that cannot be made must
//! not take connections down.
//!
//! Assumes: it runs in the connection's namespace.

use std::{
    io,
    net::{IpAddr, UdpSocket as StdSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use ipnetwork::IpNetwork;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, bind, socket};
use nsm_proto::connection::Connection;
use nsm_sdk::heal::Liveness;
use tokio::net::UdpSocket;

/// Pause between two requests of one look: one that gets lost is no dead wire.
const AGAIN: Duration = Duration::from_millis(250);

/// ICMP echo by datagram sockets, which need no privilege.
#[derive(Debug, Default)]
pub(crate) struct Ping {
    told: AtomicBool,
}

#[async_trait]
impl Liveness for Ping {
    async fn alive(&self, connection: &Connection) -> bool {
        for (from, to) in pairs(connection) {
            match echo(from, to).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    if !self.told.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            "wires are not checked: net.ipv4.ping_group_range excludes this process's group"
                        );
                    }
                }
                Err(error) => {
                    tracing::debug!(connection = connection.id, %from, %to, %error, "no ping");
                    return false;
                }
            }
        }
        true
    }
}

/// The first address of each family, at both ends.
fn pairs(connection: &Connection) -> Vec<(IpAddr, IpAddr)> {
    let Some(ip) = connection.context.as_ref().and_then(|context| context.ip_context.as_ref()) else {
        return Vec::new();
    };
    let first = |list: &[String], v4: bool| {
        list.iter()
            .filter_map(|text| Some(text.parse::<IpNetwork>().ok()?.ip()))
            .find(|address| address.is_ipv4() == v4)
    };
    [true, false]
        .into_iter()
        .filter_map(|v4| Some((first(&ip.src_ip_addrs, v4)?, first(&ip.dst_ip_addrs, v4)?)))
        .collect()
}

/// Returns when an answer came; asks again until then.
async fn echo(from: IpAddr, to: IpAddr) -> io::Result<()> {
    let (family, protocol, request, reply) = match from {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let file = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
    match from {
        IpAddr::V4(from) => bind(file.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(from, 0)))?,
        IpAddr::V6(from) => bind(file.as_raw_fd(), &SockaddrIn6::from(std::net::SocketAddrV6::new(from, 0, 0, 0)))?,
    }
    let socket = UdpSocket::from_std(StdSocket::from(file))?;
    socket.connect((to, 0)).await?;
    // The kernel fills in checksum and identifier (icmp(7)).
    let packet = [request, 0, 0, 0, 0, 0, 0, 1, b'n', b's', b'c', 0, 0, 0, 0, 0];
    let mut answer = [0; 128];
    loop {
        socket.send(&packet).await?;
        match tokio::time::timeout(AGAIN, socket.recv(&mut answer)).await {
            Ok(Ok(length)) if length > 0 && answer[0] == reply => return Ok(()),
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use nsm_proto::connectioncontext::{ConnectionContext, IpContext};

    use super::*;

    #[test]
    fn families_are_paired() {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let ip = IpContext {
            src_ip_addrs: texts(&["10.0.0.1/32", "fd00::1/128", "nonsense"]),
            dst_ip_addrs: texts(&["fd00::/128", "10.0.0.0/32"]),
            ..IpContext::default()
        };
        let context = ConnectionContext { ip_context: Some(ip), ..ConnectionContext::default() };
        let connection = Connection { context: Some(context), ..Connection::default() };
        let texts: Vec<_> = pairs(&connection).iter().map(|(from, to)| format!("{from} {to}")).collect();
        assert_eq!(texts, ["10.0.0.1 10.0.0.0", "fd00::1 fd00::"]);
        assert!(pairs(&Connection::default()).is_empty());
    }
}
