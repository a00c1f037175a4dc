//! STATUS: whether an ADD could be served. An agent that is away is code 50: what is connected stays connected without it.

use nsm_cni_types::{Args, Attach, Conf, Error, Mode, code};
use nsm_proto::cni::StatusRequest;

use crate::{
    Call,
    agent::{self, Agent, Failure},
    in_runtime,
};

pub(crate) fn run(call: &Call) -> Result<(), Error> {
    let args = Args::parse(&call.env.args)?;
    let conf = Conf::parse(&call.stdin, &args)?;
    match &conf.mode {
        Mode::Attach(attach) => in_runtime(ask(&conf, attach)),
        // Pods that ask nothing can be made in any case: a node must not be taken out of service for the others.
        Mode::Pod(_) => Ok(()),
    }
}

async fn ask(conf: &Conf, attach: &Attach) -> Result<(), Error> {
    let unavailable = |failure: Failure| {
        let error = failure.error(&conf.socket, conf.timeout);
        // An agent that does not know the call, or refuses it, is told by its own code.
        if error.code == code::TRY_AGAIN { Error { code: code::NOT_AVAILABLE, ..error } } else { error }
    };
    let mut agent = Agent::connect(&conf.socket, conf.agent_wait, conf.timeout).await.map_err(unavailable)?;
    let request = StatusRequest {
        network_service: attach.network_service.clone(),
        mechanism: attach.mechanism.to_string(),
        plugin_version: agent::plugin_version(),
    };
    let status = agent.call(|mut client| async move { client.status(request).await }).await.map_err(unavailable)?;
    let problems = status.problems;
    if problems.is_empty() { Ok(()) } else { Err(Error::new(code::NOT_AVAILABLE, problems.join("; "))) }
}
