//! What a pod is to get: from the configuration alone, or from the agent where the pod or the configuration names objects.
//!
//! Guarantees: a pod that asks nothing, of a configuration that names files and whole configurations only, is planned without
//! anybody; nothing is made here. Where it is not known what the pod asks, it does not start without its networks.

mod complete;

use std::{net::IpAddr, time::Duration};

use nsm_cni_types::{Args, Error, code, pods};
use nsm_npwg::{Annotations, Attach, Chosen, Completion, Definition, List, Lookup, Meta};
use nsm_proto::cni::{NetworkAnnotations, PlanRequest, PlanResponse, PlannedNetwork};
use serde_json::{Map, Value};

use self::complete::{auxiliary, wanted};
use super::{devinfo::Device, network::Network};
use crate::{
    Call,
    add::{pod_of, timeout_ms},
    agent::{self, Agent, Failure},
    in_runtime,
};

/// The first interface of a pod that is no particular one.
pub(crate) const FIRST: &str = "eth0";
/// What the agent is not told of the configuration: it is the pod's, or long.
const NOT_FOR_THE_AGENT: [&str; 2] = ["prevResult", "runtimeConfig"];

/// A network that the pod is to get.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) network: Network,
    /// Gateways of the pod's default route; empty: it is to have none.
    pub(crate) default_route: Option<Vec<IpAddr>>,
    /// What the result must have.
    pub(crate) ips: Vec<String>,
    pub(crate) mac: Option<String>,
    /// The device that it is about.
    pub(crate) device: Option<Device>,
}

/// All networks of a pod.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In order; the first is the default one.
    pub(crate) networks: Vec<Wanted>,
    /// Whether the agent made it, and is to be told what became of it.
    pub(crate) by_agent: bool,
}

/// One network before its files are read.
struct Planned {
    name: String,
    ifname: String,
    /// Its plugins, or where they are.
    source: Source,
    completion: Completion,
    default_route: Option<Vec<IpAddr>>,
    ips: Vec<String>,
    mac: Option<String>,
    resource: Option<String>,
    note: String,
}

impl From<nsm_npwg::Planned> for Planned {
    fn from(one: nsm_npwg::Planned) -> Self {
        Self {
            name: one.name,
            ifname: one.ifname,
            source: match one.network {
                nsm_npwg::Network::List(list) => Source::List(list),
                nsm_npwg::Network::File(text) => Source::File(text),
            },
            completion: one.completion,
            default_route: one.default_route,
            ips: one.ips,
            mac: one.mac,
            resource: one.resource_name,
            note: String::new(),
        }
    }
}

impl Planned {
    /// Whether it is called by a name, as objects of the cluster are and some networks of the host.
    fn is_name(&self) -> bool {
        matches!(&self.source, Source::File(text) if !text.contains('/'))
    }
}

enum Source {
    List(List),
    File(String),
}

/// Plans the networks of this call's pod.
pub(crate) fn of(call: &Call, meta: &Meta, args: &Args) -> Result<Plan, Error> {
    let asked = meta.annotations().map(|(networks, _)| networks);
    let by_agent = asked.as_ref().is_none_or(|asked| !asked.is_empty()) || names_objects(meta, &args.pod_namespace);
    let planned =
        if by_agent { planned_for(call, meta, args, asked.as_ref())? } else { alone(meta, &call.env.ifname, args)? };
    let mut networks = Vec::new();
    for (place, one) in planned.into_iter().enumerate() {
        networks.push(wanted(of_call(call), meta, one, place == 0)?);
    }
    networks.extend(auxiliary(call, meta, &networks)?);
    Ok(Plan { networks, by_agent })
}

/// The first network as the configuration itself says it, for where nothing is recorded.
pub(crate) fn first(call: &Call, meta: &Meta, args: &Args) -> Result<Network, Error> {
    let planned = alone(meta, &call.env.ifname, args)?.into_iter().next();
    let planned = planned.ok_or_else(|| {
        invalid("the configuration has no network: write at least one into delegates, or name one in clusterNetwork")
    })?;
    wanted(of_call(call), meta, planned, true).map(|one| one.network)
}

/// The networks that every pod gets.
#[derive(Debug)]
pub(crate) struct Everybodys {
    /// Those that are known; the first network has the interface [`FIRST`].
    pub(crate) networks: Vec<Network>,
    /// What is wrong with others.
    pub(crate) errors: Vec<Error>,
    /// Why nothing is known of those that are called by name, which the agent knows.
    pub(crate) unknown: Option<Error>,
    /// Whether it is for no more than that the agent is older than the question: it plans them for each pod.
    pub(crate) is_older: bool,
}

