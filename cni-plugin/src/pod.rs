//! A pod that may ask for network services by annotation: the plugin is one of a list, and most pods ask nothing.
//!
//! Guarantees: what plugins before made is passed on. Nobody is asked about a pod that asks nothing: it starts and ends without
//! agent, socket and folders. Where the runtime gives no annotations the agent is asked, and without it the pod starts with
//! nothing. A record of the sandbox tells the agent whose it is and the DEL whether there is something to end; in doubt the
//! agent is told.

use std::{path::Path, time::Duration};

use nsm_cni_types::{
    Answer, Args, Attachment, Conf, Error, OfPod,
    pods::{self, PodRecord},
};
use nsm_proto::cni::{AddPodRequest, Annotations};

use crate::{
    Call,
    add::{answer_or_end, pod_of, timeout_ms},
    agent::{self, Agent, Failure},
    del, in_runtime,
    netns::Netns,
    sandbox,
};

/// What a pod asks for, as far as the plugin knows.
enum Asks {
    Nothing,
    /// Its own annotations, or its namespace has some.
    Something(pods::Annotations),
    /// The agent may know.
    Unknown,
}

impl Asks {
    fn of(pod: &OfPod, socket: &Path, namespace: &str) -> Self {
        let Some(own) = &pod.annotations else { return Self::Unknown };
        let file = pods::namespace_file(namespace).map(|name| pods::namespaces_folder(socket).join(name));
        if own.is_empty() && !file.is_some_and(|file| file.exists()) {
            Self::Nothing
        } else {
            Self::Something(own.clone())
        }
    }
}

/// Makes what the pod asks for.
pub(crate) fn add(call: &Call, conf: &Conf, pod: &OfPod, args: Args, netns: &Netns) -> Result<String, Error> {
    let asks = Asks::of(pod, &conf.socket, &args.pod_namespace);
    let mut record = record(call, conf, &args);
    record.asked = !matches!(asks, Asks::Nothing);
    sandbox::put(&conf.socket, netns, &record);
    let (annotations, wait) = match asks {
        Asks::Nothing => return passed_on(call, conf),
        Asks::Something(annotations) => (Some(annotations), conf.agent_wait),
        // Most pods ask nothing: none waits for an agent that is away.
        Asks::Unknown => (None, Duration::ZERO),
    };
    let unknown = annotations.is_none();
    in_runtime(async {
        let connected = Agent::connect(&conf.socket, wait, conf.timeout).await;
        let mut agent = match connected {
            Err(failure) if unknown => {
                let error = failure.error(&conf.socket, conf.timeout);
                eprintln!(
                    "nsm-cni: the runtime gives no annotations, and the agent cannot be asked; the pod starts without network services: {error}"
                );
                record.asked = false;
                sandbox::put(&conf.socket, netns, &record);
                return passed_on(call, conf);
            }
            connected => connected.map_err(|failure| failure.error(&conf.socket, conf.timeout))?,
        };
        let netns_url = agent.pass(netns).map_err(|failure| failure.error(&conf.socket, conf.timeout))?;
        let request = AddPodRequest {
            key: Some(agent::key(&call.env)),
            network: call.stdin.name.clone(),
            netns_path: call.env.netns.clone(),
            netns_url,
            pod: pod_of(args),
            annotations: annotations.map(|own| Annotations {
                services: own.services.unwrap_or_default(),
                services_2019: own.services_2019.unwrap_or_default(),
            }),
            taken: record.taken.clone(),
            allow_default_route: conf.allow_default_route,
            allow_route_overlap: conf.allow_route_overlap,
            timeout_ms: timeout_ms(agent.left()),
            plugin_version: agent::plugin_version(),
        };
        let made = agent.call(|mut client| async move { client.add_pod(request).await }).await;
        if unknown && made.as_ref().is_err_and(Failure::is_unknown_call) {
            eprintln!(
                "nsm-cni: the runtime gives no annotations, and the agent is of a version that does not know pods; the pod starts without network services"
            );
            return passed_on(call, conf);
        }
        let mut made = made.map_err(|failure| failure.error(&conf.socket, conf.timeout))?;
        if made.interfaces.is_empty() {
            return passed_on(call, conf);
        }
        if !pod.allow_dns {
            made.dns = None;
        }
        answer_or_end(call, conf, made).await
    })
}

/// Ends what the pod has, at its ADD or later.
pub(crate) fn del(call: &Call, socket: &Path, pod: &OfPod) -> Result<(), Error> {
    let Some(mut found) = sandbox::find(socket, &call.env) else {
        return in_runtime(end_in_doubt(call, socket, pod));
    };
    let asked = found.is_asked();
    // First, as the agent gives a sandbox without a record nothing more. One that stays is a warning: the agent removes it when
    // it sees that the namespace has gone.
    let asked = found.take().unwrap_or_else(|error| {
        eprintln!("nsm-cni: the record of the sandbox in {} stays: {error}", pods::folder(socket).display());
        asked
    });
    if !asked {
        return Ok(());
    }
    in_runtime(del::end(call, socket)).inspect_err(|_| {
        if let Err(error) = found.put_back() {
            eprintln!("nsm-cni: the record of the sandbox is lost: {error}");
        }
    })
}

/// Whether the agent may have made something for the pod.
pub(crate) fn is_asked_for(call: &Call, socket: &Path, pod: &OfPod) -> bool {
    match sandbox::find(socket, &call.env) {
        Some(found) => found.is_asked(),
        None => may_ask(call, socket, pod),
    }
}

/// Without a record: nothing was made, or its DEL was here before, or it could not be written.
async fn end_in_doubt(call: &Call, socket: &Path, pod: &OfPod) -> Result<(), Error> {
    if may_ask(call, socket, pod) {
        let Err(error) = del::end(call, socket).await else { return Ok(()) };
        // Where annotations are not given every pod may have asked; an agent that is back finds the namespace gone.
        return if pod.annotations.is_none() && error.code == nsm_cni_types::code::TRY_AGAIN {
            eprintln!("nsm-cni: DEL of a pod of which nothing is known: {error}");
            Ok(())
        } else {
            Err(error)
        };
    }
    match del::tell(call, socket).await {
        Err(failure) if del::decided(&failure) => Err(failure.error(socket, del::PATIENCE)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What the pod's annotations were when it was made; its namespace's as they are.
fn may_ask(call: &Call, socket: &Path, pod: &OfPod) -> bool {
    let namespace = Args::parse(&call.env.args).unwrap_or_default().pod_namespace;
    !matches!(Asks::of(pod, socket, &namespace), Asks::Nothing)
}

fn record(call: &Call, conf: &Conf, args: &Args) -> PodRecord {
    let sandbox = Attachment { container_id: call.env.container_id.clone(), ifname: call.env.ifname.clone() };
    let mut record = PodRecord::new(sandbox, call.stdin.name.clone(), call.env.netns.clone().into());
    record.pod_name.clone_from(&args.pod_name);
    record.pod_namespace.clone_from(&args.pod_namespace);
    record.pod_uid.clone_from(&args.pod_uid);
    record.taken = conf.made_before(&call.env.netns).map(str::to_owned).collect();
    record.allow_default_route = conf.allow_default_route;
    record.allow_route_overlap = conf.allow_route_overlap;
    record
}

/// The result of the plugins before.
fn passed_on(call: &Call, conf: &Conf) -> Result<String, Error> {
    let before = conf.prev_result.clone().unwrap_or_else(|| Answer::new(call.stdin.version));
    Ok(before.to_json()?.to_string())
}
