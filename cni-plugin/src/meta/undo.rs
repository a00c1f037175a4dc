//! DEL of networks, in reverse order.
//!
//! Guarantee: one that fails, or hangs for its share of the time, does not keep the others from being tried; what is left is told. Of
//! a record it is noted on the way what is ended, so that of a call that is killed only the rest is repeated.

use nsm_cni_types::Error;
use serde_json::{Map, Value};

use super::{
    devinfo,
    network::{Network, Sandbox},
    patience::share,
    record::{Held, Progress, Record},
};

/// Networks whose DEL failed, in their order, and why.
#[derive(Debug, Default)]
struct Left {
    networks: Vec<Network>,
    errors: Vec<Error>,
}

/// Ends networks that are recorded elsewhere, the last first. Why some are left.
pub(crate) fn all(networks: &[Network], results: &Map<String, Value>, sandbox: Sandbox<'_>) -> Vec<Error> {
    each(networks, results, sandbox, |_| {}).errors
}

/// Ends the networks of a record, and forgets it when none is left. Why some are left.
///
/// # Errors
/// The record stays as it is, or whole.
pub(crate) fn recorded(
    held: &Held,
    record: &Record,
    progress: &Progress,
    sandbox: Sandbox<'_>,
) -> Result<Vec<Error>, Error> {
    let mut noted = progress.ending(record);
    let left = each(&record.networks, &progress.results, sandbox, |network| {
        noted.ended.push(network.ifname.clone());
        held.put_progress(&noted);
    });
    if left.networks.is_empty() {
        held.remove()?;
    } else {
        held.put(&record.with(left.networks))?;
    }
    Ok(left.errors)
}

/// `ended` hears of each that is ended before the last one is tried.
fn each(
    networks: &[Network],
    results: &Map<String, Value>,
    sandbox: Sandbox<'_>,
    mut ended: impl FnMut(&Network),
) -> Left {
    let mut left = Left::default();
    for (others, network) in networks.iter().enumerate().rev() {
        let sandbox = Sandbox { until: share(sandbox.until, others + 1), ..sandbox };
        if let Err(error) = network.del(sandbox, results.get(&network.ifname)) {
            left.networks.insert(0, network.clone());
            left.errors.push(error);
            continue;
        }
        devinfo::remove(network, sandbox.container_id);
        if others > 0 {
            ended(network);
        }
    }
    left
}

/// Several errors as one, with the code of the first.
pub(crate) fn one_of(errors: &[Error]) -> Result<(), Error> {
    let Some(code) = errors.first().map(|error| error.code) else { return Ok(()) };
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(Error::new(code, texts.join(" / ")))
}
