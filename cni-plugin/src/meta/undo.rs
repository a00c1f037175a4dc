//! DEL of networks, in reverse order.
//!
//! Guarantee: one that fails, or hangs for its share of the time, does not keep the others from being tried; what is left is told.

use nsm_cni_types::Error;
use serde_json::{Map, Value};

use super::{
    devinfo,
    network::{Network, Sandbox},
    patience::share,
};

/// Networks whose DEL failed, in their order, and why.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) networks: Vec<Network>,
    pub(crate) errors: Vec<Error>,
}

/// Ends networks, the last first.
pub(crate) fn all(networks: &[Network], results: &Map<String, Value>, sandbox: Sandbox<'_>) -> Left {
    let mut left = Left::default();
    for (others, network) in networks.iter().enumerate().rev() {
        let sandbox = Sandbox { until: share(sandbox.until, others + 1), ..sandbox };
        if let Err(error) = network.del(sandbox, results.get(&network.ifname)) {
            left.networks.insert(0, network.clone());
            left.errors.push(error);
        } else {
            devinfo::remove(network, sandbox.container_id);
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
