//! What a pod is to get: from the configuration alone, or from the agent where the pod or the configuration names objects.
//!
//! Guarantees: a pod that asks nothing, of a configuration that names files and whole configurations only, is planned without
//! anybody; nothing is made here. Where it is not known what the pod asks, it does not start without its networks.

use std::{net::IpAddr, path::Path, time::Duration};

use nsm_cni_types::{Args, Error, code, pods};
use nsm_npwg::{Annotations, Attach, Chosen, Completion, Definition, List, Lookup, Meta};
use nsm_proto::cni::{NetworkAnnotations, PlanRequest, PlanResponse, PlannedNetwork};
use serde_json::{Map, Value, json};

use super::{
    devinfo::{self, Device},
    hostfiles,
    network::{Conflist, Network},
};
use crate::{
    Call,
    add::{pod_of, timeout_ms},
    agent::{self, Agent, Failure},
    in_runtime,
};

/// The first interface of a pod that is no particular one.
pub(crate) const FIRST: &str = "eth0";
/// What only a runtime says of the pod, and what is of one interface: not for the others.
const OF_ONE: [&str; 2] = ["MAC", "IP"];
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
}

/// The networks that every pod gets, for STATUS and GC; the agent, where it is needed, is waited for and has as long as that.
pub(crate) fn everybodys(call: &Call, meta: &Meta, (wait, timeout): (Duration, Duration)) -> Everybodys {
    let alone = || alone(meta, FIRST, &Args::default()).map(|all| all.into_iter().enumerate().collect::<Vec<_>>());
    let (mut planned, mut unknown) = (alone(), None);
    if names_objects(meta, "") {
        let answer = ask(call, meta, (wait, timeout), PlanRequest::default());
        match answer.map_err(|failure| no_plan(meta, true, failure)).and_then(of_answer) {
            Ok(all) => planned = Ok(all.into_iter().enumerate().collect()),
            Err(error) => {
                unknown = Some(error);
                planned = planned.map(|all| all.into_iter().filter(|(_, one)| !one.is_name()).collect());
            }
        }
    }
    let (networks, errors) = on_host(("", ""), meta, planned);
    Everybodys { networks, errors, unknown }
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

fn wanted((container, given): (&str, &str), meta: &Meta, planned: Planned, is_default: bool) -> Result<Wanted, Error> {
    let list = match planned.source {
        Source::List(list) => list,
        Source::File(text) => {
            let list = hostfiles::find(meta, &text)?;
            planned.completion.apply(&planned.name, list).map_err(invalid)?
        }
    };
    // A network that is named by its place has a name of its own.
    let name = if planned.name.starts_with('/') { list.name().to_owned() } else { planned.name };
    // Section 7.5: what the runtime says is for the first network alone.
    let mut capability_args = if is_default { meta.runtime_config.clone() } else { Map::new() };
    capability_args.extend(planned.completion.capability_args);
    let file = devinfo::path(&name, container, &planned.ifname);
    capability_args.insert(devinfo::CAPABILITY.to_owned(), file.to_string_lossy().into());
    let device = planned.resource.zip(planned.completion.device_id).map(|(resource, id)| Device { resource, id });
    let mut network = Network {
        name,
        ifname: planned.ifname,
        args: arguments(given, &planned.completion.cni_args, is_default),
        capability_args,
        list: conflist(&list, meta)?,
        follows_nothing: false,
        note: planned.note,
    };
    network.capability_args.retain(|name, _| network.list.declares(name));
    Ok(Wanted { network, default_route: planned.default_route, ips: planned.ips, mac: planned.mac, device })
}

/// A list as it is recorded: with a version, as an ADD and its DEL may see different configurations around it.
fn conflist(list: &List, meta: &Meta) -> Result<Conflist, Error> {
    let mut json = list.to_json();
    if list.key("cniVersion").is_none() {
        json["cniVersion"] = json!(meta.version.as_str());
    }
    serde_json::from_value(json).map_err(|error| invalid(format!("network {:?}: {error}", list.name())))
}

/// CNI_ARGS of a network's plugins.
fn arguments(given: &str, more: &str, is_default: bool) -> String {
    let of_one = |pair: &&str| OF_ONE.iter().any(|key| pair.split('=').next() == Some(key));
    let mut pairs: Vec<&str> = given.split(';').filter(|pair| !pair.is_empty()).collect();
    if !is_default || !more.is_empty() {
        pairs.retain(|pair| !of_one(pair));
    }
    if !more.is_empty() {
        // Plugins that know one of them refuse the other.
        if !pairs.iter().any(|pair| pair.starts_with("IgnoreUnknown=")) {
            pairs.push("IgnoreUnknown=1");
        }
        pairs.extend(more.split(';').filter(|pair| !pair.is_empty()));
    }
    pairs.join(";")
}

/// The plugins in the folder of that name beside the cluster network, which follow a plugin that makes nothing.
fn auxiliary(call: &Call, meta: &Meta, others: &[Wanted]) -> Result<Option<Wanted>, Error> {
    let (Some(name), Chosen::ClusterNetwork(cluster)) = (&meta.auxiliary_chain, &meta.default) else { return Ok(None) };
    let cluster = Path::new(cluster);
    let dir = if cluster.is_dir() { cluster } else { cluster.parent().unwrap_or(cluster) };
    let plugins = hostfiles::beside(dir, name)?;
    if plugins.is_empty() {
        return Ok(None);
    }
    let list = json!({"cniVersion": meta.version.as_str(), "name": name, "plugins": plugins});
    let list = List::of_host(name, name, &list.to_string()).map_err(invalid)?;
    let network = Network {
        name: name.clone(),
        ifname: free_name(&others.iter().map(|one| one.network.ifname.as_str()).collect::<Vec<_>>()),
        args: arguments(&call.env.args, "", false),
        capability_args: Map::new(),
        list: conflist(&list, meta)?,
        follows_nothing: true,
        note: String::new(),
    };
    Ok(Some(Wanted { network, default_route: None, ips: Vec::new(), mac: None, device: None }))
}

/// The name of one more interface.
fn free_name(taken: &[&str]) -> String {
    let mut names = (taken.len()..).map(|place| format!("net{place}"));
    names.find(|name| !taken.contains(&name.as_str())).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auxiliary_chain_takes_a_name_that_no_network_has() {
        assert_eq!(free_name(&["eth0", "net1"]), "net2");
        assert_eq!(free_name(&["eth0", "net2"]), "net3");
        assert_eq!(free_name(&["eth0", "net3", "net4", "net5"]), "net6");
    }
}