/// The networks that every pod gets, for STATUS and GC; the agent, where it is needed, is waited for and has as long as that.
pub(crate) fn everybodys(call: &Call, meta: &Meta, (wait, timeout): (Duration, Duration)) -> Everybodys {
    let alone = || alone(meta, FIRST, &Args::default()).map(|all| all.into_iter().enumerate().collect::<Vec<_>>());
    let (mut planned, mut unknown, mut is_older) = (alone(), None, false);
    if names_objects(meta, "") {
        let answer = ask(call, meta, (wait, timeout), PlanRequest::default());
        is_older = answer.as_ref().is_err_and(Failure::is_about_no_attachment);
        match answer.map_err(|failure| no_plan(meta, true, failure)).and_then(of_answer) {
            Ok(all) => planned = Ok(all.into_iter().enumerate().collect()),
            Err(error) => {
                unknown = Some(error);
                planned = planned.map(|all| all.into_iter().filter(|(_, one)| !one.is_name()).collect());
            }
        }
    }
    let (networks, errors) = on_host(("", ""), meta, planned);
    Everybodys { networks, errors, unknown, is_older }
}

/// The networks that this pod has for certain: those that every pod gets, and that are no objects of the cluster, which may be others by
/// now; and why the rest is not known.
pub(crate) fn certain(call: &Call, meta: &Meta, args: &Args) -> (Vec<Network>, Vec<Error>) {
    let planned = alone(meta, &call.env.ifname, args);
    let mut errors = Vec::new();
    let planned = planned.map(|all| {
        let (objects, certain): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(_, one)| one.is_name());
        errors.extend(
            objects.iter().map(|(_, one)| invalid(format!("network {:?} is an object of the cluster", one.name))),
        );
        certain
    });
    let (networks, wrong) = on_host(of_call(call), meta, planned);
    errors.extend(wrong);
    (networks, errors)
}

/// Those of planned networks, by place, whose configuration the host has.
fn on_host(of: (&str, &str), meta: &Meta, planned: Result<Vec<(usize, Planned)>, Error>) -> (Vec<Network>, Vec<Error>) {
    let planned = match planned {
        Ok(planned) => planned,
        Err(error) => return (Vec::new(), vec![error]),
    };
    let (mut networks, mut errors) = (Vec::new(), Vec::new());
    for (place, one) in planned {
        match wanted(of, meta, one, place == 0) {
            Ok(one) => networks.push(one.network),
            Err(error) => errors.push(error),
        }
    }
    (networks, errors)
}

/// Whether the configuration names networks that may be objects of the cluster.
fn names_objects(meta: &Meta, namespace: &str) -> bool {
    let is_name = |text: &String| !text.contains('/');
    let cluster = match &meta.default {
        Chosen::ClusterNetwork(name) => is_name(name),
        Chosen::Delegates(_) => false,
    };
    let system = meta.system_namespaces.iter().any(|system| system == namespace);
    cluster || (!system && meta.default_networks.iter().any(is_name))
}

/// A cluster without objects.
struct NoObjects;

impl Lookup for NoObjects {
    fn definition(&mut self, _: &str, _: &str) -> Option<Definition> {
        None
    }

    fn device(&mut self, resource: &str, _: Option<&str>) -> Result<String, String> {
        Err(format!("nobody was asked for a device of {resource}"))
    }
}

fn alone(meta: &Meta, ifname: &str, args: &Args) -> Result<Vec<Planned>, Error> {
    let nothing = Annotations::default();
    let all = nsm_npwg::plan(meta, ifname, &args.pod_namespace, &nothing, &mut NoObjects).map_err(invalid)?;
    Ok(all.into_iter().map(Planned::from).collect())
}

fn planned_for(call: &Call, meta: &Meta, args: &Args, asked: Option<&Annotations>) -> Result<Vec<Planned>, Error> {
    let annotations = asked.map(|asked| NetworkAnnotations {
        networks: asked.networks.clone().unwrap_or_default(),
        default_network: asked.default_network.clone().unwrap_or_default(),
    });
    let pod = PlanRequest {
        key: Some(agent::key(&call.env)),
        pod: pod_of(args.clone()),
        annotations,
        ..PlanRequest::default()
    };
    let answer = ask(call, meta, (meta.agent_wait, meta.timeout), pod);
    of_answer(answer.map_err(|failure| no_plan(meta, asked.is_some(), failure))?)
}

