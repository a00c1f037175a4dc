//! DELs that `nsm-cni` could not bring while the agent was away: notes in `<cniSocket>.owed/`.
//!
//! Guarantees: a note is removed when its attachment has been ended, not before, and within a second of the agent's return; an
//! ADD of the same attachment works it off first. A note that cannot be read is set aside and reported.

use std::{
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::Server;
use crate::state::{AttachmentKey, blocking};

/// Most DELs that are worked off at the same time.
const AT_ONCE: usize = 32;

/// The folder of the notes.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

/// A note in the folder.
#[derive(Debug)]
pub struct Note {
    path: PathBuf,
    key: AttachmentKey,
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
        let path = PathBuf::from(path);
        match std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let metadata = std::fs::symlink_metadata(&path)?;
        if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::other(format!("{} is not a folder of the agent's own: remove it", path.display())));
        }
        if metadata.mode() & 0o077 != 0 {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        }
        Ok(Self(path))
    }

    /// The note about this attachment.
    pub async fn find(&self, key: &AttachmentKey) -> Option<Note> {
        self.notes().await.into_iter().find(|note| note.key == *key)
    }

    async fn notes(&self) -> Vec<Note> {
        let folder = self.0.clone();
        blocking(move || read(&folder)).await
    }

    /// Works off what is there and what comes, until `stop`.
    pub async fn run(self, server: Server, stop: CancellationToken) {
        let mut changes = match self.changes() {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(path = %self.0.display(), %error, "owed DELs are not watched: each ADD and start of the agent still works them off");
                self.work_off(&server).await;
                return;
            }
        };
        loop {
            self.work_off(&server).await;
            tokio::select! {
                () = stop.cancelled() => return,
                change = changes.next() => if change.is_none() { return },
            }
        }
    }

    fn changes(&self) -> io::Result<inotify::EventStream<[u8; 1024]>> {
        let inotify = Inotify::init()?;
        inotify.watches().add(&self.0, WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE)?;
        inotify.into_event_stream([0; 1024])
    }

    async fn work_off(&self, server: &Server) {
        // Side by side: one whose ADD still runs waits for that.
        let work = |note: Note| async move {
            if let Err((key, status)) = server.del_owed(note).await {
                tracing::error!(
                    container = key.container_id,
                    ifname = key.ifname,
                    error = status.message(),
                    "owed DEL failed: the note stays"
                );
            }
        };
        futures::stream::iter(self.notes().await).for_each_concurrent(AT_ONCE, work).await;
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

fn read(folder: &Path) -> Vec<Note> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).filter_map(one).collect()
}

fn one(path: PathBuf) -> Option<Note> {
    // One that cannot be read any more was worked off meanwhile.
    let text = std::fs::read(&path).ok()?;
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
