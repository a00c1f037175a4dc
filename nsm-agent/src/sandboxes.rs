//! The pods of this node whose network namespaces `nsm-cni` has seen, asking or not: records in `<cniSocket>.pods/`.
//!
//! Guarantees: a record counts only while its namespace lives, as inode numbers are reused; whatever is in the
//! folder, the rest is found. A record that is gone is not made again by marking it; one that was written anew is not removed
//! for what it was. A namespace that this process cannot see is not gone. Reading is blocking, a few small files in memory.

mod namespaces;

use std::{
    collections::HashMap,
    io,
    os::unix::fs::DirEntryExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use nsm_cni_types::pods::{self as records, PodRecord};
use nsm_fdpass::InodeId;
use nsm_netlink::NetnsId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use namespaces::Namespaces;

use crate::{
    files,
    netns::Place,
    pods,
    processes::PodUid,
    registry::Pods,
    state::{Attachment, AttachmentKey, Medium, Pod, Records, blocking},
};

/// Records by their files' names, each with its file's number.
type Read = HashMap<String, (u64, Arc<Sandbox>)>;

/// The folder of the records. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    path: Arc<Path>,
    medium: Medium,
    /// What was read, by the files' names and numbers: a changed record is another file.
    read: Arc<Mutex<Read>>,
    changes: watch::Sender<u64>,
}

/// A pod's sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Its network namespace.
    pub netns: NetnsId,
    /// What its ADD knew.
    pub record: PodRecord,
    /// When that was written.
    pub since: SystemTime,
}

impl Sandbox {
    /// Whose it is.
    pub fn pod(&self) -> Pod {
        let PodRecord { pod_name, pod_namespace, pod_uid, .. } = &self.record;
        Pod { name: pod_name.clone(), namespace: pod_namespace.clone(), uid: pod_uid.clone() }
    }

    /// The CNI call that made it.
    pub fn call(&self) -> AttachmentKey {
        let PodRecord { container_id, ifname, .. } = &self.record;
        AttachmentKey { container_id: container_id.clone(), ifname: ifname.clone() }
    }

    /// Whether the namespace lives, as far as can be seen. Blocking.
    fn stands(&self) -> bool {
        Place::stands(&self.record.netns, self.netns)
    }

    /// Whether the namespace has certainly ended. Blocking.
    pub fn is_gone(&self) -> bool {
        match Place::of(&self.record.netns, self.netns) {
            Place::Gone => true,
            Place::At(_) | Place::Unseen(_) => false,
        }
    }
}

impl Sandboxes {
    /// Makes the folder beside the CNI socket, for root only. Blocking.
    pub fn open(cni_socket: &Path) -> io::Result<Self> {
        let path = files::own_folder(records::folder(cni_socket))?;
        let medium = Medium::of(&path);
        Ok(Self { path: path.into(), medium, read: Arc::default(), changes: watch::Sender::new(0) })
    }

    /// The pod that has this network namespace. Blocking.
    pub fn by_netns(&self, netns: NetnsId) -> Option<Sandbox> {
        Some(read(&self.path.join(records::file_name(netns.dev, netns.ino)), netns)?).filter(Sandbox::stands)
    }

    /// The newest sandbox of a pod. Blocking.
    pub fn newest(&self, is_pod: impl Fn(&Pod) -> bool) -> Option<Arc<Sandbox>> {
        let mut of_pod = self.all().unwrap_or_default();
        of_pod.retain(|sandbox| is_pod(&sandbox.pod()) && sandbox.stands());
        of_pod.into_iter().max_by_key(|sandbox| sandbox.since)
    }

    /// All that are recorded. Blocking.
    ///
    /// # Errors
    /// The folder cannot be read, which says nothing of what is in it.
    pub fn all(&self) -> io::Result<Vec<Arc<Sandbox>>> {
        let entries = std::fs::read_dir(&self.path)?;
        let mut before = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = HashMap::new();
        for entry in entries.filter_map(Result::ok) {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some((dev, ino)) = records::of_file_name(&name) else { continue };
            let known = before.remove(&name).filter(|(number, _)| *number == entry.ino());
            let sandbox = known.map(|(_, sandbox)| sandbox);
            let sandbox = sandbox.or_else(|| read(&entry.path(), NetnsId { dev, ino }).map(Arc::new));
            if let Some(sandbox) = sandbox {
                now.insert(name, (entry.ino(), sandbox));
            }
        }
        *before = now;
        Ok(before.values().map(|(_, sandbox)| sandbox.clone()).collect())
    }

