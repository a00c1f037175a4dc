//! What the runtime finds on this node, and whether the sockets are one agent's.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nsm_cni_types::chained::{self, Entry, File, Reason};
use nsm_proto::admin::{Finding, InfoResponse, finding::Level};
use serde_json::Value;

use super::{bad, finding, good};
use crate::{cli, uninstall::configurations};

const CONFIGURATION: &str = "CNI directories";
const SOCKETS: &str = "agents";

/// The plugin that the runtime would start.
pub(super) fn plugin(args: &cli::Check, info: Option<&InfoResponse>) -> PathBuf {
    match info.map(|info| info.cni_plugin_dir.as_str()) {
        Some(dir) if !dir.is_empty() => Path::new(dir).join(chained::TYPE),
        Some(_) | None => args.cni_plugin.clone(),
    }
}

/// The configurations of the runtime. Without an agent that installs there may be others than ours, or none.
pub(super) fn directory(args: &cli::Check, info: Option<&InfoResponse>, plugin: &Path) -> Finding {
    let told = info.map(|info| info.cni_conf_dir.as_str()).filter(|dir| !dir.is_empty());
    let dir = told.map_or_else(|| args.paths.cni_conf_dir.clone(), PathBuf::from);
    let files = match configurations(&dir) {
        Ok(files) => files,
        Err(error) => return bad(CONFIGURATION, &error.to_string(), "run nsmctl check as root"),
    };
    let found = judge(&dir, &files, plugin, told.is_some());
    found.unwrap_or_else(|| good(CONFIGURATION, &format!("{}: {}", dir.display(), names(&files))))
}

fn names(files: &[File]) -> String {
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    if names.is_empty() { "no configuration".into() } else { names.join(", ") }
}

/// What is wrong.
fn judge(dir: &Path, files: &[File], plugin: &Path, installs: bool) -> Option<Finding> {
    let shown = dir.display();
    if let Some(taken) = chained::NAMES.iter().find(|name| dir.join(format!("{name}.cilium_bak")).exists()) {
        let detail = format!("{shown}/{taken} was renamed by Cilium");
        return Some(bad(CONFIGURATION, &detail, "set Cilium's cni.exclusive to false"));
    }
    let runs = files.iter().find(|file| chained::mentions_us(file));
    let ours = files.iter().find(|file| chained::is_ours(&file.name));
    if let (Some(file), false) = (runs, plugin.exists()) {
        let detail = format!("{shown}/{} runs nsm-cni, which is not at {}", file.name, plugin.display());
        return Some(bad(
            CONFIGURATION,
            &detail,
            "name the runtime's plugin directory with --install-plugin, or --cni-plugin here",
        ));
    }
    match (chained::choose(files, &ours.map_or_else(unknown, entry)), ours) {
        (Ok(derived), Some(ours)) if ours.content.as_ref().is_ok_and(|text| text != derived.text.as_bytes()) => {
            let detail = format!("{shown}/{} is not what {} says any more", ours.name, derived.from);
            Some(finding(
                Level::Warning,
                CONFIGURATION,
                &detail,
                "start the agent: it follows; its log tells why it did not",
            ))
        }
        (Ok(derived), None) if installs => {
            let detail = format!("{shown}/{} is not written", derived.name);
            Some(bad(CONFIGURATION, &detail, "the agent's log and /readyz tell why"))
        }
        (Err(Reason::NoOriginal), _) if installs => {
            let detail = format!("{shown} has no configuration of a network of the node's own");
            Some(bad(
                CONFIGURATION,
                &detail,
                "name the directory that the runtime reads with --install-cni-conf, or install the network",
            ))
        }
        (Err(reason @ (Reason::Broken { .. } | Reason::NoName { .. })), _) => Some(finding(
            Level::Warning,
            CONFIGURATION,
            &format!("{shown}: {reason}"),
            "see to the node's own network configuration",
        )),
        (Ok(_) | Err(_), _) => None,
    }
}

fn unknown() -> Entry {
    Entry { cni_socket: String::new(), agent_wait_seconds: 0 }
}

