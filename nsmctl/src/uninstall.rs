//! `nsmctl uninstall`: puts a node back as it was before the agent was installed. Works on the node's files alone.
//!
//! Guarantees: nothing is touched while an agent runs, as it would install again; the last configuration of a node stays; the plugin
//! stays while something names it, looked at again once ours has gone; nothing of others is removed. A configuration goes before its
//! plugin: only a runtime that has not yet read of that fails a pod's start, which is tried again. Done twice, the second time does
//! nothing.

mod holders;
mod references;

pub(crate) use references::configurations;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use nsm_cni_types::chained;

use crate::{
    agent::{Agent, Unreachable},
    cli,
    error::Error,
};

/// Something that is removed, or stays for a reason.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A file.
    File(PathBuf),
    /// A directory with all that is in it.
    Tree(PathBuf),
    /// A directory, if nothing of others is in it.
    Folder(PathBuf),
    /// What stays, and why.
    Keep(PathBuf, String),
}

/// Removes what the agent has installed and left.
pub(crate) async fn run(agent: &Agent, args: &cli::Uninstall, out: &mut impl Write) -> Result<(), Error> {
    ended(agent).await?;
    let holders = holders::read(&args.paths.run_dir)?;
    for holder in &holders {
        writeln!(out, "{holder}")?;
    }
    if !holders.is_empty() && !args.yes && !args.dry_run {
        return Err(Error::Refused(format!(
            "{} connections of pods are on this node: they work until their pods end, nobody heals them from now on, and endpoints \
             forget them when they expire; --yes goes on",
            holders.len()
        )));
    }
    let mut done = 0;
    for step in configuration(args)? {
        done += usize::from(step.take(args.dry_run, out)?);
    }
    for step in [plugin(args)?].into_iter().chain(rest(agent, args)) {
        done += usize::from(step.take(args.dry_run, out)?);
    }
    if done == 0 {
        writeln!(out, "nothing to remove")?;
    }
    if args.stay {
        stay().await?;
    }
    Ok(())
}

/// Refuses while an agent runs.
async fn ended(agent: &Agent) -> Result<(), Error> {
    match agent.connect().await {
        Err(Unreachable::NoSocket(_) | Unreachable::Refused(_)) => Ok(()),
        Err(other) => Err(other.into()),
        Ok(_) => Err(Error::Refused(format!(
            "an agent runs at {} and would install again: end it first (kubectl -n nsm-system delete daemonset nsm-agent, or \
             systemctl disable --now nsm-agent)",
            agent.socket.display()
        ))),
    }
}

/// The derived configuration, if the runtime has another one.
fn configuration(args: &cli::Uninstall) -> Result<Vec<Step>, Error> {
    let files = configurations(&args.paths.cni_conf_dir)?;
    let (ours, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| chained::is_ours(&file.name));
    if !ours.is_empty() {
        original(&others).map_err(|why| {
            Error::Refused(format!(
                "{}: {} stays, and so does everything else: {why}",
                args.paths.cni_conf_dir.display(),
                ours[0].name
            ))
        })?;
    }
    Ok(ours.iter().map(|file| Step::File(args.paths.cni_conf_dir.join(&file.name))).collect())
}

/// The plugin, by what is in the directory once ours has gone.
fn plugin(args: &cli::Uninstall) -> Result<Step, Error> {
    let mut left = configurations(&args.paths.cni_conf_dir)?;
    // It stands for what it would remove; afterwards one of ours is there again.
    left.retain(|file| !(args.dry_run && chained::is_ours(&file.name)));
    let plugin = args.cni_plugin_dir.join(chained::TYPE);
    Ok(match references::of_plugin(&left, args) {
        Some(why) if plugin.exists() => Step::Keep(plugin, why),
        Some(_) | None => Step::File(plugin),
    })
}

/// What the agent has left, in order.
fn rest(agent: &Agent, args: &cli::Uninstall) -> Vec<Step> {
    let beside = ["owed", "lost", "pods", "namespaces"].map(|name| {
        let mut path = agent.socket.clone().into_os_string();
        path.push(format!(".{name}"));
        Step::Tree(path.into())
    });
    let mut steps = Vec::from(beside);
    steps.extend([Step::File(agent.socket.clone()), Step::Tree(args.paths.run_dir.clone())]);
    steps.extend([Step::File(args.paths.nsm_socket.clone()), Step::Tree(args.paths.state_dir.clone())]);
    for socket in [&agent.socket, &args.paths.nsm_socket] {
        steps.extend(socket.parent().map(|folder| Step::Folder(folder.to_owned())));
    }
    steps
}

/// Whether the runtime has a network when ours has gone.
fn original(others: &[chained::File]) -> Result<(), String> {
    let first = others
        .iter()
        .min_by(|a, b| a.name.cmp(&b.name))
        .ok_or("it is the node's last CNI configuration: put the network's own back first")?;
    chained::usable(first).map_err(|why| format!("{} is the next, and cannot be used: {why}", first.name))?;
    if chained::mentions_derived(first) {
        return Err(format!("{} takes it for its main network: give that another one first", first.name));
    }
    Ok(())
}

impl Step {
    /// Whether there was something to do.
    fn take(&self, dry_run: bool, out: &mut impl Write) -> Result<bool, Error> {
        let path = match self {
            Self::Keep(path, why) => {
                writeln!(out, "kept {}: {why}", path.display())?;
                return Ok(false);
            }
            Self::File(path) | Self::Tree(path) | Self::Folder(path) => path,
        };
        if fs::symlink_metadata(path).is_err() {
            return Ok(false);
        }
        if dry_run {
            writeln!(out, "would remove {}", path.display())?;
            return Ok(true);
        }
        let removed = match self {
            Self::File(path) => fs::remove_file(path).map(|()| true),
            Self::Tree(path) => empty(path).and_then(|()| rmdir(path)),
            Self::Folder(path) => rmdir(path),
            Self::Keep(..) => Ok(false),
        };
        match removed {
            Ok(true) => writeln!(out, "removed {}", path.display())?,
            Ok(false) => return Ok(false),
            Err(error) => return Err(Error::Refused(format!("cannot remove {}: {error}", path.display()))),
        }
        Ok(true)
    }
}

/// Removes all that is in a directory.
fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }?;
    }
    Ok(())
}

/// Whether the directory went: one that has something of others, or is a mount of a container's, stays.
fn rmdir(dir: &Path) -> io::Result<bool> {
    use io::ErrorKind::{DirectoryNotEmpty, ReadOnlyFilesystem, ResourceBusy};
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        // A mount is busy; where the container's root is read-only, the kernel says that first.
        Err(error) if [DirectoryNotEmpty, ResourceBusy, ReadOnlyFilesystem].contains(&error.kind()) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Until somebody ends us.
async fn stay() -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
