//! DELs that `nsm-cni` could not bring while the agent was away: notes in `<cniSocket>.owed/`.
//!
//! Guarantees: a note is removed when its attachment has been ended, not before (`attach/owed.rs`). One that cannot be read is set
//! aside and reported; one of a newer format is left for the agent that knows it, and reported once.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use inotify::{Inotify, WatchMask};
use serde::Deserialize;

use crate::{
    files,
    state::{AttachmentKey, Medium, blocking},
};

/// Newest format that this version reads.
const FORMAT: u32 = 1;
/// Most notes of a newer format that are reported, each once.
const REPORTED: usize = 1000;

/// The folder of the notes. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    medium: Medium,
    /// Notes of a newer format that were reported.
    reported: Arc<Mutex<BTreeSet<PathBuf>>>,
}

/// Tells when a note has come.
pub type Changes = inotify::EventStream<[u8; 1024]>;

/// A note in the folder.
#[derive(Debug)]
pub struct Note {
    path: PathBuf,
    key: AttachmentKey,
}

/// What every format has.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    container_id: String,
    ifname: String,
}

impl Folder {
    /// Makes the folder beside the CNI socket, for root only. Blocking.
    pub fn open(cni_socket: &Path) -> io::Result<Self> {
        let mut path = cni_socket.as_os_str().to_owned();
        path.push(".owed");
        let path = files::own_folder(path.into())?;
        Ok(Self { medium: Medium::of(&path), path, reported: Arc::default() })
    }

    /// The note about this attachment, by its name: how many others there are does not matter. Blocking.
    pub fn find(&self, key: &AttachmentKey) -> Option<Note> {
        let name = nsm_cni_types::owed::file_name(&key.container_id, &key.ifname);
        self.one(self.path.join(name)).filter(|note| note.key == *key)
    }

    /// The same, for whoever must not block.
    pub async fn of(&self, key: &AttachmentKey) -> Option<Note> {
        let (folder, key) = (self.clone(), key.clone());
        self.medium.work(move || folder.find(&key)).await
    }

    /// All that can be read.
    pub async fn notes(&self) -> Vec<Note> {
        let folder = self.clone();
        blocking(move || folder.read()).await
    }

    /// Hears of notes from now on. Blocking, but for nobody.
    pub fn watch(&self) -> io::Result<Changes> {
        let inotify = Inotify::init()?;
        inotify.watches().add(&self.path, WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE)?;
        inotify.into_event_stream([0; 1024])
    }

    fn read(&self) -> Vec<Note> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let notes = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        notes.filter_map(|path| self.one(path)).collect()
    }

    fn one(&self, path: PathBuf) -> Option<Note> {
        // One that cannot be read any more was worked off meanwhile.
        let text = std::fs::read(&path).ok()?;
        match serde_json::from_slice::<Head>(&text) {
            Ok(Head { format }) if format > FORMAT => {
                self.report_newer(&path, format);
                return None;
            }
            Ok(_) | Err(_) => {}
        }
        match serde_json::from_slice::<Written>(&text) {
            Ok(written) => {
                Some(Note { path, key: AttachmentKey { container_id: written.container_id, ifname: written.ifname } })
            }
            Err(error) => {
                let aside = path.with_extension("damaged");
                let _ = std::fs::rename(&path, &aside);
                tracing::error!(path = %aside.display(), %error, "a note about an owed DEL cannot be read: set aside, GC finds its attachment");
                None
            }
        }
    }

    fn report_newer(&self, path: &Path, format: u32) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < REPORTED && reported.insert(path.to_owned()) {
            tracing::error!(
                path = %path.display(),
                "a note about an owed DEL has format {format}, this agent knows up to {FORMAT}: left alone, for an agent of the plugin's version"
            );
        }
    }
}

impl Note {
    /// Which attachment is to end.
    pub fn key(&self) -> &AttachmentKey {
        &self.key
    }

    /// Whether it is still owed: an ADD works it off too.
    pub fn is_owed(&self) -> bool {
        self.path.exists()
    }

    /// The DEL is done.
    pub async fn settle(self) {
        blocking(move || match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(path = %self.path.display(), %error, "a note about an owed DEL that is done stays");
            }
            _ => {}
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_left_alone_and_nonsense_is_set_aside() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(&dir.path().join("cni.sock")).unwrap();
        let note = |name: &str, text: &str| std::fs::write(folder.path.join(name), text).unwrap();
        note("one.json", r#"{"format": 1, "containerId": "c", "ifname": "eth0", "network": "n"}"#);
        note("newer.json", r#"{"format": 2, "containerId": "c", "ifname": "eth0"}"#);
        note("strange.json", r#"{"format": 2, "attachment": 7}"#);
        note("damaged.json", "{");
        let keys: Vec<String> = folder.read().iter().map(|note| note.key.to_string()).collect();
        assert_eq!(keys, ["c/eth0"]);
        for left in ["one.json", "newer.json", "strange.json", "damaged.damaged"] {
            assert!(folder.path.join(left).exists(), "{left}");
        }
        assert_eq!(folder.reported.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_note_is_found_by_its_name() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(&dir.path().join("cni.sock")).unwrap();
        let key = |ifname: &str| AttachmentKey { container_id: "c".repeat(300), ifname: ifname.into() };
        for ifname in ["eth0", "net/1"] {
            let name = nsm_cni_types::owed::file_name(&key(ifname).container_id, ifname);
            let text = serde_json::json!({"format": 1, "containerId": key(ifname).container_id, "ifname": ifname});
            std::fs::write(folder.path.join(name), text.to_string()).unwrap();
        }
        std::fs::write(folder.path.join("other.json"), "{").unwrap();
        assert_eq!(folder.find(&key("net/1")).unwrap().key, key("net/1"));
        assert!(folder.find(&key("eth1")).is_none());
        assert!(folder.path.join("other.json").exists(), "nobody has looked at the others");
    }
}