    /// How long ago a sandbox was recorded; none where it is not any more. Blocking.
    pub fn age(&self, sandbox: &Sandbox) -> Option<Duration> {
        let path = self.path.join(records::file_name(sandbox.netns.dev, sandbox.netns.ino));
        let written = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
        // A clock that was put back makes it new.
        Some(written.elapsed().unwrap_or_default())
    }

    /// A number that moves when a record has come or gone.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Leaves word that the agent has something to end with this sandbox; false: it is not recorded.
    pub async fn mark(&self, netns: NetnsId) -> io::Result<bool> {
        let sandboxes = self.clone();
        self.medium.work(move || sandboxes.mark_blocking(netns)).await
    }

    /// The same. Blocking.
    pub fn mark_blocking(&self, netns: NetnsId) -> io::Result<bool> {
        let record = self.path.join(records::file_name(netns.dev, netns.ino));
        // A link to a record that the pod's DEL has taken cannot be made: either the DEL sees it, or there is none.
        match std::fs::hard_link(record, self.path.join(records::mark_name(netns.dev, netns.ino))) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells of changes, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = match self.watched() {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the records of sandboxes are not watched: a running pod gets its network services when its annotation is edited the next time");
                return;
            }
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                change = changes.next() => if change.is_none() { return },
            }
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn watched(&self) -> io::Result<inotify::EventStream<[u8; 1024]>> {
        let inotify = Inotify::init()?;
        inotify.watches().add(&*self.path, WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE)?;
        inotify.into_event_stream([0; 1024])
    }

    /// Removes the record of a sandbox, and the agent's mark beside it; none where it has been written anew meanwhile. Blocking.
    pub fn remove(&self, sandbox: &Sandbox) -> Option<io::Result<()>> {
        let NetnsId { dev, ino } = sandbox.netns;
        let path = self.path.join(records::file_name(dev, ino));
        let same = |written: SystemTime| written == sandbox.since;
        if !std::fs::metadata(&path).and_then(|now| now.modified()).is_ok_and(same) {
            return None;
        }
        let _ = std::fs::remove_file(self.path.join(records::mark_name(dev, ino)));
        Some(std::fs::remove_file(path))
    }
}

/// Who has a network namespace: its sandbox's record says it, or an attachment's where the plugin could leave none. Both count only while
/// their path names that namespace, as the kernel gives its number to another pod's.
#[derive(Clone)]
pub struct Known {
    /// What the plugin asked for.
    pub attachments: Records<Attachment>,
    /// The pods whose namespaces it has seen.
    pub sandboxes: Sandboxes,
    /// The pods that the API server has for this node, where there is one.
    pub watched: Option<Arc<pods::Pods>>,
}

impl Known {
    /// Blocking.
    fn look(&self, netns: NetnsId) -> Option<Pod> {
        let is_named = |pod: &Pod| !pod.name.is_empty() && !pod.namespace.is_empty();
        let recorded = self.sandboxes.by_netns(netns).map(|sandbox| sandbox.pod());
        recorded.filter(is_named).or_else(|| {
            let of_pod = |record: &Attachment| record.netns == netns && record.pod.as_ref().is_some_and(is_named);
            let mut made = self.attachments.select(of_pod).into_iter();
            made.find(|record| Place::stands(&record.netns_path, netns)).and_then(|record| record.pod.clone())
        })
    }
}

#[async_trait]
impl Pods for Known {
    async fn pod_of(&self, netns: InodeId) -> Option<Pod> {
        let (known, netns) = (self.clone(), NetnsId { dev: netns.dev, ino: netns.ino });
        blocking(move || known.look(netns)).await
    }

    async fn pod_with(&self, uid: PodUid) -> Option<Pod> {
        self.watched.as_ref()?.with_uid(uid).await
    }
}

/// One record; none where it is gone, or none that this version reads.
fn read(path: &Path, netns: NetnsId) -> Option<Sandbox> {
    let since = std::fs::metadata(path).ok()?.modified().ok()?;
    let record = PodRecord::parse(&std::fs::read(path).ok()?).ok()?;
    Some(Sandbox { netns, record, since })
}

#[cfg(test)]
mod tests;
