//! What the plugin itself reaches: no API server, no credential.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use nsm_lab::{Node, Outcome, binary, runner};
use serde_json::json;

use super::{Sandbox, bridge, list, ptp, recorder, write};

/// A program that runs `nsm-cni` and writes down its system calls and those of what it starts, a file for each thread.
fn traced(node: &Node) -> anyhow::Result<PathBuf> {
    let there = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    if !there {
        return Err(runner::Skip("strace is not there: install it".to_owned()).into());
    }
    let program = node.dir().join("traced");
    let calls = "open,openat,openat2,connect,socket,execve,clone,clone3";
    let script = format!(
        "#!/bin/sh\nexec strace -qq -ff -s 512 -o {} -e trace={calls} {}\n",
        node.dir().join("trace").display(),
        binary("nsm-cni")?.display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

/// What `nsm-cni` itself called in all its threads, not the plugins that it has run.
fn own_calls(node: &Node) -> anyhow::Result<Vec<String>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(node.dir())?.flatten() {
        if let Some(thread) = entry.file_name().to_str().and_then(|name| name.strip_prefix("trace.")) {
            threads.insert(thread.to_owned(), fs::read_to_string(entry.path())?);
            fs::remove_file(entry.path())?;
        }
    }
    let is_ours = |calls: &String| calls.lines().next().is_some_and(|line| line.contains("/nsm-cni\""));
    let first = threads.iter().find(|(_, calls)| is_ours(calls)).context("nsm-cni is not in the trace")?;
    let (mut own, mut left) = (Vec::new(), vec![first.0.clone()]);
    while let Some(calls) = left.pop().and_then(|thread| threads.remove(&thread)) {
        let started = calls.lines().filter(|line| line.starts_with("clone") && line.contains("CLONE_THREAD"));
        left.extend(started.filter_map(|line| line.rsplit(" = ").next().map(str::to_owned)));
        own.extend(calls.lines().map(str::to_owned));
    }
    Ok(own)
}

/// The first text of a call that is one of these.
fn named<'a>(calls: &'a [String], kinds: &[&str], succeeded: bool) -> BTreeSet<&'a str> {
    let of_kind = calls.iter().filter(|call| kinds.iter().any(|kind| call.starts_with(&format!("{kind}("))));
    let wanted = of_kind.filter(|call| !succeeded || !call.contains(" = -1 "));
    wanted.filter_map(|call| call.split('"').nth(1)).collect()
}

/// With networks of the configuration and of the pod's annotation it opens its own records, the files that its configuration names and no
/// kubeconfig, and connects to its agent alone.
pub(crate) fn the_plugin_calls_no_api_server() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let program = traced(&node)?;
    let mut node = node;
    node.start_agent()?;
    let pod = node.pod("client")?;
    let (kubeconfig, conf_dir) = (node.dir().join("multus.kubeconfig"), node.dir().join("networks"));
    fs::write(&kubeconfig, "apiVersion: v1\nkind: Config\n")?;
    write(&conf_dir.join("10.conflist"), &list("bridge", &[bridge(&node), recorder(&node)]))?;
    let annotations = json!({"k8s.v1.cni.cncf.io/networks": "bridge"});
    let keys = json!({
        "delegates": [list("ptp", &[ptp(&node)])], "confDir": conf_dir, "kubeconfig": kubeconfig,
        "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
    });
    let sandbox = Sandbox::of(&node, &pod, &keys)?;
    let run = |command: &'static str, previous: Option<&Outcome>| -> anyhow::Result<(Outcome, Vec<String>)> {
        let mut conf = sandbox.conf.clone();
        if let Some(previous) = previous {
            conf["prevResult"] = previous.json.clone();
        }
        let ended = node.cni().call_of(&program, &sandbox.call_with(command, &conf))?.ok()?;
        Ok((ended, own_calls(&node)?))
    };
    let (added, of_add) = run("ADD", None)?;
    let (_, of_check) = run("CHECK", Some(&added))?;
    let (_, of_del) = run("DEL", None)?;
    let netns = pod.namespace().path();
    let own = [node.dir().join("cni"), node.cni_socket().with_extension("sock.pods"), conf_dir];
    // Itself as a program, its threads' namespaces, the machine, and devices' descriptions by the network plumbing group's specification.
    let machine = ["/proc/", "/etc/ld.so", "/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", "/var/run/k8s.cni.cncf.io/"];
    for (command, calls) in [("ADD", of_add), ("CHECK", of_check), ("DEL", of_del)] {
        let opened = named(&calls, &["open", "openat", "openat2"], true);
        ensure!(opened.iter().any(|path| path.contains("client@eth0")), "{command}: no record was opened: {opened:?}");
        let is_expected = |path: &&&str| {
            Path::new(path) == netns
                || own.iter().any(|folder| Path::new(path).starts_with(folder))
                || machine.iter().any(|beginning| path.starts_with(beginning))
        };
        let others: Vec<&&str> = opened.iter().filter(|path| !is_expected(path)).collect();
        ensure!(others.is_empty(), "{command} opens {others:?}");
        let families: BTreeSet<&str> = calls
            .iter()
            .filter_map(|call| call.strip_prefix("socket("))
            .filter_map(|call| call.split([',', ')']).next())
            .collect();
        ensure!(families.is_subset(&BTreeSet::from(["AF_UNIX", "AF_NETLINK"])), "{command}: {families:?}");
        let connected = named(&calls, &["connect"], false);
        let agent = node.cni_socket();
        let agent = agent.to_str().context("its path")?;
        ensure!(connected.iter().all(|path| *path == agent), "{command} connects to {connected:?}");
        ensure!(command != "ADD" || connected.len() == 1, "the agent was not asked for the annotation's network");
    }
    Ok(())
}
