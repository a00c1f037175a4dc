//! What the meta-plugin has made for a pod, as long as the sandbox is there.

use nsm_cni_types::{Answer, Version, pods::MadeNetwork};
use nsm_npwg::{
    Attach, Changed, Selection,
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

/// How far a network has come. What is to be changed is recorded before it is: whoever is killed on the way finds it again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The pod has it.
    #[default]
    Made,
    /// It is being attached: the pod may have it, or a part.
    Coming,
    /// It is being detached: the pod may have it still, or a part.
    Leaving,
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
    /// How far it has come.
    #[serde(default)]
    pub stage: Stage,
}

/// What of a network only its plan knows. The plugin keeps it in its record, so that it is known to an agent that did not make the plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<Selection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<Device>,
}

impl Note {
    /// Of what the annotation asked for, and what it is made of.
    pub(super) fn of(asked: Option<Selection>, device: Option<Device>) -> Self {
        Self { asked, device }
    }

    /// As the plugin keeps it.
    pub(super) fn to_text(&self) -> String {
        if *self == Self::default() { String::new() } else { serde_json::to_string(self).unwrap_or_default() }
    }
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
        Ok(Self { name, ifname, default, entries, asked: None, device: None, stage: Stage::Made })
    }

    /// One that is about to be attached.
    pub(super) fn coming(attach: &Attach, asked: Selection, device: Option<Device>) -> Self {
        let (name, ifname) = (attach.name.clone(), attach.ifname.clone());
        Self { name, ifname, default: false, entries: Vec::new(), asked: Some(asked), device, stage: Stage::Coming }
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
        Self::of(key, pod, asked.networks)
    }

    /// What the plugin tells of a pod's networks after it has changed the one of that interface; what was not ended of another's change is
    /// to be ended still.
    pub(super) fn after(&self, ifname: &str, changed: &Changed) -> Result<Self, String> {
        let told = changed.networks.iter().map(as_told).collect();
        let mut after = Self::of(self.key.clone(), self.pod.clone(), told)?;
        for begun in self.networks.iter().filter(|one| one.stage != Stage::Made && one.ifname != ifname) {
            match after.networks.iter_mut().find(|one| one.ifname == begun.ifname) {
                Some(found) if found.name == begun.name => found.stage = begun.stage,
                // It never was there.
                Some(_) => {}
                None => after.networks.push(begun.clone()),
            }
        }
        Ok(after)
    }

    /// Nothing is known yet.
    pub(super) fn nothing(key: AttachmentKey, pod: Pod) -> Self {
        Self { key, pod, networks: Vec::new() }
    }

    /// The same with a network that is about to be attached. What is known of it stays told: it may be there still.
    pub(super) fn with(mut self, coming: Made) -> Self {
        match self.networks.iter_mut().find(|one| one.ifname == coming.ifname) {
            Some(begun) if begun.name == coming.name => {
                let entries = std::mem::take(&mut begun.entries);
                *begun = Made { entries, ..coming };
            }
            Some(other) => *other = coming,
            None => self.networks.push(coming),
        }
        self
    }

    /// The same with a network that is about to be detached.
    pub(super) fn without(mut self, ifname: &str) -> Self {
        for one in self.networks.iter_mut().filter(|one| one.ifname == ifname && one.stage == Stage::Made) {
            one.stage = Stage::Leaving;
        }
        self
    }

    /// Whether the plugin has told what the pod has.
    pub fn is_told(&self) -> bool {
        self.networks.iter().any(|one| one.stage != Stage::Coming)
    }

    fn of(key: AttachmentKey, pod: Pod, networks: Vec<SettledNetwork>) -> Result<Self, String> {
        if networks.len() > MOST {
            return Err(format!("{} networks: expected at most {MOST}", networks.len()));
        }
        let networks = networks.into_iter().map(read_one).collect::<Result<_, _>>()?;
        Ok(Self { key, pod, networks })
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

/// What the plugin has written, as it tells it by a call.
pub(super) fn as_told(made: &MadeNetwork) -> SettledNetwork {
    SettledNetwork {
        name: made.name.clone(),
        ifname: made.ifname.clone(),
        result: made.result.to_string(),
        default: made.default,
        device_info: made.device_info.clone(),
        note: made.note.clone(),
    }
}

fn read_one(asked: SettledNetwork) -> Result<Made, String> {
    let SettledNetwork { name, ifname, result, default, device_info, note } = asked;
    let json = |what: &str, text: &str| -> Result<Value, String> {
        if text.len() > LONGEST {
            return Err(format!("{what} of network {name:?} has {} bytes: expected at most {LONGEST}", text.len()));
        }
        serde_json::from_str(text).map_err(|error| format!("{what} of network {name:?}: {error}: expected JSON"))
    };
    let value = json("result", &result)?;
    let info = if device_info.is_empty() { None } else { Some(json("device_info", &device_info)?) };
    // Of another version's agent it may be anything.
    let Note { asked, device } = serde_json::from_str(&note).unwrap_or_default();
    let made = Made::of(name.clone(), ifname, default, &value, info)?;
    Ok(Made { asked, device, ..made })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, ifname: &str) -> MadeNetwork {
        let result = serde_json::json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": ifname, "sandbox": "/n" }] });
        MadeNetwork {
            name: name.into(),
            ifname: ifname.into(),
            result,
            default: false,
            device_info: String::new(),
            note: String::new(),
        }
    }

    fn begun(stage: Stage, name: &str, ifname: &str) -> Made {
        let attach = Attach { name: name.into(), ifname: ifname.into(), ..Attach::default() };
        Made { stage, ..Made::coming(&attach, Selection::default(), None) }
    }

    fn stages(settled: &Settled) -> Vec<(&str, &str, Stage)> {
        settled.networks.iter().map(|one| (one.ifname.as_str(), one.name.as_str(), one.stage)).collect()
    }

    fn nothing() -> Settled {
        let key = AttachmentKey { container_id: "c".into(), ifname: "eth0".into() };
        Settled::nothing(key, Pod { name: "p".into(), namespace: "n".into(), uid: "u".into() })
    }

    #[test]
    fn what_was_begun_is_there_only_if_the_plugin_has_no_other_of_its_name() {
        let known = nothing()
            .with(begun(Stage::Coming, "n/a", "net1"))
            .with(begun(Stage::Coming, "n/b", "net2"))
            .with(begun(Stage::Coming, "n/c", "net3"));
        let changed = Changed { networks: vec![told("own", "eth0"), told("n/x", "net1"), told("n/c", "net3")] };
        let after = known.after("net9", &changed).unwrap();
        let expected = [
            ("eth0", "own", Stage::Made),
            ("net1", "n/x", Stage::Made),
            ("net3", "n/c", Stage::Coming),
            ("net2", "n/b", Stage::Coming),
        ];
        assert_eq!(stages(&after), expected);
        // The one that was asked about is as the plugin says.
        assert_eq!(stages(&known.after("net3", &changed).unwrap())[2], ("net3", "n/c", Stage::Made));
    }

    #[test]
    fn what_is_asked_for_again_stays_told() {
        let made =
            nothing().after("net1", &Changed { networks: vec![told("own", "eth0"), told("n/a", "net1")] }).unwrap();
        let entries = made.networks[1].entries.clone();
        let again = made.without("net1").with(begun(Stage::Coming, "n/a", "net1"));
        assert_eq!(stages(&again)[1], ("net1", "n/a", Stage::Coming));
        assert_eq!((again.networks[1].entries.clone(), entries.len()), (entries, 1));
        let other = again.with(begun(Stage::Coming, "n/b", "net1"));
        assert!(other.networks[1].entries.is_empty());
        assert_eq!(stages(&other.without("net1"))[1].2, Stage::Coming, "it is not known to be there");
    }
}
