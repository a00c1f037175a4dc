//! What a pod asks of one network, put where the network's plugins find it.
//!
//! Guarantees: what no plugin would do is refused before anything runs. Addresses and hardware address go as `CNI_ARGS` too, for
//! plugins that know no capabilities; whether they were heeded the result shows.

use serde_json::{Map, Value, json};

use crate::{Error, List, Selection};

/// Those that the annotation can only ask by capability.
const DECLARED: [&str; 3] = ["portMappings", "bandwidth", "infinibandGUID"];
/// The capability by which a plugin is told a device.
const DEVICE: &str = "deviceID";

/// What is added to a network's configuration and to the calls of its plugins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// Capability arguments by name.
    pub capability_args: Map<String, Value>,
    /// More `CNI_ARGS`: `K=V;K=V`.
    pub cni_args: String,
    /// Merged over `args.cni` of each plugin.
    pub args: Map<String, Value>,
    /// The device that the first plugin gets.
    pub device_id: Option<String>,
}

impl Completion {
    /// What a selection asks, with the device that the pod got for the network, if any.
    pub fn of(selection: &Selection, device_id: Option<String>) -> Self {
        let mut capability_args = Map::new();
        let mut cni_args = Vec::new();
        if !selection.ips.is_empty() {
            capability_args.insert("ips".to_owned(), json!(selection.ips));
        }
        if let Some(mac) = &selection.mac {
            capability_args.insert("mac".to_owned(), mac.as_str().into());
            cni_args.push(format!("MAC={mac}"));
        }
        // Plugins read one address there.
        if let [ip] = &*selection.ips {
            cni_args.push(format!("IP={ip}"));
        }
        // What the pod's author names is no device that the pod got: it is told as asked, and put into no configuration.
        let told = device_id.clone().or_else(|| selection.device_id.clone());
        let asked = [
            ("portMappings", selection.port_mappings.clone()),
            ("bandwidth", selection.bandwidth.clone()),
            ("infinibandGUID", selection.infiniband_guid.clone().map(Value::from)),
            (DEVICE, told.map(Value::from)),
        ];
        let asked = asked.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        capability_args.extend(asked);
        Self { capability_args, cni_args: cni_args.join(";"), args: selection.cni_args.clone(), device_id }
    }

    /// The list as its plugins are to have it.
    ///
    /// # Errors
    /// [`Error::Refused`], naming `network`: no plugin declares what is asked, or `args` are no objects.
    pub fn apply(&self, network: &str, mut list: List) -> Result<List, Error> {
        let undeclared =
            DECLARED.into_iter().find(|name| self.capability_args.contains_key(*name) && !list.declares(name));
        let several = self.capability_args.get("ips").and_then(Value::as_array).is_some_and(|ips| ips.len() > 1);
        let undeclared = undeclared.or((several && !list.declares("ips")).then_some("ips"));
        let named = self.device_id.is_none() && self.capability_args.contains_key(DEVICE);
        let undeclared = undeclared.or((named && !list.declares(DEVICE)).then_some(DEVICE));
        if let Some(capability) = undeclared {
            return Err(Error::refused(
                network,
                format!(
                    "the pod's annotation asks for {capability}, and no plugin of the network declares that capability: expected \
                     \"capabilities\": {{\"{capability}\": true}} in one of them"
                ),
            ));
        }
        for plugin in list.plugins_mut() {
            if !self.args.is_empty() {
                merge(plugin, &self.args).map_err(|why| Error::refused(network, why))?;
            }
        }
        if let (Some(device), Some(first)) = (&self.device_id, list.plugins_mut().first_mut()) {
            first.insert("deviceID".to_owned(), device.as_str().into());
            first.insert("pciBusID".to_owned(), device.as_str().into());
        }
        Ok(list)
    }
}

/// Puts arguments over `args.cni`.
fn merge(plugin: &mut Map<String, Value>, more: &Map<String, Value>) -> Result<(), String> {
    fn within<'a>(keys: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
        let value = keys.entry(key).or_insert_with(|| json!({}));
        if value.is_null() {
            *value = json!({});
        }
        value.as_object_mut()
    }
    let args = within(plugin, "args").ok_or("args: expected an object, as the pod's annotation has cni-args")?;
    let cni = within(args, "cni").ok_or("args.cni: expected an object, as the pod's annotation has cni-args")?;
    cni.extend(more.clone());
    Ok(())
}
