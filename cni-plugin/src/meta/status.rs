//! STATUS: whether an ADD could be served, of all networks that every pod gets.

use nsm_cni_types::{Error, code};
use nsm_npwg::Meta;

use super::{
    patience::Patience,
    plan::{self, Everybodys},
    search, undo,
};
use crate::Call;

pub(crate) fn run(call: &Call, meta: &Meta) -> Result<(), Error> {
    let unavailable = |error: Error| Error { code: code::NOT_AVAILABLE, ..error };
    plan::ready(meta).map_err(unavailable)?;
    let search = search(&meta.bin_dir);
    let until = Patience::of_del().work;
    let times = (meta.agent_wait, meta.timeout);
    let Everybodys { networks, mut errors, unknown, is_older } = plan::everybodys(call, meta, times);
    for network in &networks {
        errors.extend(network.status(&search, until));
    }
    // An older agent serves pods: the node is ready.
    errors.extend(unknown.filter(|_| !is_older));
    // A plugin's own 50 or 51 says more than ours.
    let first = errors.iter().map(|error| error.code).find(|code| (50..=51).contains(code));
    undo::one_of(&errors).map_err(|error| Error { code: first.unwrap_or(code::NOT_AVAILABLE), ..error })
}
