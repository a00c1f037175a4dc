//! What one plan sees of the cluster, and what it lacks.

use std::collections::HashMap;

use nsm_npwg::{Definition, Error, Lookup};

use super::{Definitions, definitions::Kept, devices::OfPod};

/// What has to be asked before a plan can be made.
pub(super) enum Wanted {
    Nothing,
    /// By namespace and name.
    Definitions(Vec<(String, String)>),
    Devices,
}

/// What one plan sees.
pub(super) struct View<'a> {
    cluster: Option<&'a Definitions>,
    /// What the API server was asked for this plan.
    asked: HashMap<(String, String), Option<Definition>>,
    /// What is there and not kept.
    lacking: Vec<(String, String)>,
    devices: Option<Result<OfPod, String>>,
    /// How many of a resource's devices this plan has given.
    given: HashMap<String, usize>,
    wants_devices: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(cluster: Option<&'a Definitions>) -> Self {
        let (asked, given) = Default::default();
        Self { cluster, asked, lacking: Vec::new(), devices: None, given, wants_devices: false }
    }

    /// What is to be asked before the plan is made again, and forgets what this one has given.
    pub(super) fn wanted(&mut self, failed: Option<&Error>) -> Wanted {
        self.given.clear();
        let lacking = std::mem::take(&mut self.lacking);
        if !lacking.is_empty() {
            return Wanted::Definitions(lacking);
        }
        match failed {
            // The watch may be a moment behind whoever made pod and definition together.
            Some(Error::NoDefinition { namespace, name }) if self.cluster.is_some() => {
                let key = (namespace.clone(), name.clone());
                if self.asked.contains_key(&key) { Wanted::Nothing } else { Wanted::Definitions(vec![key]) }
            }
            Some(Error::NoDevice { .. }) if std::mem::take(&mut self.wants_devices) => Wanted::Devices,
            _ => Wanted::Nothing,
        }
    }

    pub(super) fn put(&mut self, namespace: String, name: String, found: Option<Definition>) {
        self.asked.insert((namespace, name), found);
    }

    pub(super) fn put_devices(&mut self, devices: Result<OfPod, String>) {
        self.devices = Some(devices);
    }
}

impl Lookup for View<'_> {
    fn definition(&mut self, namespace: &str, name: &str) -> Option<Definition> {
        // Without a cluster a name is that of a file's network (NPWG section 3.4.1).
        let Some(cluster) = self.cluster else { return Some(Definition::default()) };
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(asked) = self.asked.get(&key) {
            return asked.clone();
        }
        match cluster.get(namespace, name)? {
            Kept::Here(definition) => Some((*definition).clone()),
            Kept::There => {
                self.lacking.push(key);
                None
            }
        }
    }

    fn device(&mut self, resource: &str) -> Result<String, String> {
        let Some(devices) = &self.devices else {
            self.wants_devices = true;
            return Err("nobody knows the devices of this pod".to_owned());
        };
        let devices = devices.as_ref().map_err(Clone::clone)?;
        let all = devices.get(resource).map(Vec::as_slice).unwrap_or_default();
        let place = self.given.entry(resource.to_owned()).or_default();
        let device = all.get(*place).cloned().ok_or_else(|| match all.len() {
            0 => "the kubelet has given the pod none: expected a container that requests it in resources.limits"
                .to_owned(),
            given => {
                format!("the pod has {given}, all taken by networks before this one: expected one for each network")
            }
        })?;
        *place += 1;
        Ok(device)
    }
}
