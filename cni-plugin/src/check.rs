//! CHECK: the agent compares its record and the kernel with what ADD answered.

use nsm_cni_types::{Answer, Args, Conf, Error, Mode, OfPod, Version, code};
use nsm_proto::cni::{AddResponse, CheckRequest, Interface, Ip, Route};
use tonic::Code;

use crate::{
    Call,
    agent::{self, Agent, Failure},
    in_runtime,
    netns::Netns,
    pod,
};

pub(crate) fn run(call: &Call) -> Result<(), Error> {
    let args = Args::parse(&call.env.args)?;
    let conf = Conf::parse(&call.stdin, &args)?;
    let Some(before) = conf.prev_result.clone() else {
        return Err(Error::new(code::INVALID_CONFIG, "prevResult is missing: run ADD first, and pass its result"));
    };
    let before = before.convert(Version::NEWEST);
    match &conf.mode {
        Mode::Attach(attach) => {
            let ifname = attach.interface_made(&conf, &call.env);
            let part = before.part_of(ifname);
            if part.interfaces.is_empty() {
                let msg = format!("prevResult has no interface {ifname:?} with a sandbox: expected the result of ADD");
                return Err(Error::new(code::INVALID_CONFIG, msg));
            }
            in_runtime(compare(call, &conf, part, Of::One))
        }
        Mode::Pod(pod) => services(call, &conf, pod, before),
    }
}

/// Compares the network services of a pod, behind other plugins, with what ADD answered.
pub(crate) fn services(call: &Call, conf: &Conf, pod: &OfPod, before: Answer) -> Result<(), Error> {
    if pod::is_asked_for(call, &conf.socket, pod) { in_runtime(compare(call, conf, before, Of::Pod)) } else { Ok(()) }
}

/// Whose attachments are compared.
enum Of {
    One,
    Pod,
}

async fn compare(call: &Call, conf: &Conf, part: Answer, of: Of) -> Result<(), Error> {
    let netns = Netns::open(&call.env)?;
    let connected = Agent::connect(&conf.socket, conf.agent_wait, conf.timeout).await;
    let mut agent = connected.map_err(|failure| failure.error(&conf.socket, conf.timeout))?;
    let request = CheckRequest {
        key: Some(agent::key(&call.env)),
        network: call.stdin.name.clone(),
        netns_path: call.env.netns.clone(),
        netns_url: agent.pass(&netns).map_err(|failure| failure.error(&conf.socket, conf.timeout))?,
        expected: Some(expected(part)),
        plugin_version: agent::plugin_version(),
    };
    let checked = agent
        .call(|mut client| async move {
            match of {
                Of::One => client.check(request).await,
                Of::Pod => client.check_pod(request).await,
            }
        })
        .await;
    let findings = match checked {
        Ok(answer) => answer.findings,
        // The attachment itself, unlike a service, does not appear by itself.
        Err(Failure::Answered(status)) if status.code() == Code::NotFound => vec![status.message().to_owned()],
        Err(failure) => return Err(failure.error(&conf.socket, conf.timeout)),
    };
    if findings.is_empty() { Ok(()) } else { Err(Error::new(code::CHANGED, findings.join("; "))) }
}

fn expected(part: Answer) -> AddResponse {
    let text = |ip: Option<std::net::IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let interface = |known: nsm_cni_types::Interface| Interface {
        name: known.name,
        mac: known.mac.unwrap_or_default(),
        sandbox: known.sandbox.unwrap_or_default(),
        mtu: known.mtu.unwrap_or_default(),
    };
    let ip = |ip: nsm_cni_types::Ip| Ip {
        address: ip.address.to_string(),
        gateway: text(ip.gateway),
        // One of none is nobody's.
        interface: ip.interface.and_then(|place| u32::try_from(place).ok()).unwrap_or(u32::MAX),
    };
    let route = |route: nsm_cni_types::Route| Route {
        dst: route.dst.to_string(),
        gateway: text(route.gw),
        mtu: route.mtu.unwrap_or_default(),
        table: route.table.unwrap_or_default(),
    };
    AddResponse {
        interfaces: part.interfaces.into_iter().map(interface).collect(),
        ips: part.ips.into_iter().map(ip).collect(),
        routes: part.routes.into_iter().map(route).collect(),
        dns: None,
    }
}
