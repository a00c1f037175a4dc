//! What an endpoint may not do to a pod's routes: take the default, or lay a route over one that is there.
//!
//! Guarantees: what sends the pod's traffic to the endpoint is looked at as a whole, however it is said: as routes, as the
//! networks of addresses, or as the routes of policies. A policy for packets from the interface's own addresses is about nothing
//! else, and may route them as it likes.

use std::net::{IpAddr, Ipv6Addr};

use nsm_netlink::{Family, IfIndex, IfName, IpNetwork, LinkConfig, NetnsSocket, Rule};

use super::super::{Agreement, Error, Fault};
use crate::state::RoutePolicy;

/// RT_TABLE_MAIN of rtnetlink(7).
pub(super) const MAIN: u32 = 254;
/// More than this of IPv4 is a default route, in whatever pieces it comes: as much as a prefix of 3 bits.
const MOST_V4: u128 = 1 << (32 - 3);
/// The same for IPv6's global unicast (RFC 4291 section 2.5.4), of which what is in use fits into a handful of prefixes of 12 bits.
const MOST_V6: u128 = 1 << (128 - 12);
const GLOBAL_V6: (u128, u128) = (0x2 << 124, (0x4 << 124) - 1);

/// What a pod reaches without the interface that is looked at.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// Prefixes of the main table, less defaults and what every interface has.
    routes: Vec<IpNetwork>,
    /// Addresses of other interfaces.
    addresses: Vec<IpAddr>,
    /// Those of the interfaces that are aware of this one: it may have the same, and no policy for what the pod sends from them.
    shared: Vec<IpAddr>,
    /// Tables with routes of other interfaces, the main one aside.
    tables: Vec<u32>,
}

/// The interfaces of these names that there are.
pub(super) fn found(pod: &mut NetnsSocket, names: &[IfName]) -> Result<Vec<IfIndex>, Error> {
    let failed = |error| Error::kernel(Fault::Node, "cannot look at the pod's interfaces", error);
    let mut found = Vec::new();
    for name in names {
        found.extend(pod.link_by_name(name).map_err(failed)?.map(|link| link.index));
    }
    Ok(found)
}

/// Refuses what the agreement's policy does not allow, and tables that another connection of the pod uses. Our own interface
/// (`except`) is none of the pod's; what those have that are aware of it, it may have too.
pub(super) fn check(
    pod: &mut NetnsSocket,
    except: Option<IfIndex>,
    config: &LinkConfig,
    agreement: &Agreement,
) -> Result<(), Error> {
    let policy = agreement.routes;
    // Who may do everything and shares no tables need not know what is there.
    if policy.default_route && policy.overlap && config.rules.is_empty() {
        return Ok(());
    }
    let aware = found(pod, &agreement.aware)?;
    Present::read(pod, except, &aware)?.allows(config, policy)
}

impl Present {
    /// Looks into the pod. Routes and addresses of our own interface (`except`) do not count; those of the interfaces `aware` may be there
    /// twice.
    pub(super) fn read(pod: &mut NetnsSocket, except: Option<IfIndex>, aware: &[IfIndex]) -> Result<Self, Error> {
        let of_another = |index: Option<IfIndex>| except.is_none() || index != except;
        let counts = |index: Option<IfIndex>| of_another(index) && !index.is_some_and(|index| aware.contains(&index));
        let routes = pod.routes().map_err(|error| Error::kernel(Fault::Node, "cannot read the pod's routes", error))?;
        let addresses =
            pod.addresses().map_err(|error| Error::kernel(Fault::Node, "cannot read the pod's addresses", error))?;
        let mut present = Self::default();
        for entry in routes.into_iter().filter(|entry| of_another(entry.index)) {
            match entry.route.table.filter(|table| *table != MAIN) {
                Some(table) => present.tables.push(table),
                None if is_default(&entry.route.destination) => {}
                None if counts(entry.index) => present.routes.push(entry.route.destination),
                None => {}
            }
        }
        present.routes.retain(|destination| !is_everywhere(destination));
        let others =
            addresses.into_iter().filter(|address| of_another(Some(address.index)) && !is_everywhere(&address.network));
        for address in others {
            let kind = if counts(Some(address.index)) { &mut present.addresses } else { &mut present.shared };
            kind.push(address.network.ip());
        }
        Ok(present)
    }

    /// What no endpoint should hand out again.
    pub(super) fn prefixes(self) -> Vec<IpNetwork> {
        let mut prefixes = self.routes;
        for address in self.addresses {
            if !prefixes.iter().any(|prefix| prefix.contains(address)) {
                prefixes.push(address.into());
            }
        }
        prefixes
    }

