//! Mechanisms that client and endpoint run between themselves, over a file that the agent passes on (memif).

use super::{Agreement, Error, Finding, Forwarder, Wire};

/// Makes nothing: the descriptors went along with request and answer.
pub struct Relay;

impl Forwarder for Relay {
    fn plan(&self, _: &Agreement) -> Result<Wire, Error> {
        Ok(Wire::Relay)
    }

    fn apply(&self, wire: &Wire, _: &Agreement) -> Result<Wire, Error> {
        Ok(wire.clone())
    }

    fn change(&self, _: &Wire, plan: &Wire, _: &Agreement) -> Result<Option<Wire>, Error> {
        Ok(Some(plan.clone()))
    }

    fn undo(&self, _: &Wire, _: Option<&nsm_netlink::Netns>) -> Result<(), Error> {
        Ok(())
    }

    fn inspect(&self, _: &Wire, _: Option<&nsm_netlink::Netns>) -> Result<Vec<Finding>, Error> {
        Ok(Vec::new())
    }

    fn inspect_endpoint(&self, _: &Wire, _: Option<&nsm_netlink::Netns>) -> Result<Vec<Finding>, Error> {
        Ok(Vec::new())
    }
}
