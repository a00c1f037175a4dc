//! What the meta-plugin has made for a pod, as long as the sandbox is there.

use nsm_cni_types::{Answer, Version, pods::MadeNetwork};
use nsm_npwg::{
    Changed, Selection,
    status::{self, Entry},
};
use nsm_proto::cni::{SettledNetwork, SettledRequest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::given::Device;
use crate::state::{Attachment, AttachmentKey, Pod, Record};

/// Most networks of a pod.
const MOST: usize = 2 * nsm_npwg::MOST;
/// Longest text of one result, in bytes.
const LONGEST: usize = 256 << 10;

/// The networks of a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// The container, and the first network's interface.
    pub key: AttachmentKey,
    /// Whose it is.
    pub pod: Pod,
    /// In the order in which they were made.
    pub networks: Vec<Made>,
}

/// One network of a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// As the status names it.
    pub name: String,
    /// The interface's name.
    pub ifname: String,
    /// Whether it is the pod's default network.
    pub default: bool,
    /// What is told of it: an entry for each interface.
    pub entries: Vec<Entry>,
    /// What the pod's annotation asked for, where it asked for this one.
    #[serde(default)]
    pub asked: Option<Selection>,
    /// The resource and the id of the device that it is made of.
    #[serde(default)]
    pub device: Option<Device>,
}

/// A network that a running pod got, as its annotation asked for it.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    /// The interface's name.
    pub(super) ifname: String,
    /// What was asked for.
    pub(super) selection: Selection,
    /// What it is made of.
    pub(super) device: Option<Device>,
}

impl Made {
    /// One network, from its result.
    pub(super) fn of(
        name: String,
        ifname: String,
        default: bool,
        result: &Value,
        info: Option<Value>,
    ) -> Result<Self, String> {
        let answer = Answer::parse(result, Version::NEWEST).map_err(|error| format!("network {name:?}: {error}"))?;
        let entries = status::entries(&name, &ifname, default, info, &answer);
        Ok(Self { name, ifname, default, entries, asked: None, device: None })
    }

    /// As an event tells it.
    pub(super) fn told(&self) -> String {
        let ips: Vec<String> = self.entries.iter().flat_map(|entry| &entry.ips).map(ToString::to_string).collect();
        format!("{} [{}] from {}", self.ifname, ips.join(" "), self.name)
    }
}

impl Settled {
    /// Reads what the plugin says.
    pub(super) fn read(key: AttachmentKey, asked: SettledRequest) -> Result<Self, String> {
        let pod = asked.pod.unwrap_or_default();
        let pod = Pod { name: pod.name, namespace: pod.namespace, uid: pod.uid };
        if asked.networks.len() > MOST {
            return Err(format!("{} networks: expected at most {MOST}", asked.networks.len()));
        }
        let networks = asked.networks.into_iter().map(read_one).collect::<Result<_, _>>()?;
        Ok(Self { key, pod, networks })
    }

    /// Notes which of the networks the annotation asked for, and what they are made of, by their interfaces.
    pub(super) fn follow(&mut self, selections: &[(String, Selection)], devices: &[(String, Device)]) {
        for made in &mut self.networks {
            made.asked = of_interface(selections, &made.ifname);
            made.device = of_interface(devices, &made.ifname);
        }
    }

    /// What the plugin says after a change, of a pod that had these networks; `attached` is a new one.
    pub(super) fn after(&self, changed: Changed, mut attached: Option<Attached>) -> Result<Self, String> {
        if changed.networks.len() > MOST {
            return Err(format!("{} networks: expected at most {MOST}", changed.networks.len()));
        }
        let mut one = |one: MadeNetwork| {
            let made = read_one(as_told(&one))?;
            if let Some(Attached { selection, device, .. }) = attached.take_if(|new| new.ifname == made.ifname) {
                return Ok(Made { asked: Some(selection), device, ..made });
            }
            let before = self.networks.iter().find(|one| one.ifname == made.ifname);
            let (asked, device) = before.map(|one| (one.asked.clone(), one.device.clone())).unwrap_or_default();
            Ok(Made { asked, device, ..made })
        };
        let networks = changed.networks.into_iter().map(&mut one).collect::<Result<_, String>>()?;
        match attached {
            Some(missing) => Err(format!("nsm-cni answered without interface {}", missing.ifname)),
            None => Ok(Self { networks, ..self.clone() }),
        }
    }

    /// What the networks are made of.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.networks.iter().filter_map(|network| network.device.as_ref())
    }

    /// All entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.networks.iter().flat_map(|network| &network.entries)
    }

    /// As an event tells it.
    pub(super) fn told(&self) -> String {
        let all: Vec<String> = self.networks.iter().map(Made::told).collect();
        format!("Add {}", all.join(", "))
    }
}

fn of_interface<T: Clone>(all: &[(String, T)], ifname: &str) -> Option<T> {
    all.iter().find(|(of, _)| of == ifname).map(|(_, one)| one.clone())
}

/// What the plugin has written, as it tells it by a call.
pub(super) fn as_told(made: &MadeNetwork) -> SettledNetwork {
    SettledNetwork {
        name: made.name.clone(),
        ifname: made.ifname.clone(),
        result: made.result.to_string(),
        default: made.default,
        device_info: made.device_info.clone(),
    }
}

fn read_one(asked: SettledNetwork) -> Result<Made, String> {
    let SettledNetwork { name, ifname, result, default, device_info } = asked;
    let json = |what: &str, text: &str| -> Result<Value, String> {
        if text.len() > LONGEST {
            return Err(format!("{what} of network {name:?} has {} bytes: expected at most {LONGEST}", text.len()));
        }
        serde_json::from_str(text).map_err(|error| format!("{what} of network {name:?}: {error}: expected JSON"))
    };
    let value = json("result", &result)?;
    let info = if device_info.is_empty() { None } else { Some(json("device_info", &device_info)?) };
    Made::of(name.clone(), ifname, default, &value, info)
}

impl Record for Settled {
    type Key = AttachmentKey;
    const FOLDER: &'static str = "networks";

    fn key(&self) -> AttachmentKey {
        self.key.clone()
    }

    fn file_name(key: &AttachmentKey) -> String {
        Attachment::file_name(key)
    }
}
