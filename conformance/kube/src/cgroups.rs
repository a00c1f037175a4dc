//! The control groups of the machines of a lab: the only thing of them that a kernel does not end by itself.
//!
//! Guarantee: they are below one group, named after the process that started the lab; [`sweep`] removes it, and those of labs
//! that are gone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

const MOUNT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "nsm-lab-";

/// The group of the lab that process `owner` started.
pub(crate) fn group(owner: &str) -> String {
    format!("{PREFIX}{owner}")
}

/// Makes `group/name` in every hierarchy that a kubelet uses.
pub(crate) fn create(group: &str, name: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(group);
        for dir in [group.clone(), group.join(name)] {
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            // Of version 1: a group has no processors and no memory until it is told.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = dir.parent().unwrap_or(&hierarchy).join(file);
                if let (true, Ok(text)) = (hierarchy.ends_with("cpuset"), fs::read_to_string(above)) {
                    fs::write(dir.join(file), text).with_context(|| dir.display().to_string())?;
                }
            }
        }
    }
    Ok(())
}

/// Removes the groups of labs whose process does not run, and of `owner`.
pub(crate) fn sweep(owner: &str) {
    for hierarchy in hierarchies() {
        for entry in fs::read_dir(&hierarchy).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(of) = name.strip_prefix(PREFIX) else { continue };
            if of == owner || !Path::new("/proc").join(of).exists() {
                remove(&entry.path());
            }
        }
    }
}

/// Version 1 has one per controller; of version 2 there is one.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(MOUNT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// From the leaves up. One that is in use stays.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    fs::remove_dir(group).ok();
}
