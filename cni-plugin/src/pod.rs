//! A pod that may ask for network services by annotation: the plugin is one of a list, and most pods ask nothing.
//!
//! Guarantees: what plugins before made is passed on, and nothing else where the meta-plugin is one of them: it has made it all.
//! Nobody is asked about a pod that asks nothing: it starts and ends without agent, socket and folders. Where the runtime gives no
//! annotations, or the agent has not yet said which namespaces ask, the agent is asked if it is there; when it is not, or does not
//! answer within [`PATIENCE`], the pod starts with nothing. A record of the sandbox tells the agent whose it is and what was not known,
//! so that it gives the pod later what it asks for, and the DEL whether there is something to end; in doubt the agent is told.

use std::{path::Path, time::Duration};

use nsm_cni_types::{
    Answer, Args, Attachment, Conf, Error, OfPod,
    pods::{self, MadeNetwork, PodRecord},
};
use nsm_proto::cni::{AddPodRequest, AddResponse, Annotations};

use crate::{
    Call,
    add::{answer_or_end, pod_of, timeout_ms},
    agent::{self, Agent, Failure},
    del, in_runtime, meta,
    netns::Netns,
    sandbox,
};

/// Longest time that a pod waits for an agent that may know what it asks for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a pod asks for, as far as the plugin knows.
enum Asks {
    Nothing,
    /// Its own annotations, or its namespace has some.
    Something(pods::Annotations),
    /// The agent may know. The pod's own annotations, if the runtime gives them: they ask nothing.
    Unknown(Option<pods::Annotations>),
}

impl Asks {
    fn of(pod: &OfPod, socket: &Path, namespace: &str) -> Self {
        let Some(own) = &pod.annotations else { return Self::Unknown(None) };
        match (own.is_empty(), namespace_asks(socket, namespace)) {
            (false, _) | (true, Some(true)) => Self::Something(own.clone()),
            (true, Some(false)) => Self::Nothing,
            (true, None) => Self::Unknown(Some(own.clone())),
        }
    }
}

/// Whether a namespace's annotations ask; none: the agent has not said it since the machine started.
fn namespace_asks(socket: &Path, namespace: &str) -> Option<bool> {
    // Who has no namespace inherits nothing.
    let Some(name) = pods::namespace_file(namespace) else { return Some(false) };
    let folder = pods::namespaces_folder(socket);
    if folder.join(name).exists() {
        return Some(true);
    }
    folder.join(pods::COMPLETE).exists().then_some(false)
}

/// Makes what the pod asks for. Of `networks` that it has already the agent reads in the sandbox's record, which nobody waits for.
pub(crate) fn add(
    call: &Call,
    conf: &Conf,
    pod: &OfPod,
    args: Args,
    netns: &Netns,
    networks: Vec<MadeNetwork>,
) -> Result<String, Error> {
    let is_behind_meta = || sandbox::find(&conf.socket, &call.env).is_some_and(|found| found.is_of_meta());
    if meta::call_again(call).is_none() && is_behind_meta() {
        return passed_on(call, conf);
    }
    let asks = Asks::of(pod, &conf.socket, &args.pod_namespace);
    let mut record = record(call, conf, &args);
    record.asked = !matches!(asks, Asks::Nothing);
    record.namespace_unknown = pod.annotations.is_none() || namespace_asks(&conf.socket, &args.pod_namespace).is_none();
    if !record.asked {
        record.networks = networks;
        sandbox::put(&conf.socket, netns, &record);
        return passed_on(call, conf);
    }
    sandbox::put(&conf.socket, netns, &record);
    let answer = match asks {
        Asks::Nothing => passed_on(call, conf),
        Asks::Something(own) => in_runtime(async {
            let asked = ask(call, conf, Some(own), args, netns, &record, (conf.agent_wait, conf.timeout)).await;
            let made = asked.map_err(|failure| failure.error(&conf.socket, conf.timeout))?;
            answered(call, conf, pod, made).await
        }),
        // Most pods ask nothing: none waits for an agent that is away.
        Asks::Unknown(own) => in_runtime(async {
            let timeout = conf.timeout.min(PATIENCE);
            let made = match ask(call, conf, own, args, netns, &record, (Duration::ZERO, timeout)).await {
                Ok(made) => made,
                Err(failure @ Failure::Answered(_)) if !failure.is_unknown_call() => {
                    return Err(failure.error(&conf.socket, timeout));
                }
                Err(failure) => {
                    let error = failure.error(&conf.socket, timeout);
                    eprintln!(
                        "nsm-cni: it is not known whether the pod asks for network services, and the agent does not say it; the \
                         pod starts without, and gets them when the agent knows: {error}"
                    );
                    AddResponse::default()
                }
            };
            // What the agent gives the pod later it marks.
            record.asked = !made.interfaces.is_empty();
            answered(call, conf, pod, made).await
        }),
    }?;
    record.networks = networks;
    if !record.asked || !record.networks.is_empty() {
        sandbox::put_again(&conf.socket, netns, &record);
    }
    Ok(answer)
}

