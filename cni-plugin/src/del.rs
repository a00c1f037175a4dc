//! DEL: tell the agent, or leave it a note.
//!
//! Guarantees: within one second, 0 unless the agent itself says that it failed, or neither agent nor folder can be reached;
//! whatever the configuration now says.

use std::{path::Path, time::Duration};

use nsm_cni_types::{Error, Lenient, code};
use nsm_proto::cni::DelRequest;
use tonic::Code;

use crate::{
    Call,
    agent::{self, Agent, Failure},
    in_runtime,
    netns::{Netns, refuse_own},
    owed, pod,
};

/// How long the agent has: together with start and note less than a second.
pub(crate) const PATIENCE: Duration = Duration::from_millis(800);

pub(crate) fn run(call: &Call) -> Result<(), Error> {
    let lenient = Lenient::parse(&call.stdin);
    for warning in &lenient.warnings {
        eprintln!("nsm-cni: DEL goes on in spite of: {warning}");
    }
    match &lenient.of_pod {
        None => in_runtime(end(call, &lenient.socket))?,
        Some(pod) => pod::del(call, &lenient.socket, pod)?,
    }
    // As the library does: after the work, and silent about a namespace that is gone.
    Netns::open(&call.env).map_or(Ok(()), |netns| refuse_own(&call.env, &netns))
}

/// Ends what this call's key names, now or by a note.
pub(crate) async fn end(call: &Call, socket: &Path) -> Result<(), Error> {
    let failure = match tell(call, socket).await {
        Ok(()) => return Ok(()),
        Err(failure) => failure,
    };
    if decided(&failure) {
        return Err(failure.error(socket, PATIENCE));
    }
    let reason = failure.error(socket, PATIENCE);
    match owed::leave(socket, &call.env, &call.stdin.name) {
        Ok(()) => {
            eprintln!("nsm-cni: DEL is owed, the agent will do it when it is back: {reason}");
            Ok(())
        }
        Err((folder, error)) => Err(Error::new(
            code::TRY_AGAIN,
            format!("DEL can be neither done nor noted: {reason}; {}: {error}", folder.display()),
        )),
    }
}

/// Whether the agent has answered for good: not where it says that it could not, then a note is its own reminder.
pub(crate) fn decided(failure: &Failure) -> bool {
    match failure {
        Failure::Away(_) | Failure::Late(_) => false,
        Failure::Answered(status) => !matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted
        ),
    }
}

/// Has the agent end it.
pub(crate) async fn tell(call: &Call, socket: &Path) -> Result<(), Failure> {
    let mut agent = Agent::connect(socket, Duration::ZERO, PATIENCE).await?;
    let request = DelRequest {
        key: Some(agent::key(&call.env)),
        network: call.stdin.name.clone(),
        plugin_version: agent::plugin_version(),
    };
    agent.call(|mut client| async move { client.del(request).await }).await.map(drop)
}
