//! What ADD answers: the interface that was made, with the addresses and routes that the endpoint gave.

use nsm_proto::{
    cni::{AddResponse, Dns, Interface, Ip, Route},
    connection::Connection,
};
use nsm_sdk::{Error, Kind};

use super::Server;
use crate::{
    forwarder::{Wire, kernel},
    state::Attachment,
};

impl Server {
    /// The wire of a connection as its client knows it.
    pub(super) fn wire_of(&self, connection: &Connection) -> Option<kernel::Wire> {
        let ours = nsm_sdk::path::next(connection)?;
        match self.parts.manager.wires.connections.get(&ours.id)?.wire.as_ref()? {
            Wire::Kernel(wire) => Some((**wire).clone()),
            Wire::Relay => None,
        }
    }
}

/// The result of an ADD that succeeded.
pub(super) fn of(
    attachment: &Attachment,
    connection: &Connection,
    wire: Option<&kernel::Wire>,
) -> Result<AddResponse, Error> {
    let wire = wire.ok_or_else(|| Error::new(Kind::Internal, "the connection has no interface"))?;
    let side = &wire.client;
    let routes = &side.config.routes;
    let gateway_of = |ip: std::net::IpAddr| {
        let of_family =
            |route: &&nsm_netlink::Route| route.table.is_none() && route.destination.is_ipv4() == ip.is_ipv4();
        routes.iter().filter(of_family).find_map(|route| route.gateway).map(|gateway| gateway.to_string())
    };
    let context = connection.context.clone().unwrap_or_default();
    let dns = context.dns_context.unwrap_or_default();
    Ok(AddResponse {
        interfaces: vec![Interface {
            name: side.name.to_string(),
            mac: side.mac.to_string(),
            sandbox: attachment.netns_path.display().to_string(),
            mtu: side.config.mtu.map_or(0, nsm_netlink::Mtu::get),
        }],
        ips: side
            .config
            .addresses
            .iter()
            .map(|address| Ip {
                address: address.to_string(),
                gateway: gateway_of(address.ip()).unwrap_or_default(),
                interface: 0,
            })
            .collect(),
        routes: routes
            .iter()
            .map(|route| Route {
                dst: route.destination.to_string(),
                gateway: route.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
                mtu: 0,
                table: route.table.unwrap_or_default(),
            })
            .collect(),
        dns: Some(Dns {
            nameservers: dns.configs.iter().flat_map(|config| config.dns_server_ips.clone()).collect(),
            search: dns.configs.iter().flat_map(|config| config.search_domains.clone()).collect(),
        }),
    })
}
