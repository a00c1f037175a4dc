//! The kernel forwarder: a veth pair whose ends are made where they belong, in the pod and in the endpoint's namespace.
//!
//! Guarantees: a plan holds both hardware addresses and the alias, by which a half-made pair is known again; an end is
//! configured completely before it is up; a failure takes the pair away; nothing that the plan does not describe is touched.

mod beside;
mod context;
mod overlap;
pub(crate) mod present;

use std::thread;

use nsm_netlink::{
    IfIndex, IfName, IpNetwork, LinkConfig, LinkIdentity, Mac, Mtu, Netlink, Netns, NetnsId, NetnsSocket, Nsid,
    VethEnd, VethLink, VethPair,
};
use nsm_proto::mechanism::{INTERFACE_NAME, MTU};
use nsm_sdk::kernel::InterfaceName;
use serde::{Deserialize, Serialize};

pub use present::present_prefixes;

use super::{Agreement, End, Error, Fault, Finding, Forwarder};
use crate::failpoint;

/// Group of all interfaces that agents make, so that an operator can list them (`ip link show group 20051`).
pub const GROUP: u32 = 20_051;

/// Both ends of a pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wire {
    /// In the pod.
    pub client: Side,
    /// At the endpoint.
    pub endpoint: Side,
}

/// One end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Its namespace.
    pub netns: NetnsId,
    /// The namespace's id in the agent's: finds it when nobody holds a descriptor any more.
    pub nsid: Nsid,
    /// The interface's name.
    pub name: IfName,
    /// Its hardware address.
    pub mac: Mac,
    /// Its index, once it is made.
    pub index: Option<IfIndex>,
    /// What it must look like.
    pub config: LinkConfig,
}

impl Side {
    fn identity(&self, index: IfIndex) -> LinkIdentity {
        LinkIdentity { nsid: self.nsid, index, mac: self.mac, alias: self.config.alias.clone() }
    }
}

/// Makes veth pairs.
pub struct Kernel {
    netlink: Netlink,
}

impl Kernel {
    /// A forwarder that works from the namespace `netlink` was opened in.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }

    fn side(&self, agreement: &Agreement, end: &End, who: Fault, mac: Mac, config: LinkConfig) -> Result<Side, Error> {
        let of = match who {
            Fault::Endpoint => "endpoint",
            Fault::Client | Fault::Node => "client",
        };
        let netns = netns(end, of, who)?;
        let derived = || InterfaceName::derived(&agreement.connection.network_service, &agreement.id).to_string();
        let chosen = end.mechanism.parameters.get(INTERFACE_NAME).filter(|name| !name.is_empty());
        let name = chosen.cloned().unwrap_or_else(derived);
        let name = IfName::new(name.as_str())
            .map_err(|error| Error::new(who, format!("{of}'s interface name {name:?}: {error}")))?;
        let nsid = self
            .netlink
            .nsid(netns)
            .map_err(|error| Error::kernel(Fault::Node, format!("no id for the {of}'s network namespace"), error))?;
        Ok(Side {
            netns: netns.id(),
            nsid,
            name,
            mac,
            index: None,
            config: LinkConfig { alias: Some(format!("nsm {of} {}", agreement.id)), ..config },
        })
    }

    fn create(&self, wire: &Wire, client: &Netns, endpoint: &Netns) -> Result<[VethLink; 2], Error> {
        let pair = VethPair {
            ends: [
                VethEnd { netns: client, name: wire.client.name.clone(), mac: wire.client.mac },
                VethEnd { netns: endpoint, name: wire.endpoint.name.clone(), mac: wire.endpoint.mac },
            ],
            mtu: wire.client.config.mtu,
            group: Some(GROUP),
        };
        self.netlink.create_veth(&pair).map_err(|error| {
            let fault = match &error {
                nsm_netlink::Error::NameTaken { netns, .. } if *netns == wire.endpoint.netns => Fault::Endpoint,
                _ if error.is_conflict() || error.is_gone() => Fault::Client,
                _ => Fault::Node,
            };
            Error::kernel(fault, "cannot make the veth pair", error)
        })
    }

