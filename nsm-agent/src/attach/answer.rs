//! What an attachment came to, as the private API tells it: the interface, with the addresses and routes that the endpoint gave.

use nsm_proto::{
    cni::{AddResponse, Dns, Interface, Ip, Route},
    connection::Connection,
};

use crate::{forwarder::kernel, state::Attachment};

/// The result of an attachment.
pub fn answer(attachment: &Attachment, connection: &Connection, wire: &kernel::Wire) -> AddResponse {
    let side = &wire.client;
    let routes = &side.config.routes;
    let gateway_of = |ip: std::net::IpAddr| {
        let of_family =
            |route: &&nsm_netlink::Route| route.table.is_none() && route.destination.is_ipv4() == ip.is_ipv4();
        routes.iter().filter(of_family).find_map(|route| route.gateway).map(|gateway| gateway.to_string())
    };
    let context = connection.context.clone().unwrap_or_default();
    let dns = context.dns_context.unwrap_or_default();
    AddResponse {
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
    }
}