/// Has the agent plan for a pod, or for every one. It is waited for as long as the first time, and has the second for its answer.
fn ask(call: &Call, meta: &Meta, times: (Duration, Duration), pod: PlanRequest) -> Result<PlanResponse, Failure> {
    let mut configuration = call.stdin.keys.clone();
    configuration.retain(|key, _| !NOT_FOR_THE_AGENT.contains(&key.as_str()));
    let request = PlanRequest {
        network: call.stdin.name.clone(),
        configuration: Value::Object(configuration).to_string(),
        plugin_version: agent::plugin_version(),
        ..pod
    };
    let asked = in_runtime(async {
        let asked = Agent::ask(&meta.socket, times, async |agent| {
            let request = PlanRequest { timeout_ms: timeout_ms(agent.left()), ..request.clone() };
            agent.call(|mut client| async move { client.plan(request).await }).await
        });
        Ok(asked.await)
    });
    asked.unwrap_or_else(|error| Err(Failure::Away(error.msg)))
}

fn of_answer(answer: PlanResponse) -> Result<Vec<Planned>, Error> {
    answer.networks.into_iter().map(|one| planned(one).map_err(nonsense)).collect()
}

fn no_plan(meta: &Meta, is_asked: bool, failure: Failure) -> Error {
    if failure.is_unknown_call() {
        let msg = "nsm-agent on this node does not plan networks: it is older than this plugin, upgrade it";
        return Error::new(code::UNKNOWN_CALL, msg);
    }
    let error = failure.error(&meta.socket, meta.timeout);
    if is_asked || error.code != code::TRY_AGAIN {
        return error;
    }
    let msg = format!(
        "it is not known which networks the pod asks for: {}; with \"capabilities\": {{{:?}: true}} a runtime that gives annotations \
         says it",
        error.msg,
        pods::CAPABILITY
    );
    Error { msg, ..error }
}

/// One network of a pod that runs.
pub(crate) fn one(call: &Call, meta: &Meta, attach: Attach) -> Result<Wanted, Error> {
    let note = attach.note.clone();
    let planned = Planned::from(nsm_npwg::Planned::try_from(attach).map_err(invalid)?);
    wanted(of_call(call), meta, Planned { note, ..planned }, false)
}

fn planned(one: PlannedNetwork) -> Result<Planned, String> {
    let object = |what: &str, text: &str| match text {
        "" => Ok(Map::new()),
        text => serde_json::from_str::<Map<String, Value>>(text).map_err(|error| format!("{what} {text:?}: {error}")),
    };
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let gateways = one.default_route.iter().map(|text| text.parse().map_err(|_| format!("gateway {text:?}")));
    let default_route = gateways.collect::<Result<Vec<IpAddr>, _>>()?;
    let source = match some(one.configuration) {
        // A definition's, which the agent has looked at.
        Some(text) => Source::List(List::of_host(&one.name, "", &text).map_err(|error| error.to_string())?),
        None => Source::File(some(one.file).ok_or("a network without configuration")?),
    };
    Ok(Planned {
        source,
        completion: Completion {
            capability_args: object("capability arguments", &one.capability_args)?,
            cni_args: one.cni_args,
            args: object("arguments", &one.args)?,
            device_id: some(one.device_id),
        },
        default_route: one.takes_default_route.then_some(default_route),
        ips: one.ips,
        mac: some(one.mac),
        resource: some(one.resource_name),
        note: one.note,
        ifname: one.ifname,
        name: one.name,
    })
}

/// Container and CNI_ARGS.
fn of_call(call: &Call) -> (&str, &str) {
    (&call.env.container_id, &call.env.args)
}

/// Waits for the file by which the cluster's network says that it is ready.
pub(crate) fn ready(meta: &Meta) -> Result<(), Error> {
    match &meta.readiness_file {
        Some(file) if !file.exists() => {
            let msg = format!(
                "the cluster's network is not ready: {} (readinessindicatorfile) does not exist yet",
                file.display()
            );
            Err(Error::new(code::TRY_AGAIN, msg))
        }
        _ => Ok(()),
    }
}

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::new(code::INVALID_CONFIG, why.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "as an argument of map_err")]
fn nonsense(what: String) -> Error {
    Error::new(code::INTERNAL, format!("the agent answered {what}: is it of another version?"))
}