    fn allows(&self, config: &LinkConfig, policy: RoutePolicy) -> Result<(), Error> {
        if let Some(rule) = config.rules.iter().find(|rule| self.tables.contains(&rule.table)) {
            let what = format!(
                "routing table {} is taken by another connection of the pod: delete this one and ask again, which gives it other tables",
                rule.table
            );
            return Err(Error::new(Fault::Client, what));
        }
        let open: Vec<&Rule> = config.rules.iter().filter(|rule| !self.is_about(rule, config)).collect();
        let routes: Vec<IpNetwork> = config
            .routes
            .iter()
            .filter(|route| route.table.is_none_or(|table| open.iter().any(|rule| rule.table == table)))
            .map(|route| route.destination)
            .collect();
        if !policy.default_route {
            no_default(config, &open, &routes)?;
        }
        if policy.overlap {
            return Ok(());
        }
        let added = || routes.iter().chain(&config.addresses).filter(|network| !is_default(network));
        let hosts = self.addresses.iter().map(|address| IpNetwork::from(*address));
        for there in self.routes.iter().copied().chain(hosts) {
            if let Some(asked) = added().find(|asked| overlaps(asked, &there)) {
                return Err(Error::new(
                    Fault::Endpoint,
                    format!(
                        "the endpoint's {asked} overlaps the pod's route to {there}: refused unless the configuration says \"allowRouteOverlap\": true"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether a rule is about packets from the interface's own addresses, and from no other of the pod's.
    fn is_about(&self, rule: &Rule, config: &LinkConfig) -> bool {
        rule.from.is_some_and(|from| {
            let lies_in = |own: &IpNetwork| own.prefix() <= from.prefix() && own.contains(from.network());
            let mut others = self.addresses.iter().chain(&self.shared);
            config.addresses.iter().any(lies_in) && !others.any(|other| from.contains(*other))
        })
    }
}

/// Refuses what amounts to a default route.
fn no_default(config: &LinkConfig, open: &[&Rule], routes: &[IpNetwork]) -> Result<(), Error> {
    let refused = |what: String| {
        let what = format!(
            "the endpoint gives the pod {what}: refused unless the configuration says \"allowDefaultRoute\": true"
        );
        Err(Error::new(Fault::Endpoint, what))
    };
    if let Some(rule) = open.iter().find(|rule| has_no_selector(rule)) {
        return refused(format!("a policy for all its packets ({rule})"));
    }
    if let Some(default) = routes.iter().find(|destination| is_default(destination)) {
        return refused(format!("a default route ({default})"));
    }
    for family in [Family::V4, Family::V6] {
        let of_family = routes.iter().chain(&config.addresses).filter(|network| Family::of(network.ip()) == family);
        if is_too_much(family, of_family) {
            return refused("routes that together are a default route".into());
        }
    }
    Ok(())
}

fn has_no_selector(rule: &Rule) -> bool {
    rule.from.is_none_or(|from| from.prefix() == 0)
        && rule.protocol.is_none()
        && rule.source_ports.is_none()
        && rule.destination_ports.is_none()
}

/// Whether a destination is so short that it stands for everything.
fn is_default(destination: &IpNetwork) -> bool {
    match destination {
        IpNetwork::V4(network) => network.prefix() < 3,
        IpNetwork::V6(network) => network.prefix() < 4,
    }
}

/// Whether networks of one family are a default route in pieces.
fn is_too_much<'a>(family: Family, networks: impl Iterator<Item = &'a IpNetwork>) -> bool {
    let (counted, most) = match family {
        Family::V4 => ((0, u128::from(u32::MAX)), MOST_V4),
        Family::V6 => (GLOBAL_V6, MOST_V6),
    };
    let mut ranges: Vec<(u128, u128)> = networks
        .map(|network| (number(network.network()).max(counted.0), number(network.broadcast()).min(counted.1)))
        .filter(|(first, last)| first <= last)
        .collect();
    ranges.sort_unstable();
    let (mut covered, mut next) = (0, 0);
    for (first, last) in ranges {
        let first = first.max(next);
        if first <= last {
            covered += last - first + 1;
            next = last + 1;
        }
    }
    covered > most
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => Ipv6Addr::to_bits(address),
    }
}

fn overlaps(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

/// What every interface has, and what never leaves the pod.
fn is_everywhere(network: &IpNetwork) -> bool {
    network.ip().is_loopback()
        || match network {
            IpNetwork::V4(network) => network.ip().is_link_local() || network.ip().is_multicast(),
            IpNetwork::V6(network) => network.ip().is_unicast_link_local() || network.ip().is_multicast(),
        }
}

#[cfg(test)]
mod tests {
    use nsm_netlink::Route;

    use super::*;

    const NOTHING: RoutePolicy = RoutePolicy { default_route: false, overlap: false };

    /// A pod with an address that no route of the main table shows, as some networks give it.
    fn pod() -> Present {
        Present {
            routes: vec!["10.8.0.0/16".parse().unwrap()],
            addresses: vec!["10.9.0.2".parse().unwrap()],
            shared: Vec::new(),
            tables: vec![77],
        }
    }

    fn config(addresses: &[&str], routes: &[&str]) -> LinkConfig {
        let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNetwork>>();
        let routes = parsed(routes).into_iter().map(Route::on_link).collect();
        LinkConfig { addresses: parsed(addresses), routes, ..LinkConfig::default() }
    }

    fn with_policy(mut config: LinkConfig, rule: Rule, destination: &str) -> LinkConfig {
        config.routes.push(Route::on_link(destination.parse().unwrap()).in_table(rule.table));
        config.rules.push(rule);
        config
    }

    fn rule(from: Option<&str>, protocol: Option<u8>) -> Rule {
        Rule {
            family: Family::V4,
            table: 5,
            from: from.map(|from| from.parse().unwrap()),
            protocol,
            source_ports: None,
            destination_ports: None,
            priority: None,
        }
    }

    fn refused(config: &LinkConfig, word: &str) {
        let error = pod().allows(config, NOTHING).unwrap_err();
        assert!(error.fault == Fault::Endpoint && error.to_string().contains(word), "{error}");
    }

    #[test]
    fn a_default_route_is_one_in_whatever_pieces() {
        let own = ["172.16.1.1/32", "fd00::1/128"];
        for routes in
            [&["192.168.0.0/16", "172.16.0.0/12", "64.0.0.0/4", "fd00::/8"][..], &["64.0.0.0/4", "80.0.0.0/5"]]
        {
            pod().allows(&config(&own, routes), NOTHING).unwrap();
        }
        for routes in [
            &["0.0.0.0/0"][..],
            &["::/0"],
            &["128.0.0.0/1"],
            &["2000::/3"],
            &["64.0.0.0/3", "96.0.0.0/4"],
            &["32.0.0.0/4", "48.0.0.0/4", "64.0.0.0/3"],
            &["2600::/12", "2a00::/12"],
        ] {
            refused(&config(&own, routes), "default route");
            pod().allows(&config(&own, routes), RoutePolicy { default_route: true, overlap: false }).unwrap();
        }
        refused(&config(&["172.16.1.1/2"], &[]), "default route");
        let eighths: Vec<String> = (0..8).map(|part| format!("{}.0.0.0/3", part * 32)).collect();
        refused(&config(&own, &eighths.iter().map(String::as_str).collect::<Vec<_>>()), "default route");
    }

    #[test]
    fn a_policy_may_do_everything_with_packets_from_our_own_addresses_only() {
        let own = || config(&["172.16.1.1/32", "172.16.2.1/24"], &[]);
        for from in ["172.16.1.1/32", "172.16.2.1/32", "172.16.2.0/24"] {
            pod().allows(&with_policy(own(), rule(Some(from), None), "0.0.0.0/0"), NOTHING).unwrap();
        }
        for from in [Some("10.9.0.2/32"), Some("172.16.0.0/16"), None] {
            refused(&with_policy(own(), rule(from, Some(6)), "0.0.0.0/0"), "default route");
            refused(&with_policy(own(), rule(from, Some(6)), "10.8.1.0/24"), "overlaps");
            pod().allows(&with_policy(own(), rule(from, Some(6)), "192.168.1.0/24"), NOTHING).unwrap();
        }
        for from in [None, Some("0.0.0.0/0")] {
            refused(&with_policy(own(), rule(from, None), "192.168.1.0/24"), "all its packets");
        }
    }

    #[test]
    fn the_pods_addresses_are_not_ours() {
        refused(&config(&["10.9.0.2/32"], &[]), "10.9.0.2/32");
        // Nor by a network around them, where overlaps are allowed.
        let around = with_policy(config(&["10.0.0.1/8"], &[]), rule(Some("10.9.0.2/32"), None), "0.0.0.0/0");
        let error = pod().allows(&around, RoutePolicy { default_route: false, overlap: true }).unwrap_err();
        assert!(error.to_string().contains("default route"), "{error}");
        assert_eq!(pod().prefixes(), ["10.8.0.0/16".parse().unwrap(), "10.9.0.2/32".parse().unwrap()]);
    }

    #[test]
    fn what_the_pod_sends_from_an_aware_interface_is_not_ours() {
        let aware = Present { shared: vec!["172.16.1.1".parse().unwrap()], ..pod() };
        let own = || config(&["172.16.1.2/24"], &[]);
        for others in ["172.16.1.1/32", "172.16.1.0/24"] {
            let error = aware.allows(&with_policy(own(), rule(Some(others), None), "0.0.0.0/0"), NOTHING).unwrap_err();
            assert!(error.fault == Fault::Endpoint && error.to_string().contains("default route"), "{others}: {error}");
        }
        aware.allows(&with_policy(own(), rule(Some("172.16.1.2/32"), None), "0.0.0.0/0"), NOTHING).unwrap();
        aware.allows(&config(&["172.16.1.1/24"], &["172.16.1.0/24"]), NOTHING).unwrap();
        assert_eq!(aware.prefixes(), pod().prefixes(), "endpoints may give it again");
    }

    #[test]
    fn tables_of_another_connection_are_not_shared() {
        let taken = Rule { table: 77, ..rule(Some("172.16.1.1/32"), None) };
        let config = with_policy(config(&["172.16.1.1/32"], &[]), taken, "192.168.0.0/16");
        let error = pod().allows(&config, RoutePolicy { default_route: true, overlap: true }).unwrap_err();
        assert!(error.fault == Fault::Client && error.to_string().contains("table 77"), "{error}");
    }
}
