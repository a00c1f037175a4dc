//! CHECK: the record, both ends of the wire in the kernel (links, addresses, routes, neighbours, rules), and what the runtime
//! remembers.

use nsm_netlink::Netns;
use nsm_proto::cni::{AddResponse, CheckRequest};
use tonic::Status;

use super::Server;
use crate::{
    attach,
    forwarder::Wire,
    state::{Attachment, AttachmentKey, Phase, blocking},
};

impl Server {
    /// What is not as it was made; empty when all is.
    pub(super) async fn check_one(
        &self,
        key: &AttachmentKey,
        asked: CheckRequest,
        netns: Netns,
    ) -> Result<Vec<String>, Status> {
        let Some(attachment) = self.parts.engine.manager().attachments.get(key) else {
            return Err(Status::not_found(format!(
                "attachment {key} is not known: it was deleted, or its ADD never succeeded"
            )));
        };
        self.compare(&attachment, &asked, netns).await
    }

    /// The same for all that annotations have given a pod. What its ADD made and an edit has taken away since is not missed.
    pub(super) async fn check_pod_one(
        &self,
        key: &AttachmentKey,
        asked: CheckRequest,
        netns: Netns,
    ) -> Result<Vec<String>, Status> {
        let mut findings = Vec::new();
        for attachment in self.parts.engine.of_pod(key) {
            let expected = asked.expected.as_ref().map(|all| part_of(all, attachment.interface.as_str()));
            let asked = CheckRequest { expected, ..asked.clone() };
            findings.extend(self.compare(&attachment, &asked, netns.clone()).await?);
        }
        Ok(findings)
    }

    async fn compare(
        &self,
        attachment: &Attachment,
        asked: &CheckRequest,
        netns: Netns,
    ) -> Result<Vec<String>, Status> {
        let (manager, key) = (self.parts.engine.manager(), &attachment.key);
        if netns.id() != attachment.netns {
            return Ok(vec![format!("{} is another network namespace than the one of ADD", asked.netns_path)]);
        }
        let Some(client_side) = manager.attached.last(&attachment.client_id) else {
            return Ok(vec![format!("attachment {key} has no connection")]);
        };
        let record = nsm_sdk::path::next(&client_side).and_then(|ours| manager.wires.connections.get(&ours.id));
        let Some(record) = record.filter(|record| record.phase == Phase::Up) else {
            return Ok(vec![format!("the connection of attachment {key} to {:?} is down", attachment.network_service)]);
        };
        let Some(wire) = record.wire.clone() else {
            return Ok(vec![format!("the connection of attachment {key} has no interface")]);
        };
        let forwarders = manager.wires.forwarders.clone();
        let seen = wire.clone();
        let registered = manager.endpoints.netns(&record.endpoint);
        let look = move || {
            let forwarder = forwarders.of(&seen);
            match forwarder.inspect(&seen, Some(&netns))? {
                findings if findings.is_empty() => forwarder.inspect_endpoint(&seen, registered.as_ref()),
                findings => Ok(findings),
            }
        };
        let seen = blocking(look).await.map_err(|error| Status::internal(error.to_string()))?;
        let mut findings: Vec<String> = seen.iter().map(ToString::to_string).collect();
        if let (Some(expected), Wire::Kernel(wire)) = (&asked.expected, &wire) {
            let now = attach::answer(attachment, &client_side, wire);
            findings.extend(differences(expected, &now));
        }
        Ok(findings)
    }
}

/// What a result says of one interface.
fn part_of(all: &AddResponse, name: &str) -> AddResponse {
    let place = all.interfaces.iter().position(|interface| interface.name == name && !interface.sandbox.is_empty());
    let of_it = |interface: u32| usize::try_from(interface).ok() == place;
    AddResponse {
        interfaces: place.and_then(|place| all.interfaces.get(place)).cloned().into_iter().collect(),
        ips: all.ips.iter().filter(|ip| place.is_some() && of_it(ip.interface)).cloned().collect(),
        // A result does not say whose its routes are.
        routes: Vec::new(),
        dns: None,
    }
}

/// What the runtime's result has and the record lacks. Later plugins may have added more.
fn differences(expected: &AddResponse, now: &AddResponse) -> Vec<String> {
    let mut findings = Vec::new();
    for interface in &expected.interfaces {
        match now.interfaces.iter().find(|known| known.name == interface.name) {
            None => findings.push(format!("prevResult has interface {}, the agent's record does not", interface.name)),
            Some(known) if !interface.mac.is_empty() && !known.mac.eq_ignore_ascii_case(&interface.mac) => findings
                .push(format!(
                    "prevResult has {} for interface {}, the record {}",
                    interface.mac, interface.name, known.mac
                )),
            Some(_) => {}
        }
    }
    for ip in &expected.ips {
        if !now.ips.iter().any(|known| known.address == ip.address) {
            findings.push(format!("prevResult has address {}, the agent's record does not", ip.address));
        }
    }
    for route in &expected.routes {
        if !now.routes.iter().any(|known| known.dst == route.dst) {
            findings.push(format!("prevResult has a route to {}, the agent's record does not", route.dst));
        }
    }
    findings
}
