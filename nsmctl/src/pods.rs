//! `nsmctl attach` and `nsmctl detach`: the annotation of a pod, edited with the user's own rights; the agent of the pod's node
//! follows.
//!
//! Guarantees: what others write into the pod at the same time stays; entries that are not meant keep their text. Doing it again
//! changes nothing. What the agent would refuse is not written.

mod annotation;
mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    time::Duration,
};

use nsm_cni_types::pods::{NETWORK_STATUS, NETWORK_STATUS_PREFIX, STATUS};
use serde_json::{Map, Value};
use tokio::time::Instant;

pub(crate) use annotation::Error as AnnotationError;
use annotation::{Annotations, Entry};
use cluster::{Cluster, Pod};

use crate::{cli, error::Error, output};

/// The interface that runtimes give every pod first.
const FIRST_INTERFACE: &str = "eth0";
/// How often an edit is tried when somebody else writes at the same time.
const TRIES: usize = 8;

/// Adds network services to a pod.
pub(crate) async fn attach(args: &cli::Attach, timeout: Duration, out: &mut impl Write) -> Result<(), Error> {
    let entries = args.services.iter().map(|service| Entry::of(service)).collect::<Result<Vec<_>, _>>()?;
    let cluster = Cluster::connect(&args.on, timeout).await?;
    let name = &args.on.pod;
    let edited =
        edit(&cluster, name, |pod| Ok(Annotations::of(pod.annotations()).with(&entries, &others(pod))?)).await?;
    writeln!(out, "pod/{name} {}", if edited { "annotated" } else { "unchanged" })?;
    eprintln!(
        "warning: NetworkPolicy does not cover interfaces of network services: what reaches the pod through them is up to the services"
    );
    if args.on.wait {
        let settled = |status: &[Value]| {
            entries.iter().all(|entry| {
                let one = status.iter().find(|one| stands_for(one, entry));
                one.is_some_and(|one| one["state"] == "up" || one["state"] == "failed")
            })
        };
        let status = wait(&cluster, name, timeout, settled).await?;
        table(&status, out)?;
        let mut asked = status.iter().filter(|one| entries.iter().any(|entry| stands_for(one, entry)));
        if asked.any(|one| one["state"] == "failed") {
            return Err(Error::Findings);
        }
    }
    Ok(())
}

/// Takes network services from a pod.
pub(crate) async fn detach(args: &cli::Detach, timeout: Duration, out: &mut impl Write) -> Result<(), Error> {
    let cluster = Cluster::connect(&args.on, timeout).await?;
    let name = &args.on.pod;
    let mut nothing = Vec::new();
    let mut given = BTreeMap::new();
    let edited = edit(&cluster, name, |pod| {
        given = status(pod).iter().map(|one| (text(one, "interface"), text(one, "service"))).collect();
        let without = Annotations::of(pod.annotations()).without(&args.names, &given)?;
        nothing = without.nothing;
        Ok(without.change)
    })
    .await?;
    writeln!(out, "pod/{name} {}", if edited { "annotated" } else { "unchanged" })?;
    for missed in &nothing {
        if given.contains_key(*missed) {
            eprintln!(
                "nsmctl: {missed} of pod {name} does not come from its own annotation: what its namespace asked for stays until the pod is made again"
            );
        } else {
            eprintln!("nsmctl: the annotations of pod {name} have no network service or interface {missed:?}");
        }
    }
    if args.on.wait {
        let doomed = |one: &Value| {
            let is = |name: &String| {
                !nothing.contains(&name.as_str()) && (text(one, "interface") == *name || text(one, "service") == *name)
            };
            args.names.iter().any(is)
        };
        let status = wait(&cluster, name, timeout, |status| !status.iter().any(doomed)).await?;
        table(&status, out)?;
    }
    Ok(())
}

/// Changes annotations of a pod, and again where somebody else wrote meanwhile; false when there was nothing to change.
async fn edit(
    cluster: &Cluster,
    name: &str,
    mut change: impl FnMut(&Pod) -> Result<Option<Map<String, Value>>, Error>,
) -> Result<bool, Error> {
    for _ in 0..TRIES {
        let pod = cluster.pod(name).await?;
        let Some(annotations) = change(&pod)? else { return Ok(false) };
        if cluster.annotate(&pod, annotations).await? {
            return Ok(true);
        }
    }
    Err(Error::Refused(format!("pod {name} is written by others all the time: try again")))
}

/// Waits until the status of a pod is as it is to be.
async fn wait(
    cluster: &Cluster,
    name: &str,
    timeout: Duration,
    settled: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>, Error> {
    let deadline = Instant::now() + timeout;
    let mut last = Vec::new();
    let looked = cluster.follow(name, |pod| {
        last = status(pod);
        settled(&last)
    });
    let Ok(looked) = tokio::time::timeout_at(deadline, looked).await else {
        let shown = if last.is_empty() { "nothing".to_owned() } else { Value::Array(last).to_string() };
        return Err(Error::Refused(format!(
            "the agent of the pod's node did not follow within {timeout:?}; its status says {shown}; kubectl describe pod {name} shows what it refused"
        )));
    };
    looked?;
    Ok(last)
}

fn status(pod: &Pod) -> Vec<Value> {
    list(pod, STATUS)
}

/// Interfaces of a pod that are not of its annotations, as far as meta-plugins write them down.
fn others(pod: &Pod) -> BTreeSet<String> {
    let networks = list(pod, NETWORK_STATUS);
    let others = networks.iter().filter(|one| !text(one, "name").starts_with(NETWORK_STATUS_PREFIX));
    others.map(|one| text(one, "interface")).chain([FIRST_INTERFACE.to_owned()]).collect()
}

fn list(pod: &Pod, key: &str) -> Vec<Value> {
    let text = pod.annotations().and_then(|all| all.get(key));
    let list: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
    list.and_then(|list| list.as_array().cloned()).unwrap_or_default()
}

fn text(one: &Value, key: &str) -> String {
    one[key].as_str().unwrap_or_default().to_owned()
}

fn stands_for(one: &Value, entry: &Entry) -> bool {
    one["service"] == entry.wish.service.as_str()
        && entry.wish.interface.as_ref().is_none_or(|name| one["interface"] == name.as_str())
}

fn table(status: &[Value], out: &mut impl Write) -> Result<(), Error> {
    let row = |one: &Value| {
        let ips = one["ips"].as_array().map(|ips| ips.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","));
        let last = if one["message"].is_null() { ips.unwrap_or_default() } else { text(one, "message") };
        vec![text(one, "service"), text(one, "interface"), text(one, "state"), text(one, "endpoint"), last]
    };
    let rows: Vec<Vec<String>> = status.iter().map(row).collect();
    Ok(output::table(Some(&["SERVICE", "INTERFACE", "STATE", "ENDPOINT", "ADDRESSES"]), &rows, out)?)
}
