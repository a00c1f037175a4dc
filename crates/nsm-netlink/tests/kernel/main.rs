//! Against the real kernel, in network namespaces that the tests make. The namespace they were started in is only read.
//!
//! They need root; without it they fail.

mod change;
mod configure;
mod delete;
mod events;
mod namespaces;
mod pairs;
mod speed;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use nsm_netlink::{
    IfName, IpNetwork, LinkConfig, LinkIdentity, Mac, Mtu, Netlink, Netns, NetnsSocket, Route, VethEnd, VethLink,
    VethPair,
};

/// An agent and two pods, each in a namespace of its own.
struct Node {
    agent: Netlink,
    pods: [Netns; 2],
}

impl Node {
    fn new() -> Self {
        let agent = Netlink::open_in(&Netns::create().unwrap()).unwrap();
        Self { agent, pods: [Netns::create().unwrap(), Netns::create().unwrap()] }
    }

    fn pair(&self, names: [&str; 2]) -> VethPair<'_> {
        let end = |at: usize| VethEnd { netns: &self.pods[at], name: name(names[at]), mac: Mac::random() };
        VethPair { ends: [end(0), end(1)], mtu: Some(Mtu::new(1400).unwrap()), group: Some(77) }
    }

    fn create(&self, names: [&str; 2]) -> [VethLink; 2] {
        self.agent.create_veth(&self.pair(names)).unwrap()
    }

    fn inside(&self, pod: usize) -> NetnsSocket {
        NetnsSocket::open(&self.pods[pod]).unwrap()
    }

    /// Sends a datagram from the first pod to `to` in the second one, and an answer back.
    fn exchange(&self, from: &str, to: &str) {
        let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let socket = |pod: usize, ip: IpAddr| {
            let socket = self.pods[pod].run(move || UdpSocket::bind(SocketAddr::new(ip, 0))).unwrap().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket
        };
        let (client, server) = (socket(0, from), socket(1, to));
        let mut buffer = [0; 16];
        client.send_to(b"ping", server.local_addr().unwrap()).unwrap();
        let (len, sender) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], sender), (&b"ping"[..], client.local_addr().unwrap()));
        server.send_to(b"pong", sender).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
    }
}

fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One end of a point to point link, as the ordinary address allocator gives it out.
fn point_to_point(own: &str, other: &str) -> LinkConfig {
    LinkConfig {
        alias: Some(format!("nsm:test:{own}")),
        up: true,
        addresses: vec![net(own)],
        routes: vec![Route::on_link(net(other))],
        ..LinkConfig::default()
    }
}

fn identity(link: &VethLink) -> LinkIdentity {
    link.identity(None)
}
