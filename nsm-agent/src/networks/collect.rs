//! What is left of networks of pods that ended without DEL is freed by the host's plugin, where the runtime never asks for GC.
//!
//! Guarantees: how the plugin was called last is known after a reboot too, so that what was there before it is freed at start, whoever
//! starts a pod since. The plugin itself knows which sandboxes have gone for certain, and leaves alone whose lock somebody holds: no ADD is
//! raced. The command is ours alone ([`super::running`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nsm_cni_types::{Command, Stdin, code, pods::MetaCall};
use nsm_npwg::Meta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    files,
    host::{self, Door},
    sandboxes::{Sandbox, Sandboxes},
    state::blocking,
};

/// Pause between two looks for what is left.
const PAUSE: Duration = Duration::from_mins(10);
/// Longest that one takes.
const LONGEST: Duration = Duration::from_mins(1);
/// Where calls are kept, below `--state-dir`.
const FOLDER: &str = "meta-plugin";

/// Has it freed, until the end.
pub(super) struct Collector {
    sandboxes: Sandboxes,
    door: Door,
    folder: Arc<Path>,
}

/// How the plugin was called last, by `cniDir`, where its records are.
type Calls = BTreeMap<PathBuf, MetaCall>;

/// The same as a file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    cni_dir: PathBuf,
    call: MetaCall,
}

impl Collector {
    pub(super) fn new(sandboxes: Sandboxes, door: Door, state_dir: &Path) -> Self {
        Self { sandboxes, door, folder: state_dir.join(FOLDER).into() }
    }

    pub(super) async fn run(self) {
        let mut changes = self.sandboxes.changes();
        let mut tick = tokio::time::interval(PAUSE);
        let folder = self.folder.clone();
        let mut calls = blocking(move || read(&folder)).await;
        loop {
            self.follow(&mut calls).await;
            tokio::select! {
                moved = changes.changed() => if moved.is_err() { return },
                _ = tick.tick() => {
                    let mut others = BTreeSet::new();
                    for (cni_dir, call) in &calls {
                        if !self.collect(call).await {
                            others.insert(cni_dir.clone());
                        }
                    }
                    self.forget(&mut calls, others).await;
                }
            }
        }
    }

    /// Keeps how it was called last.
    async fn follow(&self, calls: &mut Calls) {
        let (sandboxes, folder, before) = (self.sandboxes.clone(), self.folder.clone(), calls.clone());
        let work = move || {
            let mut now = newest(sandboxes.all().unwrap_or_default());
            now.retain(|cni_dir, call| before.get(cni_dir) != Some(call));
            for (cni_dir, call) in &now {
                if let Err(error) = write(&folder, cni_dir, call) {
                    tracing::warn!(
                        path = %folder.display(),
                        %error,
                        "after a reboot it is not known how to free what is left of networks before the next pod starts"
                    );
                }
            }
            now
        };
        calls.extend(blocking(work).await);
    }

    /// Forgets folders whose plugin is another meta-plugin by now, or gone, unless a sandbox is there that it made.
    async fn forget(&self, calls: &mut Calls, others: BTreeSet<PathBuf>) {
        if others.is_empty() {
            return;
        }
        let (sandboxes, folder) = (self.sandboxes.clone(), self.folder.clone());
        let work = move || -> Vec<PathBuf> {
            let Ok(all) = sandboxes.all() else { return Vec::new() };
            let now = newest(all);
            let of_nobody = others.into_iter().filter(|cni_dir| !now.contains_key(cni_dir));
            of_nobody.filter(|cni_dir| remove(&folder, cni_dir).is_ok()).collect()
        };
        for cni_dir in blocking(work).await {
            tracing::info!(cni_dir = %cni_dir.display(), "the meta-plugin there is none of ours any more: what it leaves is its own");
            calls.remove(&cni_dir);
        }
    }

    /// Whether the plugin is ours still.
    async fn collect(&self, call: &MetaCall) -> bool {
        if self.door.is_shut() {
            return true;
        }
        let Ok(mut stdin) = serde_json::from_str::<Value>(&call.configuration) else { return true };
        // Since when there is GC.
        stdin["cniVersion"] = "1.1.0".into();
        let environment = vec![("CNI_COMMAND", "NSM_COLLECT".to_owned()), ("CNI_PATH", call.cni_path.clone())];
        let call = host::Call { plugin: call.plugin.clone(), environment, stdin: stdin.to_string() };
        let collected = async { self.door.enter("").await?.call(call, LONGEST).await };
        let Err(error) = collected.await else { return true };
        let is_ours = match &error {
            host::Error::Missing(_) => false,
            // As plugins answer commands that they do not know.
            host::Error::Refused { code, message } => {
                *code != u64::from(code::INVALID_ENVIRONMENT) || !message.contains("CNI_COMMAND")
            }
            host::Error::NotCalled(_) | host::Error::Full | host::Error::Late => true,
        };
        tracing::warn!(%error, "what is left of networks of pods that ended without DEL cannot be freed yet");
        is_ours
    }
}

