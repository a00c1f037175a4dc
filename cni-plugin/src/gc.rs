//! GC: free what the runtime no longer knows of this network.

use std::time::Duration;

use nsm_cni_types::{Error, Lenient, code};
use nsm_proto::cni::{AttachmentKey, GcRequest, ValidAttachments};

use crate::{
    Call,
    agent::{self, Agent},
};

pub(crate) async fn run(call: &Call) -> Result<(), Error> {
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
    let timed = |failure: crate::agent::Failure| failure.error(&lenient.socket, lenient.timeout);
    let mut agent = Agent::connect(&lenient.socket, Duration::ZERO, lenient.timeout).await.map_err(timed)?;
    let done = agent.call(|mut client| async move { client.gc(request).await }).await.map_err(timed)?;
    for freed in &done.freed {
        eprintln!("nsm-cni: GC freed container={} ifname={}", freed.container_id, freed.ifname);
    }
    if done.errors.is_empty() { Ok(()) } else { Err(Error::new(code::PARTLY_FREED, done.errors.join("; "))) }
}
