//! STATUS: whether an ADD could be served, of all networks that every pod gets.

use nsm_cni_types::{Error, code};
use nsm_npwg::Meta;

use super::{patience::Patience, plan, search, undo};
use crate::agent::Agent;

pub(crate) fn run(meta: &Meta) -> Result<(), Error> {
    let unavailable = |error: Error| Error { code: code::NOT_AVAILABLE, ..error };
    plan::ready(meta).map_err(unavailable)?;
    let search = search(&meta.bin_dir);
    let until = Patience::of_del().work;
    let (networks, mut errors) = plan::everybodys(meta);
    for network in &networks {
        errors.extend(network.status(&search, until));
    }
    if plan::names_objects(meta, "") {
        errors.extend(reachable(meta).err());
    }
    // A plugin's own 50 or 51 says more than ours.
    let first = errors.iter().map(|error| error.code).find(|code| (50..=51).contains(code));
    undo::one_of(&errors).map_err(|error| Error { code: first.unwrap_or(code::NOT_AVAILABLE), ..error })
}

/// Whether the agent is there, who knows objects.
fn reachable(meta: &Meta) -> Result<(), Error> {
    crate::in_runtime(async {
        let agent = Agent::connect(&meta.socket, meta.agent_wait, meta.timeout).await;
        agent.map(drop).map_err(|failure| failure.error(&meta.socket, meta.timeout))
    })
}