    /// Configures both ends. After a failure no rule is left in the pod.
    fn configure(
        wire: &Wire,
        [at_client, at_endpoint]: &[VethLink; 2],
        client: &mut NetnsSocket,
        endpoint: &mut NetnsSocket,
    ) -> Result<(), Error> {
        let at_the_pod =
            |error| Error::kernel(Fault::Endpoint, "cannot configure the pod's interface as the endpoint asks", error);
        let at_the_endpoint =
            |error| Error::kernel(Fault::Endpoint, "cannot configure the endpoint's interface", error);
        let waits =
            [&wire.client, &wire.endpoint].iter().any(|side| side.config.addresses.iter().any(IpNetwork::is_ipv6));
        let (of_client, of_endpoint) = if waits {
            // It takes a while until such an address can be used: both ends wait at the same time.
            thread::scope(|both| {
                let thread = thread::Builder::new().name("veth-end".into());
                let beside = thread.spawn_scoped(both, || endpoint.configure_made(at_endpoint, &wire.endpoint.config));
                let of_client = client.configure_made(at_client, &wire.client.config);
                let failed = |error| Error::new(Fault::Node, format!("cannot start a thread: {error}"));
                (of_client, beside.map_err(failed).and_then(joined))
            })
        } else {
            // The kernel takes changes of interfaces one at a time, wherever they are.
            let of_endpoint = endpoint.configure_made(at_endpoint, &wire.endpoint.config);
            (client.configure_made(at_client, &wire.client.config), Ok(of_endpoint))
        };
        let has_rules = of_client.is_ok();
        let both_up = || {
            of_client.map_err(at_the_pod)?;
            of_endpoint?.map_err(at_the_endpoint)?;
            // The end that was up first got its carrier just now and drops what it sends until the kernel's link watch has
            // run: a read of the link makes it run (since 6.8), or the first answers would be lost.
            is_there(endpoint, at_endpoint.index).map_err(at_the_endpoint)?;
            is_there(client, at_client.index).map_err(at_the_pod)?;
            Ok(())
        };
        both_up().inspect_err(|_| {
            if has_rules && let Err(error) = client.remove_rules(&wire.client.config.rules) {
                tracing::error!(%error, "policy rules of a failed connection stay in the pod");
            }
        })
    }

