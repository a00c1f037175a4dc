//! Records of sandboxes on the host: `<cniSocket>.pods/DEV-INO`, by the network namespace.
//!
//! Guarantees: whether the agent has something to end is told from the record and its mark alone; of a record that was taken away
//! the mark tells what the agent did before, and it does nothing after. A record is only believed by the sandbox it is about.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nsm_cni_types::{
    Environment,
    pods::{self, PodRecord},
};

use crate::{files, netns::Netns};

/// A record that was found.
pub(crate) struct Found {
    folder: PathBuf,
    netns: (u64, u64),
    record: PodRecord,
}

/// Leaves the record of a sandbox, in place of what an earlier one with the same numbers left.
pub(crate) fn put(socket: &Path, netns: &Netns, record: &PodRecord) {
    let _ = fs::remove_file(pods::folder(socket).join(pods::mark_name(netns.id.dev, netns.id.ino)));
    put_again(socket, netns, record);
}

/// Changes the record. The agent may have marked it meanwhile.
pub(crate) fn put_again(socket: &Path, netns: &Netns, record: &PodRecord) {
    let folder = pods::folder(socket);
    let (dev, ino) = (netns.id.dev, netns.id.ino);
    if let Err(error) = files::put(&folder, &pods::file_name(dev, ino), record.to_json()) {
        eprintln!(
            "nsm-cni: no record of the sandbox in {}: {error}; network services cannot be added to the running pod",
            folder.display()
        );
    }
}

/// Finds the record of a sandbox: by its namespace, or, where that is gone, among all.
pub(crate) fn find(socket: &Path, env: &Environment) -> Option<Found> {
    let folder = pods::folder(socket);
    let at = |netns: (u64, u64)| {
        let text = fs::read(folder.join(pods::file_name(netns.0, netns.1))).ok()?;
        let record = PodRecord::parse(&text).ok().filter(|record| record.is_of(&env.container_id, &env.ifname))?;
        Some(Found { folder: folder.clone(), netns, record })
    };
    let here = Netns::open(env).ok().and_then(|netns| at((netns.id.dev, netns.id.ino)));
    here.or_else(|| {
        let names = fs::read_dir(&folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| pods::of_file_name(&name)).find_map(at)
    })
}

impl Found {
    /// Whether the agent has, or may have, something to end.
    pub(crate) fn is_asked(&self) -> bool {
        self.record.asked || self.mark().exists()
    }

    /// Whether the meta-plugin wrote it.
    pub(crate) fn is_of_meta(&self) -> bool {
        self.record.meta.is_some()
    }

    /// Takes the record away. Whether the agent has something to end by now: it gives nothing to a sandbox without a record.
    pub(crate) fn take(&self) -> io::Result<bool> {
        match fs::remove_file(self.folder.join(self.name())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let marked = fs::remove_file(self.mark()).is_ok();
        Ok(self.record.asked || marked)
    }

    /// Puts the record back: the end has still to come.
    pub(crate) fn put_back(&mut self) -> io::Result<()> {
        self.record.asked = true;
        files::put(&self.folder, &self.name(), self.record.to_json())
    }

    fn name(&self) -> String {
        pods::file_name(self.netns.0, self.netns.1)
    }

    fn mark(&self) -> PathBuf {
        self.folder.join(pods::mark_name(self.netns.0, self.netns.1))
    }
}
