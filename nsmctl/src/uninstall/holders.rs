//! Which pods hold connections, by the agent's records: it need not run.
//!
//! Guarantee: "nobody" is said only of a folder that was read to its end. A record that this version does not read counts as held.

use std::{fmt, fs, io, path::Path};

use serde::Deserialize;

use crate::error::Error;

/// Newest format of the agent's records that this version reads.
const FORMAT: u32 = 1;
/// Their folder in the run directory.
const FOLDER: &str = "attachments";
/// Tells one boot from the next (proc(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A connection of a pod.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// Of whom, under which name there, of which network service.
    Known { whose: String, interface: String, service: String },
    /// The record, and why it does not say.
    Unknown { record: String, why: String },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known { whose, interface, service } => {
                write!(f, "{whose} holds interface {interface} of network service {service}")
            }
            Self::Unknown { record, why } => {
                write!(f, "a pod that is not known holds the connection of {record}: {why}")
            }
        }
    }
}

/// What every format has.
#[derive(Deserialize)]
struct Header {
    format: u32,
    boot_id: String,
}

/// The agent's record of an attachment, as much as is told.
#[derive(Deserialize)]
struct Envelope {
    record: Record,
}

#[derive(Deserialize)]
struct Record {
    key: Key,
    interface: String,
    network_service: String,
    pod: Option<Pod>,
}

#[derive(Deserialize)]
struct Key {
    container_id: String,
}

#[derive(Deserialize)]
struct Pod {
    name: String,
    namespace: String,
}

/// Those of this boot: what an earlier one had ended with it.
pub(super) fn read(run_dir: &Path) -> Result<Vec<Holder>, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Error::Read { path, error }
    };
    let boot = fs::read_to_string(BOOT_ID).map_err(failed(Path::new(BOOT_ID)))?;
    let folder = run_dir.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(&folder)(error)),
    };
    let mut holders = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(&folder))?.path();
        if path.extension().is_some_and(|it| it == "json") {
            let text = nsm_cni_dir::read(&path).map_err(failed(&path))?;
            holders.extend(holder(&path, &text, boot.trim()));
        }
    }
    holders.sort();
    Ok(holders)
}

fn holder(path: &Path, text: &[u8], boot: &str) -> Option<Holder> {
    let unknown = |why: String| Some(Holder::Unknown { record: path.display().to_string(), why });
    let header: Header = match serde_json::from_slice(text) {
        Ok(header) => header,
        Err(error) => return unknown(error.to_string()),
    };
    if header.boot_id != boot {
        return None;
    }
    if header.format > FORMAT {
        let found = header.format;
        return unknown(format!(
            "format {found}, this nsmctl knows up to {FORMAT}: use the nsmctl of the agent's image"
        ));
    }
    match serde_json::from_slice(text) {
        Ok(Envelope { record: Record { key, interface, network_service, pod } }) => {
            let whose = match pod {
                Some(pod) => format!("pod {}/{}", pod.namespace, pod.name),
                None => format!("container {}", key.container_id),
            };
            Some(Holder::Known { whose, interface, service: network_service })
        }
        Err(error) => unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nsm_agent::state::{self, Attachment, AttachmentKey, Records, RoutePolicy, Source};

    use super::*;

    fn attachment(container: &str, pod: Option<state::Pod>) -> Attachment {
        Attachment {
            key: AttachmentKey { container_id: container.into(), ifname: "nsm-1".into() },
            interface: "nsm-1".parse().unwrap(),
            source: Source::Annotation { ifname: "eth0".into() },
            network: "cbr0".into(),
            netns_path: "/run/netns/x".into(),
            netns: nsm_netlink::NetnsId { dev: 4, ino: 5 },
            network_service: "secure".into(),
            labels: BTreeMap::new(),
            pod,
            mac: "02:00:00:00:00:01".parse().unwrap(),
            ips: Vec::new(),
            mtu: None,
            routes: RoutePolicy { default_route: false, overlap: false },
            client_id: "c".into(),
        }
    }

    #[test]
    fn what_the_agent_writes_is_read() {
        assert_eq!(FORMAT, state::FORMAT);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
        let boot = fs::read_to_string(BOOT_ID).unwrap();
        let records = |boot: &str| Records::<Attachment>::open(dir.path(), boot).unwrap().0;
        let pod = state::Pod { name: "web-0".into(), namespace: "shop".into(), uid: "u".into() };
        let now = records(boot.trim());
        now.put_blocking(attachment("b", None)).unwrap();
        now.put_blocking(attachment("a", Some(pod))).unwrap();
        let shown: Vec<String> = read(dir.path()).unwrap().iter().map(ToString::to_string).collect();
        let of = |whose: &str| format!("{whose} holds interface nsm-1 of network service secure");
        assert_eq!(shown, [of("container b"), of("pod shop/web-0")]);
        records("an earlier boot").put_blocking(attachment("old", None)).unwrap();
        let left = read(dir.path()).unwrap();
        assert_eq!(left, [], "the earlier boot's opening removed ours, and its own do not count");
    }

    #[test]
    fn what_is_not_understood_counts_and_what_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(FOLDER);
        fs::create_dir(&folder).unwrap();
        let boot = fs::read_to_string(BOOT_ID).unwrap();
        let newer = serde_json::json!({"format": FORMAT + 1, "boot_id": boot.trim(), "holds": "else"});
        fs::write(folder.join("a.json"), newer.to_string()).unwrap();
        fs::write(folder.join("b.json"), "{").unwrap();
        fs::write(folder.join("c.new"), "{").unwrap();
        let shown: Vec<String> = read(dir.path()).unwrap().iter().map(ToString::to_string).collect();
        assert!(matches!(shown.as_slice(), [a, b] if a.contains("format 2") && b.contains("b.json")), "{shown:?}");
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "no folder").unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains(FOLDER));
    }
}
