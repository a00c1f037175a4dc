//! The addresses that a configuration asks for by name: the endpoint grants them, or does not serve.
//!
//! Guarantee: of a family in which addresses were asked, the interface gets these and no others, and a way to somewhere. An
//! endpoint passes on what it does not know: with an address of its own beside it, or with nothing of that family at all,
//! that is no grant.

use std::net::IpAddr;

use nsm_proto::{connection::Connection, connectioncontext::IpContext, payload};
use nsm_sdk::{Error, Kind};

/// Whether an endpoint's answer gives the client what was asked.
pub(super) fn granted(asked: &[IpAddr], answer: &Connection) -> Result<(), Error> {
    if asked.is_empty() {
        return Ok(());
    }
    let nothing = IpContext::default();
    let context = answer.context.as_ref().and_then(|context| context.ip_context.as_ref()).unwrap_or(&nothing);
    // What is no address is told where the whole answer is read.
    let address = |text: &String| text.split('/').next()?.parse::<IpAddr>().ok();
    let given: Vec<IpAddr> = context.src_ip_addrs.iter().filter_map(address).collect();
    if answer.payload != payload::ETHERNET {
        let reached = context.dst_ip_addrs.iter().chain(context.src_routes.iter().map(|route| &route.prefix));
        let reached: Vec<IpAddr> = reached.filter_map(address).collect();
        let leads_nowhere = |asked: &&IpAddr| !reached.iter().any(|there| there.is_ipv4() == asked.is_ipv4());
        if let Some(asked) = asked.iter().find(leads_nowhere) {
            let family = if asked.is_ipv4() { "IPv4" } else { "IPv6" };
            return Err(refused(&format!("does not give {asked}: it has no {family} address itself")));
        }
    }
    let lacks: Vec<IpAddr> = asked.iter().filter(|address| !given.contains(address)).copied().collect();
    let of_a_family_asked = |address: &&IpAddr| asked.iter().any(|asked| asked.is_ipv4() == address.is_ipv4());
    let others: Vec<IpAddr> =
        given.iter().filter(|address| !asked.contains(address)).filter(of_a_family_asked).copied().collect();
    let what = match (lacks.as_slice(), others.as_slice()) {
        ([], []) => return Ok(()),
        ([], others) => format!("does not give {} alone: it adds {}", joined(asked), joined(others)),
        (lacks, []) => format!("does not give {}", joined(lacks)),
        (lacks, others) => format!("does not give {} but {}", joined(lacks), joined(others)),
    };
    Err(refused(&what))
}

fn refused(what: &str) -> Error {
    Error::new(
        Kind::Refused,
        format!(
            "the endpoint {what}; asked for with \"ips\" (runtimeConfig, args.cni or CNI_ARGS): ask for free addresses of the endpoint's, or for none"
        ),
    )
}

fn joined(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use nsm_proto::connectioncontext::{ConnectionContext, Route};

    use super::*;

    fn outcome(asked: &[&str], given: &[&str]) -> Result<(), String> {
        answered(asked, given, &["10.0.0.0/32", "fd00::/128"], "")
    }

    fn answered(asked: &[&str], given: &[&str], reached: &[&str], payload: &str) -> Result<(), String> {
        let asked: Vec<IpAddr> = asked.iter().map(|text| text.parse().unwrap()).collect();
        let src_ip_addrs = given.iter().map(|text| (*text).to_owned()).collect();
        let route = |prefix: &&str| Route { prefix: (*prefix).to_owned(), next_hop: String::new() };
        let src_routes = reached.iter().map(route).collect();
        let ip_context = Some(IpContext { src_ip_addrs, src_routes, ..IpContext::default() });
        let context = Some(ConnectionContext { ip_context, ..ConnectionContext::default() });
        let answer = Connection { context, payload: payload.to_owned(), ..Connection::default() };
        granted(&asked, &answer).map_err(|error| error.to_string())
    }

    #[test]
    fn exactly_what_was_asked_is_a_grant() {
        assert!(outcome(&[], &["10.0.0.1/32"]).is_ok());
        assert!(outcome(&["10.0.0.5"], &["10.0.0.5/32"]).is_ok());
        assert!(outcome(&["10.0.0.5"], &["fd00::1/128", "10.0.0.5/24"]).is_ok(), "nothing was asked of IPv6");
        let taken = outcome(&["10.0.0.5"], &["10.0.0.1/32"]).unwrap_err();
        assert!(taken.contains("does not give 10.0.0.5 but 10.0.0.1"), "{taken}");
        let foreign = outcome(&["10.9.0.5"], &["10.9.0.5/32", "10.0.0.1/32"]).unwrap_err();
        assert!(foreign.contains("10.9.0.5 alone: it adds 10.0.0.1"), "{foreign}");
        let none = outcome(&["10.0.0.5", "fd00::5"], &["10.0.0.5/32", "nonsense"]).unwrap_err();
        assert!(none.contains("does not give fd00::5"), "{none}");
    }

    #[test]
    fn an_address_that_leads_nowhere_is_none() {
        let alone = answered(&["10.0.0.5", "fd00::5"], &["10.0.0.5/32", "fd00::5/128"], &["10.0.0.0/32"], "IP");
        let alone = alone.unwrap_err();
        assert!(alone.contains("does not give fd00::5: it has no IPv6 address"), "{alone}");
        assert!(
            answered(&["10.0.0.5"], &["10.0.0.5/24"], &[], payload::ETHERNET).is_ok(),
            "neighbours are found there"
        );
    }
}
