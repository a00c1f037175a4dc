//! GC: free what the runtime no longer knows of this network.

use std::{path::Path, time::Duration};

use nsm_cni_types::{Attachment, Error, Lenient, code};
use nsm_proto::cni::{AttachmentKey, GcRequest, GcResponse, ValidAttachments};

use crate::{
    Call,
    agent::{self, Agent, Failure},
    in_runtime,
};

pub(crate) fn run(call: &Call) -> Result<(), Error> {
    let lenient = Lenient::parse(&call.stdin);
    for warning in &lenient.warnings {
        eprintln!("nsm-cni: GC goes on in spite of: {warning}");
    }
    let valid = Lenient::valid_attachments(&call.stdin)?;
    match in_runtime(async { Ok(free(&lenient.socket, lenient.timeout, request(call, valid)).await) })? {
        Err(failure @ Failure::Away(_)) if lenient.of_pod.is_some() => {
            tell_away(failure, &lenient.socket, lenient.timeout);
            Ok(())
        }
        done => freed(done, &lenient.socket, lenient.timeout),
    }
}

/// Has the agent free services of pods that the runtime no longer knows, if it is there.
pub(crate) fn services(
    call: &Call,
    socket: &Path,
    timeout: Duration,
    valid: Option<Vec<Attachment>>,
) -> Result<(), Error> {
    match in_runtime(async { Ok(free(socket, timeout, request(call, valid)).await) })? {
        Err(failure @ Failure::Away(_)) => {
            tell_away(failure, socket, timeout);
            Ok(())
        }
        done => freed(done, socket, timeout),
    }
}

/// It frees what has lost its namespace when it is back; the others of this network are no concern of ours.
fn tell_away(failure: Failure, socket: &Path, timeout: Duration) {
    eprintln!("nsm-cni: GC frees no network services: {}", failure.error(socket, timeout));
}

fn request(call: &Call, valid: Option<Vec<Attachment>>) -> GcRequest {
    let key = |known: Attachment| AttachmentKey { container_id: known.container_id, ifname: known.ifname };
    GcRequest {
        network: call.stdin.name.clone(),
        valid: valid.map(|all| ValidAttachments { keys: all.into_iter().map(key).collect() }),
        plugin_version: agent::plugin_version(),
    }
}

fn freed(done: Result<GcResponse, Failure>, socket: &Path, timeout: Duration) -> Result<(), Error> {
    match done {
        Ok(done) if done.errors.is_empty() => Ok(()),
        Ok(done) => Err(Error::new(code::PARTLY_FREED, done.errors.join("; "))),
        Err(failure) => Err(failure.error(socket, timeout)),
    }
}

async fn free(socket: &Path, timeout: Duration, request: GcRequest) -> Result<GcResponse, Failure> {
    let mut agent = Agent::connect(socket, Duration::ZERO, timeout).await?;
    let done = agent.call(|mut client| async move { client.gc(request).await }).await?;
    for freed in &done.freed {
        eprintln!("nsm-cni: GC freed container={} ifname={}", freed.container_id, freed.ifname);
    }
    Ok(done)
}
