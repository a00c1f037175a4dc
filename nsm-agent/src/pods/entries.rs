//! What is said of a pod's network services, and where it goes among what others say of its interfaces.
//!
//! Guarantee: what others wrote stays as it is, in its order. Where the meta-plugin is this project's, all networks are its own, and no
//! other one is said to be there.

use nsm_cni_types::pods::NETWORK_STATUS_PREFIX;
use serde::Serialize;
use serde_json::{Value, json};

use super::follow::Missing;

/// How a network service of a pod is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    /// Packets travel.
    Up,
    /// It is being made.
    #[default]
    Connecting,
    /// It is lost and not healed yet.
    Healing,
    /// It was asked for and cannot be had; it is tried again.
    Failed,
}

/// One network service of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) service: String,
    pub(super) interface: String,
    pub(super) state: State,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) endpoint: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
}

impl Entry {
    /// One that the pod does not have.
    pub(super) fn missing(missing: Missing) -> Self {
        let Missing { service, interface, why } = missing;
        Self { service, interface, state: State::Failed, message: Some(why), ..Self::default() }
    }

    /// As CNI meta-plugins write an interface.
    fn interface(&self) -> Value {
        let address = |text: &String| text.split('/').next().unwrap_or_default().to_owned();
        let mut entry = json!({
            "name": format!("{NETWORK_STATUS_PREFIX}{}", self.service),
            "interface": self.interface,
            "ips": self.ips.iter().map(address).collect::<Vec<_>>(),
            "mac": self.mac,
            "dns": {},
        });
        if let Some(mtu) = self.mtu {
            entry["mtu"] = mtu.into();
        }
        entry
    }
}

/// The interfaces of a pod with ours as they are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Joined {
    /// They are so already, or what is there is no list and not ours to change.
    AsItIs,
    /// There is nothing to say any more.
    Nothing,
    /// This.
    Text(String),
}

/// Joins ours with what others say, or with the networks that the meta-plugin has made, where it is this project's.
pub(super) fn joined(there: Option<&str>, networks: Option<&[Value]>, entries: &[Entry]) -> Joined {
    let Ok(before) = there.map_or(Ok(Vec::new()), serde_json::from_str::<Vec<Value>>) else { return Joined::AsItIs };
    let is_ours = |entry: &Value| entry["name"].as_str().is_some_and(|name| name.starts_with(NETWORK_STATUS_PREFIX));
    let ours = entries.iter().filter(|entry| !entry.mac.is_empty()).map(Entry::interface);
    let others: Vec<Value> = match networks {
        Some(made) => made.to_vec(),
        None => before.iter().filter(|entry| !is_ours(entry)).cloned().collect(),
    };
    let after: Vec<Value> = others.into_iter().chain(ours).collect();
    if after == before {
        Joined::AsItIs
    } else if after.is_empty() {
        Joined::Nothing
    } else {
        Joined::Text(Value::Array(after).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(service: &str, interface: &str) -> Entry {
        let (ips, mac) = (vec!["172.16.1.2/32".into()], "02:00:00:00:00:01".into());
        let (service, interface) = (service.into(), interface.into());
        Entry { service, interface, state: State::Up, ips, mac, mtu: Some(1500), ..Entry::default() }
    }

    #[test]
    fn networks_of_ours_are_all_that_there_is() {
        let before = r#"[{"name":"gone","interface":"net1"}]"#;
        let networks = vec![json!({"name": "cbr0", "interface": "eth0", "default": true, "dns": {}})];
        let Joined::Text(text) = joined(Some(before), Some(&networks), &[up("a", "nsm-1")]) else {
            panic!("as it was")
        };
        let list: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!((list.len(), &list[0], &list[1]["interface"]), (2, &networks[0], &json!("nsm-1")));
        assert_eq!(joined(Some(&text), Some(&networks), &[up("a", "nsm-1")]), Joined::AsItIs);
    }

    #[test]
    fn others_entries_stay() {
        let others = r#"[{"name":"cbr0","interface":"eth0","ips":["10.0.0.7"],"default":true}]"#;
        let failed = Entry::missing(Missing { service: "b".into(), interface: "nsm-2".into(), why: "no".into() });
        let text = |joined: Joined| match joined {
            Joined::Text(text) => text,
            other => panic!("{other:?}"),
        };
        let list_of = |text: &str| serde_json::from_str::<Vec<Value>>(text).unwrap();
        let both = text(joined(Some(others), None, &[up("a", "nsm-1"), failed.clone()]));
        let list = list_of(&both);
        assert_eq!(list.len(), 2, "what there is not has no interface");
        assert_eq!(list[0], list_of(others)[0]);
        let ours = json!({
            "name": "networkservicemesh.io/a", "interface": "nsm-1", "ips": ["172.16.1.2"], "mac": "02:00:00:00:00:01",
            "mtu": 1500, "dns": {},
        });
        assert_eq!(list[1], ours);
        assert_eq!(joined(Some(&both), None, &[up("a", "nsm-1")]), Joined::AsItIs);
        assert_eq!(list_of(&text(joined(Some(&both), None, &[]))), list[..1]);
        assert_eq!(joined(Some(&json!([ours]).to_string()), None, &[]), Joined::Nothing);
        assert_eq!(joined(Some("no list"), None, &[up("a", "nsm-1")]), Joined::AsItIs);
        assert_eq!(joined(None, None, &[]), Joined::AsItIs);
        let text = serde_json::to_string(&failed).unwrap();
        assert_eq!(text, r#"{"service":"b","interface":"nsm-2","state":"failed","message":"no"}"#);
    }
}