    fn remove(&self, side: &Side) -> Result<(), Error> {
        let failed = |error| Error::kernel(Fault::Node, format!("cannot remove interface {}", side.name), error);
        let index = match side.index {
            Some(index) => index,
            None => match self.netlink.link_by_name(side.nsid, &side.name) {
                Ok(Some(link)) if link.mac == Some(side.mac) => link.index,
                Ok(_) => return Ok(()),
                Err(error) if error.is_gone() => return Ok(()),
                Err(error) => return Err(failed(error)),
            },
        };
        match self.netlink.delete_link(&side.identity(index)) {
            // An index is used again after a while: another link there means that ours has gone.
            Ok(_) | Err(nsm_netlink::Error::NotOurs { .. }) => Ok(()),
            Err(error) if error.is_gone() => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Forwarder for Kernel {
    fn plan(&self, agreement: &Agreement) -> Result<super::Wire, Error> {
        let macs = [&agreement.client, &agreement.endpoint].map(|end| end.mac.unwrap_or_else(Mac::random));
        let [at_client, at_endpoint] = configurations(agreement, macs)?;
        let client = self.side(agreement, &agreement.client, Fault::Client, macs[0], at_client)?;
        let endpoint = self.side(agreement, &agreement.endpoint, Fault::Endpoint, macs[1], at_endpoint)?;
        if client.netns == endpoint.netns && client.name == endpoint.name {
            return Err(Error::new(
                Fault::Endpoint,
                format!("client and endpoint are in one network namespace and both want interface {}", client.name),
            ));
        }
        Ok(super::Wire::Kernel(Box::new(Wire { client, endpoint })))
    }

    fn apply(&self, wire: &super::Wire, agreement: &Agreement) -> Result<super::Wire, Error> {
        let wire = kernel(wire)?;
        let client = netns(&agreement.client, "client", Fault::Client)?;
        let endpoint = netns(&agreement.endpoint, "endpoint", Fault::Endpoint)?;
        let mut at_client = open(client, "client", Fault::Client)?;
        overlap::check(&mut at_client, None, &wire.client.config, agreement)?;
        let mut made = wire.clone();
        beside::place(&mut at_client, None, &[], &mut made.client.config)?;
        let wire = &made;
        let mut at_endpoint = open(endpoint, "endpoint", Fault::Endpoint)?;
        // Before the pair is made: when the kernel's answer is lost it may be there all the same.
        let pair = Unfinished { kernel: self, wire };
        let links = self.create(wire, client, endpoint)?;
        failpoint::hit("add.wire-created");
        Self::configure(wire, &links, &mut at_client, &mut at_endpoint)?;
        std::mem::forget(pair);
        failpoint::hit("add.wire-configured");
        [made.client.index, made.endpoint.index] = links.map(|link| Some(link.index));
        Ok(super::Wire::Kernel(Box::new(made)))
    }

    fn change(
        &self,
        wire: &super::Wire,
        plan: &super::Wire,
        agreement: &Agreement,
    ) -> Result<Option<super::Wire>, Error> {
        let (old, new) = (kernel(wire)?, kernel(plan)?);
        let same_link = |old: &Side, new: &Side| old.netns == new.netns && old.name == new.name;
        if !same_link(&old.client, &new.client) || !same_link(&old.endpoint, &new.endpoint) {
            return Ok(None);
        }
        let (Some(at_client), Some(at_endpoint)) = (old.client.index, old.endpoint.index) else { return Ok(None) };
        for (side, index) in [(&old.client, at_client), (&old.endpoint, at_endpoint)] {
            match self.netlink.link(side.nsid, index) {
                Ok(Some(link)) if link.mac == Some(side.mac) => {}
                Ok(_) => return Ok(None),
                Err(error) if error.is_gone() => return Ok(None),
                Err(error) => return Err(Error::kernel(Fault::Node, "cannot look at the interfaces", error)),
            }
        }
        let mut changed = old.clone();
        // The pair keeps the hardware addresses that it has; only neighbours depend on them.
        let configs = configurations(agreement, [old.client.mac, old.endpoint.mac])?;
        for (side, config) in [&mut changed.client, &mut changed.endpoint].into_iter().zip(configs) {
            let mut config = LinkConfig { alias: side.config.alias.take(), ..config };
            beside::keep(&side.config.routes, &mut config.routes);
            side.config = config;
        }
        if changed == *old {
            return Ok(Some(wire.clone()));
        }
        let mut client = open(netns(&agreement.client, "client", Fault::Client)?, "client", Fault::Client)?;
        overlap::check(&mut client, Some(at_client), &changed.client.config, agreement)?;
        beside::place(&mut client, Some(at_client), &old.client.config.routes, &mut changed.client.config)?;
        let mut endpoint = open(netns(&agreement.endpoint, "endpoint", Fault::Endpoint)?, "endpoint", Fault::Endpoint)?;
        reconfigure(&mut endpoint, at_endpoint, &old.endpoint.config, &changed.endpoint.config)?;
        reconfigure(&mut client, at_client, &old.client.config, &changed.client.config).inspect_err(|_| {
            let (from, to) = (&changed.endpoint.config, &old.endpoint.config);
            if let Err(error) = endpoint.reconfigure(at_endpoint, from, to) {
                tracing::warn!(%error, "the endpoint's interface is ahead of the pod's until the next refresh");
            }
        })?;
        Ok(Some(super::Wire::Kernel(Box::new(changed))))
    }

    fn undo(&self, wire: &super::Wire, client: Option<&Netns>) -> Result<(), Error> {
        let wire = kernel(wire)?;
        if let Some(netns) = client.filter(|_| !wire.client.config.rules.is_empty()) {
            open(netns, "client", Fault::Client)?
                .remove_rules(&wire.client.config.rules)
                .map_err(|error| Error::kernel(Fault::Node, "cannot remove the pod's policy rules", error))?;
        }
        // One end takes the other with it, unless only half of the record came true.
        self.remove(&wire.client)?;
        self.remove(&wire.endpoint)
    }

    fn inspect(&self, wire: &super::Wire, client: Option<&Netns>) -> Result<Vec<Finding>, Error> {
        let wire = kernel(wire)?;
        let mut findings = Vec::new();
        for (side, of) in [(&wire.client, "pod's"), (&wire.endpoint, "endpoint's")] {
            let Some(index) = side.index else {
                findings.push(Finding::Gone(format!("the {of} interface {} was never made", side.name)));
                continue;
            };
            match self.netlink.link(side.nsid, index) {
                Ok(Some(link)) if link.mac != Some(side.mac) => {
                    findings.push(Finding::Gone(format!("the {of} interface {} is another one now", side.name)));
                }
                Ok(Some(link)) if link.name != side.name.as_str() => {
                    findings.push(Finding::Changed(format!(
                        "the {of} interface {} is called {} now",
                        side.name, link.name
                    )));
                }
                Ok(Some(link)) if !link.up => {
                    findings.push(Finding::Changed(format!("the {of} interface {} is down", side.name)));
                }
                Ok(Some(_)) => {}
                Ok(None) => findings.push(gone(of, side)),
                Err(error) if error.is_gone() => findings.push(gone(of, side)),
                Err(error) => return Err(Error::kernel(Fault::Node, "cannot look at the interfaces", error)),
            }
        }
        if let (Some(netns), true) = (client, findings.is_empty()) {
            findings = differences(&wire.client, "client", netns)?;
        }
        Ok(findings)
    }

    fn inspect_endpoint(&self, wire: &super::Wire, endpoint: Option<&Netns>) -> Result<Vec<Finding>, Error> {
        let side = &kernel(wire)?.endpoint;
        let registered = endpoint.filter(|netns| netns.id() == side.netns).cloned();
        // An endpoint may offer the namespace of a process that is not the one that registered.
        let Some(netns) = registered.or_else(|| Netns::of_a_process(side.netns)) else {
            tracing::info!(netns = %side.netns, "the endpoint's network namespace is not to be found: its end is looked at from outside only");
            return Ok(Vec::new());
        };
        let seen = differences(side, "endpoint", &netns)?.into_iter();
        Ok(seen.map(|finding| Finding::Changed(format!("at the endpoint: {finding}"))).collect())
    }
}

/// What of an end is not as its configuration says.
fn differences(side: &Side, of: &str, netns: &Netns) -> Result<Vec<Finding>, Error> {
    let Some(index) = side.index else { return Ok(Vec::new()) };
    let seen = open(netns, of, Fault::Node)?
        .inspect(index, side.mac, &side.config)
        .map_err(|error| Error::kernel(Fault::Node, format!("cannot look into the {of}'s namespace"), error))?;
    Ok(seen.into_iter().map(Finding::Changed).collect())
}

/// Brings an interface from one configuration to another, or leaves it as it was.
fn reconfigure(netns: &mut NetnsSocket, index: IfIndex, old: &LinkConfig, new: &LinkConfig) -> Result<(), Error> {
    netns.reconfigure(index, old, new).map(drop).map_err(|error| {
        if let Err(error) = netns.reconfigure(index, new, old) {
            tracing::warn!(%error, "an interface that could not be changed is not as it was: the next refresh tries again");
        }
        Error::kernel(Fault::Endpoint, "cannot change the interface", error)
    })
}

fn gone(of: &str, side: &Side) -> Finding {
    Finding::Gone(format!("the {of} interface {} is gone", side.name))
}

/// A pair that is being made: it goes when anything fails.
struct Unfinished<'a> {
    kernel: &'a Kernel,
    wire: &'a Wire,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.kernel.remove(&self.wire.client) {
            tracing::error!(%error, "an interface of a failed connection stays; the next start of the agent removes it");
        }
    }
}