/// Asks the agent, which is waited for as long as the first says, and has as long as the second says for its answer.
async fn ask(
    call: &Call,
    conf: &Conf,
    own: Option<pods::Annotations>,
    args: Args,
    netns: &Netns,
    record: &PodRecord,
    times: (Duration, Duration),
) -> Result<AddResponse, Failure> {
    let annotations = own.map(|own| Annotations {
        services: own.services.unwrap_or_default(),
        services_2019: own.services_2019.unwrap_or_default(),
    });
    let request = AddPodRequest {
        key: Some(agent::key(&call.env)),
        network: call.stdin.name.clone(),
        netns_path: call.env.netns.clone(),
        netns_url: String::new(),
        pod: pod_of(args),
        annotations,
        taken: record.taken.clone(),
        allow_default_route: conf.allow_default_route,
        allow_route_overlap: conf.allow_route_overlap,
        timeout_ms: 0,
        plugin_version: agent::plugin_version(),
    };
    Agent::ask(&conf.socket, times, async |agent| {
        let netns_url = agent.pass(netns)?;
        let request = AddPodRequest { netns_url, timeout_ms: timeout_ms(agent.left()), ..request.clone() };
        agent.call(|mut client| async move { client.add_pod(request).await }).await
    })
    .await
}

/// What the agent made, behind what plugins before made.
async fn answered(call: &Call, conf: &Conf, pod: &OfPod, mut made: AddResponse) -> Result<String, Error> {
    if made.interfaces.is_empty() {
        return passed_on(call, conf);
    }
    if !pod.allow_dns {
        made.dns = None;
    }
    answer_or_end(call, conf, made).await
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

/// Whether the agent was asked about the pod: without a record only the pod's own word, or its namespace's, says so.
pub(crate) fn is_asked_for(call: &Call, socket: &Path, pod: &OfPod) -> bool {
    match sandbox::find(socket, &call.env) {
        Some(found) => found.is_asked(),
        None => matches!(asks_of(call, socket, pod), Asks::Something(_)),
    }
}

/// Without a record: nothing was made, or its DEL was here before, or it could not be written.
async fn end_in_doubt(call: &Call, socket: &Path, pod: &OfPod) -> Result<(), Error> {
    let asks = asks_of(call, socket, pod);
    if !matches!(asks, Asks::Nothing) {
        let Err(error) = del::end(call, socket).await else { return Ok(()) };
        // Where little is known every pod may have asked; an agent that is back finds the namespace gone.
        return if matches!(asks, Asks::Unknown(_)) && error.code == nsm_cni_types::code::TRY_AGAIN {
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
fn asks_of(call: &Call, socket: &Path, pod: &OfPod) -> Asks {
    let namespace = Args::parse(&call.env.args).unwrap_or_default().pod_namespace;
    Asks::of(pod, socket, &namespace)
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
    record.meta = meta::call_again(call);
    record
}

/// The result of the plugins before.
fn passed_on(call: &Call, conf: &Conf) -> Result<String, Error> {
    let before = conf.prev_result.clone().unwrap_or_else(|| Answer::new(call.stdin.version));
    Ok(before.to_json()?.to_string())
}