/// What ours tells the plugin.
fn entry(ours: &File) -> Entry {
    let list: Value = ours.content.as_ref().ok().and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    let plugin = list["plugins"].as_array().and_then(|plugins| plugins.last()).cloned().unwrap_or_default();
    Entry {
        cni_socket: plugin["cniSocket"].as_str().unwrap_or_default().to_owned(),
        agent_wait_seconds: plugin["agentWaitSeconds"].as_u64().unwrap_or_default(),
    }
}

/// Whether both sockets are the same process's: another manager may have taken the one that clients and endpoints know.
pub(super) fn one_agent(private: &Path, nsm: &Path) -> Finding {
    let fix = "end the other one, or give this agent an --nsm-socket of its own";
    match (server(private), server(nsm)) {
        (Some(agent), Some(other)) if agent != other => {
            let detail =
                format!("process {agent} serves {}, and another one, {other}, {}", private.display(), nsm.display());
            bad(SOCKETS, &detail, fix)
        }
        (None, Some(other)) => {
            let detail = format!("process {other} serves {}, and no agent {}", nsm.display(), private.display());
            bad(SOCKETS, &detail, fix)
        }
        (Some(_), Some(_) | None) | (None, None) => good(SOCKETS, "no other one on the same sockets"),
    }
}

/// The process that listens on a socket, as the kernel tells it; 0: of another pid namespace.
fn server(socket: &Path) -> Option<i32> {
    let stream = UnixStream::connect(socket).ok()?;
    getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.pid())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener};

    use super::*;

    const LIST: &str = r#"{"name": "cbr0", "plugins": [{"type": "flannel"}]}"#;

    fn files(dir: &Path) -> Vec<File> {
        configurations(dir).unwrap()
    }

    #[test]
    fn what_is_wrong_with_the_directories_is_told_with_its_fix() {
        let dir = tempfile::TempDir::new().unwrap();
        let (path, plugin) = (dir.path(), dir.path().join("nsm-cni"));
        let said = |installs| judge(path, &files(path), &plugin, installs).map(|found| (found.level(), found.detail));
        assert!(said(true).unwrap().1.contains("no configuration of a network"));
        assert_eq!(said(false), None);
        fs::write(path.join("10-flannel.conflist"), LIST).unwrap();
        assert!(said(true).unwrap().1.contains("00-nsm.conflist is not written"));
        assert_eq!(said(false), None);
        let entry = Entry { cni_socket: "/run/x.sock".into(), agent_wait_seconds: 3 };
        let ours = chained::choose(&files(path), &entry).unwrap();
        fs::write(path.join(&ours.name), &ours.text).unwrap();
        assert!(said(true).unwrap().1.contains("runs nsm-cni, which is not at"));
        fs::write(&plugin, "").unwrap();
        assert_eq!(said(true), None);
        fs::write(path.join("10-flannel.conflist"), LIST.replace("cbr0", "cbr1")).unwrap();
        let (level, stale) = said(true).unwrap();
        assert!(level == Level::Warning && stale.contains("is not what 10-flannel.conflist says any more"), "{stale}");
        fs::rename(path.join("00-nsm.conflist"), path.join("00-nsm.conflist.cilium_bak")).unwrap();
        assert!(said(true).unwrap().1.contains("renamed by Cilium"));
    }

    #[test]
    fn another_manager_on_the_socket_is_told() {
        let dir = tempfile::TempDir::new().unwrap();
        let [private, nsm] = ["cni.sock", "nsm.sock"].map(|name| dir.path().join(name));
        assert_eq!(one_agent(&private, &nsm).level(), Level::Ok);
        let _other = UnixListener::bind(&nsm).unwrap();
        let found = one_agent(&private, &nsm);
        assert!(found.level() == Level::Error && found.detail.contains("no agent"), "{found:?}");
        let _agent = UnixListener::bind(&private).unwrap();
        assert_eq!(one_agent(&private, &nsm).level(), Level::Ok);
    }
}
