//! ADD: hand the namespace over, answer what the agent made on top of what plugins before made.
//!
//! Guarantee: what cannot be answered is taken back, by the agent now or by an owed note later.

use std::time::Duration;

use nsm_cni_types::{Answer, Args, Attach, Conf, Dns, Error, Interface, Ip, Mode, Route, Version, code};
use nsm_proto::cni::{AddRequest, AddResponse, Pod};
use serde_json::Map;

use crate::{
    Call,
    agent::{self, Agent},
    del, in_runtime,
    netns::{Netns, refuse_own},
    pod,
};

/// How much earlier than the plugin the agent gives up, so that its reason arrives.
const EARLIER: Duration = Duration::from_millis(200);

pub(crate) fn run(call: &Call) -> Result<String, Error> {
    let args = Args::parse(&call.env.args)?;
    let conf = Conf::parse(&call.stdin, &args)?;
    let netns = Netns::open(&call.env)?;
    refuse_own(&call.env, &netns)?;
    match &conf.mode {
        Mode::Attach(attach) => in_runtime(one(call, &conf, attach, args, &netns)),
        Mode::Pod(pod) => pod::add(call, &conf, pod, args, &netns, Vec::new()),
    }
}

async fn one(call: &Call, conf: &Conf, attach: &Attach, args: Args, netns: &Netns) -> Result<String, Error> {
    let made = Agent::ask(&conf.socket, (conf.agent_wait, conf.timeout), async |agent| {
        let url = agent.pass(netns)?;
        let request = request(call, conf, attach, args.clone(), url, agent.left());
        agent.call(|mut client| async move { client.add(request).await }).await
    });
    let made = made.await.map_err(|failure| failure.error(&conf.socket, conf.timeout))?;
    answer_or_end(call, conf, made).await
}

/// The result, or all is taken back that was made.
pub(crate) async fn answer_or_end(call: &Call, conf: &Conf, made: AddResponse) -> Result<String, Error> {
    let result = answer(made, conf.prev_result.clone(), call.stdin.version);
    if result.is_err()
        && let Err(error) = del::end(call, &conf.socket).await
    {
        eprintln!("nsm-cni: what ADD made is not taken back yet: {error}");
    }
    result
}

/// Whose the sandbox is, as the runtime says; none: it says nothing.
pub(crate) fn pod_of(args: Args) -> Option<Pod> {
    let pod = Pod { name: args.pod_name, namespace: args.pod_namespace, uid: args.pod_uid };
    (pod != Pod::default()).then_some(pod)
}

/// How long the agent has, so that its reason arrives.
pub(crate) fn timeout_ms(left: Duration) -> u32 {
    u32::try_from(left.saturating_sub(EARLIER).as_millis()).unwrap_or(u32::MAX)
}

fn request(call: &Call, conf: &Conf, attach: &Attach, args: Args, netns_url: String, left: Duration) -> AddRequest {
    AddRequest {
        key: Some(agent::key(&call.env)),
        network: call.stdin.name.clone(),
        netns_path: call.env.netns.clone(),
        netns_url,
        network_service: attach.network_service.clone(),
        labels: attach.labels.clone(),
        mechanism: attach.mechanism.to_string(),
        pod: pod_of(args),
        mac: attach.mac.clone().unwrap_or_default(),
        ips: attach.ips.iter().map(ToString::to_string).collect(),
        mtu: attach.mtu.unwrap_or_default(),
        allow_default_route: conf.allow_default_route,
        allow_route_overlap: conf.allow_route_overlap,
        timeout_ms: timeout_ms(left),
        plugin_version: agent::plugin_version(),
        interface: attach.interface_to_make(conf, &call.env).to_owned(),
    }
}

fn answer(made: AddResponse, before: Option<Answer>, version: Version) -> Result<String, Error> {
    let ours = of(made)?;
    let mut result = before.unwrap_or_else(|| Answer::new(version));
    result.extend(ours);
    Ok(result.to_json()?.to_string())
}

fn of(made: AddResponse) -> Result<Answer, Error> {
    let nonsense =
        |what: String| Error::new(code::INTERNAL, format!("the agent answered {what}: is it of another version?"));
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let number = |number: u32| Some(number).filter(|number| *number > 0);
    let gateway = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| nonsense(format!("gateway {text:?}"))),
    };
    let mut answer = Answer::new(Version::NEWEST);
    for made in made.interfaces {
        let (mac, sandbox) = (text(made.mac), text(made.sandbox));
        answer.interfaces.push(Interface { name: made.name, mac, mtu: number(made.mtu), sandbox, other: Map::new() });
    }
    for made in made.ips {
        let interface = usize::try_from(made.interface).ok().filter(|place| *place < answer.interfaces.len());
        let interface = interface.ok_or_else(|| nonsense(format!("interface {} of an address", made.interface)))?;
        let address = made.address.parse().map_err(|_| nonsense(format!("address {:?}", made.address)))?;
        let gateway = gateway(&made.gateway)?;
        answer.ips.push(Ip { interface: Some(interface), address, gateway, other: Map::new() });
    }
    for made in made.routes {
        let dst = made.dst.parse().map_err(|_| nonsense(format!("route {:?}", made.dst)))?;
        let gw = gateway(&made.gateway)?;
        answer.routes.push(Route { dst, gw, mtu: number(made.mtu), table: number(made.table), other: Map::new() });
    }
    let dns = made.dns.unwrap_or_default();
    answer.dns = Dns { nameservers: dns.nameservers, search: dns.search, other: Map::new() };
    Ok(answer)
}