fn is_there(socket: &mut NetnsSocket, index: IfIndex) -> Result<(), nsm_netlink::Error> {
    socket.link(index)?.map(drop).ok_or(nsm_netlink::Error::NoLink(index))
}

/// What a thread beside this one did.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> Result<T, Error> {
    thread.join().map_err(|_| Error::new(Fault::Node, "the kernel forwarder failed inside: the agent's log has more"))
}

fn kernel(wire: &super::Wire) -> Result<&Wire, Error> {
    match wire {
        super::Wire::Kernel(wire) => Ok(wire),
        super::Wire::Relay => Err(Error::new(Fault::Node, "this wire was not made by the kernel forwarder")),
    }
}

fn netns<'a>(end: &'a End, of: &str, fault: Fault) -> Result<&'a Netns, Error> {
    end.netns.as_ref().ok_or_else(|| {
        Error::new(fault, format!("the {of} passed no network namespace (inodeURL of its KERNEL mechanism)"))
    })
}

fn open(netns: &Netns, of: &str, fault: Fault) -> Result<NetnsSocket, Error> {
    NetnsSocket::open(netns).map_err(|error| {
        Error::kernel(fault, format!("cannot enter the {of}'s network namespace {}", netns.id()), error)
    })
}

/// What an agreement makes of the client's and the endpoint's interface, less what names them.
pub(crate) fn configurations(agreement: &Agreement, [client, endpoint]: [Mac; 2]) -> Result<[LinkConfig; 2], Error> {
    let context = context::read(agreement)?;
    let mtu = mtu(agreement)?;
    let ends = || LinkConfig { up: true, mtu, ..LinkConfig::default() };
    let (mut at_client, mut at_endpoint) = (ends(), ends());
    context.configure_client(&mut at_client, endpoint);
    context.configure_endpoint(&mut at_endpoint, client);
    Ok([at_client, at_endpoint])
}

