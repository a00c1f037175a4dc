//! Routes that two interfaces of a pod have to the same place, as endpoints give them whose policies share the traffic.
//!
//! Guarantees: both are there, so that policies find either and neither goes with the other's interface; the one that was
//! there first stays the way for what no policy speaks of. A route that is not ours stays in the way: the kernel's no names it.
//! An interface's routes are preferred as they were as long as it stands.

use std::net::IpAddr;

use nsm_netlink::{IfIndex, LinkConfig, NetnsSocket, Route, RouteEntry};

use super::{
    super::{Error, Fault},
    overlap::MAIN,
};

/// Begins the aliases of the interfaces that agents give to clients.
pub(super) const CLIENT_ALIAS: &str = "nsm client ";

/// Prefers routes as they are preferred already.
pub(super) fn keep(standing: &[Route], routes: &mut [Route]) {
    for route in routes {
        if let Some(same) = standing.iter().find(|same| is_same(same, route)) {
            route.metric = same.metric;
        }
    }
}

/// Places the routes of an interface with policies after those that other interfaces of ours have to the same place. `own`: the
/// interface, where it stands already with the routes `standing`.
pub(super) fn place(
    pod: &mut NetnsSocket,
    own: Option<IfIndex>,
    standing: &[Route],
    config: &mut LinkConfig,
) -> Result<(), Error> {
    if config.rules.is_empty() {
        return Ok(());
    }
    let there = pod.routes().map_err(|error| Error::kernel(Fault::Node, "cannot read the pod's routes", error))?;
    for route in config.routes.iter_mut().filter(|route| !standing.iter().any(|same| is_same(same, route))) {
        let Some(last) = last(&there, own, route) else { continue };
        let link = pod.link(last.index);
        let link = link.map_err(|error| Error::kernel(Fault::Node, "cannot look at the pod's interfaces", error))?;
        if link.and_then(|link| link.alias).is_some_and(|alias| alias.starts_with(CLIENT_ALIAS)) {
            route.metric = Some(last.metric.saturating_add(1));
        }
    }
    Ok(())
}

/// The least preferred of the main table's routes to a place.
struct Last {
    index: IfIndex,
    metric: u32,
}

fn last(there: &[RouteEntry], own: Option<IfIndex>, wanted: &Route) -> Option<Last> {
    if wanted.table.is_some() {
        return None;
    }
    let same = there.iter().filter(|entry| {
        let main = entry.route.table.is_none_or(|table| table == MAIN);
        main && place_of(&entry.route) == place_of(wanted) && (own.is_none() || entry.index != own)
    });
    let all = same.filter_map(|entry| Some(Last { index: entry.index?, metric: entry.route.metric.unwrap_or(0) }));
    all.max_by_key(|last| last.metric)
}

fn is_same(one: &Route, other: &Route) -> bool {
    one.table == other.table && place_of(one) == place_of(other)
}

fn place_of(route: &Route) -> (IpAddr, u8) {
    (route.destination.network(), route.destination.prefix())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u32, destination: &str, metric: Option<u32>) -> RouteEntry {
        let route = Route { metric, ..Route::on_link(destination.parse().unwrap()).in_table(MAIN) };
        RouteEntry { index: IfIndex::new(index), route, protocol: 4 }
    }

    #[test]
    fn a_route_comes_after_all_others_to_its_place() {
        let there = [
            entry(7, "172.16.1.0/32", None),
            entry(8, "172.16.1.0/32", Some(1)),
            entry(7, "172.16.1.2/32", Some(9)),
            entry(7, "fd00::/128", Some(1024)),
        ];
        let after = |own: Option<u32>, destination: &str| {
            let wanted = Route::on_link(destination.parse().unwrap());
            last(&there, own.and_then(IfIndex::new), &wanted).map(|last| (last.index.get(), last.metric))
        };
        assert_eq!(after(None, "172.16.1.0/32"), Some((8, 1)));
        assert_eq!(after(Some(8), "172.16.1.0/32"), Some((7, 0)));
        assert_eq!(after(None, "fd00::/128"), Some((7, 1024)));
        assert_eq!(after(None, "172.16.1.0/31"), None);
    }

    #[test]
    fn what_stands_keeps_its_place() {
        let standing = [Route { metric: Some(1), ..Route::on_link("172.16.1.0/32".parse().unwrap()) }];
        let mut routes = ["172.16.1.0/32", "10.0.0.0/8"].map(|text| Route::on_link(text.parse().unwrap()));
        keep(&standing, &mut routes);
        assert_eq!(routes.map(|route| route.metric), [Some(1), None]);
    }
}
