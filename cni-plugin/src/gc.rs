//! GC: free what the runtime no longer knows of this network.

use std::time::Duration;

use nsm_cni_types::{Error, Lenient, code};
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
    let key =
        |known: nsm_cni_types::Attachment| AttachmentKey { container_id: known.container_id, ifname: known.ifname };
    let request = GcRequest {
        network: call.stdin.name.clone(),
        valid: valid.map(|all| ValidAttachments { keys: all.into_iter().map(key).collect() }),
        plugin_version: agent::plugin_version(),
    };
    match in_runtime(async { Ok(free(&lenient, request).await) })? {
        Ok(done) if done.errors.is_empty() => Ok(()),
        Ok(done) => Err(Error::new(code::PARTLY_FREED, done.errors.join("; "))),
        // It frees what has lost its namespace when it is back; the others of this network are no concern of ours.
        Err(failure @ Failure::Away(_)) if lenient.of_pod.is_some() => {
            eprintln!("nsm-cni: GC frees nothing: {}", failure.error(&lenient.socket, lenient.timeout));
            Ok(())
        }
        Err(failure) => Err(failure.error(&lenient.socket, lenient.timeout)),
    }
}

async fn free(lenient: &Lenient, request: GcRequest) -> Result<GcResponse, Failure> {
    let mut agent = Agent::connect(&lenient.socket, Duration::ZERO, lenient.timeout).await?;
    let done = agent.call(|mut client| async move { client.gc(request).await }).await?;
    for freed in &done.freed {
        eprintln!("nsm-cni: GC freed container={} ifname={}", freed.container_id, freed.ifname);
    }
    Ok(done)
}
