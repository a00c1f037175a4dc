//! What one plan sees of the cluster, and what it lacks.

use std::collections::HashMap;

use nsm_npwg::{Definition, Error, Lookup};

use super::{
    Definitions,
    definitions::Kept,
    given::{Given, Lacking},
};

/// What has to be asked before a plan can be made.
pub(super) enum Wanted {
    Nothing,
    /// By namespace and name.
    Definitions(Vec<(String, String)>),
    Devices(Lacking),
}

/// What one plan sees.
pub(super) struct View<'a> {
    cluster: Option<&'a Definitions>,
    /// What the API server was asked for this plan.
    asked: HashMap<(String, String), Option<Definition>>,
    /// What is there and not kept.
    lacking: Vec<(String, String)>,
    pub(super) devices: Given,
}

impl<'a> View<'a> {
    pub(super) fn new(cluster: Option<&'a Definitions>, devices: Given) -> Self {
        Self { cluster, asked: HashMap::new(), lacking: Vec::new(), devices }
    }

    /// What is to be asked before the plan is made again, and forgets what this one has given.
    pub(super) fn wanted<'e>(&mut self, failed: impl IntoIterator<Item = &'e Error>) -> Wanted {
        let device = self.devices.begin();
        let mut lacking = std::mem::take(&mut self.lacking);
        if self.cluster.is_some() {
            // The watch may be a moment behind whoever made pod and definition together.
            lacking.extend(failed.into_iter().filter_map(|error| match error {
                Error::NoDefinition { namespace, name } => Some((namespace.clone(), name.clone())),
                _ => None,
            }));
            lacking.retain(|key| !self.asked.contains_key(key));
        }
        if lacking.is_empty() {
            return device.map_or(Wanted::Nothing, Wanted::Devices);
        }
        lacking.sort();
        lacking.dedup();
        Wanted::Definitions(lacking)
    }

    pub(super) fn put(&mut self, namespace: String, name: String, found: Option<Definition>) {
        self.asked.insert((namespace, name), found);
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

    fn device(&mut self, resource: &str, named: Option<&str>) -> Result<String, String> {
        self.devices.next(resource, named)
    }
}