/// The newest call of each `cniDir`.
fn newest(mut all: Vec<Arc<Sandbox>>) -> Calls {
    all.sort_by_key(|sandbox| sandbox.since);
    // Nearly all have the same configuration.
    let calls: HashMap<&str, &MetaCall> =
        all.iter().filter_map(|one| one.record.meta.as_ref()).map(|call| (call.configuration.as_str(), call)).collect();
    let mut by_folder = BTreeMap::new();
    for call in all.iter().filter_map(|one| one.record.meta.as_ref()) {
        if calls.get(call.configuration.as_str()).is_some_and(|newest| std::ptr::eq(*newest, call))
            && let Ok(stdin) = Stdin::parse(call.configuration.as_bytes(), &Command::Del)
        {
            by_folder.insert(Meta::lenient(&stdin).0.cni_dir, call.clone());
        }
    }
    by_folder
}

/// What was kept. Blocking.
fn read(folder: &Path) -> Calls {
    let paths = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let kept = paths.filter(|path| path.extension().is_some_and(|end| end == "json")).filter_map(|path| {
        let read = std::fs::read(&path).and_then(|text| Ok(serde_json::from_slice::<Kept>(&text)?));
        let read = read.inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "how the meta-plugin was called cannot be read: the next pod that starts says it");
        });
        read.ok().map(|kept| (kept.cni_dir, kept.call))
    });
    kept.collect()
}

/// Keeps one. Blocking.
fn write(folder: &Path, cni_dir: &Path, call: &MetaCall) -> io::Result<()> {
    files::own_folder(folder.to_owned())?;
    let kept = serde_json::to_vec(&Kept { cni_dir: cni_dir.to_owned(), call: call.clone() })?;
    files::replace_durably(folder, &file_name(cni_dir), 0o600, &mut kept.as_slice())
}

/// Keeps one no more. Blocking.
fn remove(folder: &Path, cni_dir: &Path) -> io::Result<()> {
    std::fs::remove_file(folder.join(file_name(cni_dir)))
}

fn file_name(cni_dir: &Path) -> String {
    let name = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, cni_dir.as_os_str().as_encoded_bytes());
    format!("{}.json", name.simple())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use nsm_cni_types::{Attachment, pods::PodRecord};
    use nsm_netlink::NetnsId;

    use super::*;

    #[test]
    fn the_newest_call_of_each_folder_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = |seconds: u64, cni_dir: &str, plugin: &str| {
            let key = Attachment { container_id: "c".into(), ifname: "eth0".into() };
            let mut record = PodRecord::new(key, "n".into(), "/run/netns/x".into());
            let configuration = format!(
                r#"{{"cniVersion": "1.0.0", "name": "n", "type": "nsm-cni", "clusterNetwork": "/a", "cniDir": "{cni_dir}"}}"#
            );
            record.meta = Some(MetaCall { configuration, plugin: plugin.into(), ..MetaCall::default() });
            let since = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            Arc::new(Sandbox { netns: NetnsId { dev: 4, ino: seconds }, record, since })
        };
        let all = vec![sandbox(3, "/one", "/new"), sandbox(2, "/two", "/x"), sandbox(1, "/one", "/old")];
        let calls = newest(all);
        let plugins: Vec<(&Path, &Path)> =
            calls.iter().map(|(folder, call)| (folder.as_path(), call.plugin.as_path())).collect();
        let [one, two] = ["/one", "/two"].map(Path::new);
        assert_eq!(plugins, [(one, Path::new("/new")), (two, Path::new("/x"))]);
        for (cni_dir, call) in &calls {
            write(dir.path(), cni_dir, call).unwrap();
            write(dir.path(), cni_dir, call).unwrap();
        }
        std::fs::write(dir.path().join("damaged.json"), "{").unwrap();
        assert_eq!(read(dir.path()), calls);
        assert_eq!(read(&dir.path().join("none")), Calls::new());
        remove(dir.path(), one).unwrap();
        assert!(read(dir.path()).keys().eq([two]));
    }
}
