//! What an endpoint may not do to a pod's routes: take the default, or lay a route over one that is there.

use nsm_netlink::{IfIndex, IpNetwork, LinkConfig, NetnsSocket};

use super::{
    super::{Error, Fault},
    context::is_default,
};
use crate::state::RoutePolicy;

/// RT_TABLE_MAIN of rtnetlink(7).
const MAIN: u32 = 254;

/// Refuses what `policy` does not allow. Routes of our own interface (`except`) do not count.
pub(super) fn check(
    pod: &mut NetnsSocket,
    except: Option<IfIndex>,
    config: &LinkConfig,
    policy: RoutePolicy,
) -> Result<(), Error> {
    let asked: Vec<IpNetwork> =
        config.routes.iter().filter(|route| route.table.is_none()).map(|route| route.destination).collect();
    if !policy.default_route
        && let Some(default) = asked.iter().find(|destination| is_default(destination))
    {
        return Err(Error::new(
            Fault::Endpoint,
            format!(
                "the endpoint gives the pod a default route ({default}): refused unless the configuration says \"allowDefaultRoute\": true"
            ),
        ));
    }
    if policy.overlap {
        return Ok(());
    }
    let added: Vec<IpNetwork> =
        asked.into_iter().chain(config.addresses.iter().copied()).filter(|network| !is_default(network)).collect();
    if added.is_empty() {
        return Ok(());
    }
    for there in present(pod, except)? {
        if let Some(asked) = added.iter().find(|asked| overlaps(asked, &there)) {
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

/// The prefixes that a pod reaches already, less defaults and what every interface has.
pub(crate) fn present(pod: &mut NetnsSocket, except: Option<IfIndex>) -> Result<Vec<IpNetwork>, Error> {
    let routes = pod.routes().map_err(|error| Error::kernel(Fault::Node, "cannot read the pod's routes", error))?;
    let counts = |destination: &IpNetwork| {
        !is_default(destination) && !is_link_local(destination) && !destination.ip().is_loopback()
    };
    Ok(routes
        .into_iter()
        .filter(|state| except.is_none() || state.index != except)
        .filter(|state| state.route.table.is_none_or(|table| table == MAIN))
        .map(|state| state.route.destination)
        .filter(counts)
        .collect())
}

fn overlaps(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

fn is_link_local(network: &IpNetwork) -> bool {
    match network {
        IpNetwork::V4(network) => network.ip().is_link_local() || network.ip().is_multicast(),
        IpNetwork::V6(network) => network.ip().is_unicast_link_local() || network.ip().is_multicast(),
    }
}