/// The smallest that one of the three asks for; the kernel's default when none does.
fn mtu(agreement: &Agreement) -> Result<Option<Mtu>, Error> {
    let mut smallest: Option<u32> = None;
    let mut consider = |mtu: u32| smallest = Some(smallest.map_or(mtu, |known| known.min(mtu)));
    if let Some(mtu) = agreement.connection.context.as_ref().map(|context| context.mtu).filter(|mtu| *mtu > 0) {
        consider(mtu);
    }
    for (end, fault) in [(&agreement.client, Fault::Client), (&agreement.endpoint, Fault::Endpoint)] {
        if let Some(text) = end.mechanism.parameters.get(MTU).filter(|text| !text.is_empty()) {
            consider(text.parse().map_err(|_| Error::new(fault, format!("MTU {text:?}: expected a number of bytes")))?);
        }
    }
    smallest.map(|mtu| Mtu::new(mtu).map_err(|error| Error::new(Fault::Endpoint, error.to_string()))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Two crates of which neither needs the other have a type each: a name is one for both or for none.
        #[test]
        fn one_rule_for_interface_names(text in "all|default|[.]{0,3}|\\PC{0,17}|[ -~]{0,16}") {
            assert_eq!(IfName::new(text.as_str()).is_ok(), text.parse::<InterfaceName>().is_ok(), "{text:?}");
        }

        #[test]
        fn derived_names_are_names(service in "\\PC{0,20}", id in "\\PC{0,20}") {
            IfName::new(InterfaceName::derived(&service, &id).as_str()).unwrap();
        }
    }
}
