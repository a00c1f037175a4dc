//! How networks end: with exactly what began them, whatever has changed since, and not before all of it is gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsm_lab::{Node, eventually, runner};
use serde_json::{Value, json};

use super::{Sandbox, bin_dir, bridge, calls, held, links, list, nothing_left, ptp, recorder, records, write};

const SOON: Duration = Duration::from_secs(5);

/// The configuration has changed, its file is gone, the machine was started again: DEL still gets what ADD got.
pub(crate) fn del_gets_what_add_got() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let file = node.dir().join("net.d/10-ptp.conflist");
    let mut seen = recorder(&node);
    seen["capabilities"] = json!({"portMappings": true});
    seen["mine"] = json!({"deep": [1, 2]});
    write(&file, &list("ptp", &[ptp(&node), seen]))?;
    let mut sandbox = Sandbox::of(&node, &pod, &json!({"clusterNetwork": file}))?;
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    sandbox.conf["runtimeConfig"]["portMappings"] = ports.clone();
    sandbox.add()?.ok()?;
    fs::remove_file(&file)?;
    sandbox.conf["runtimeConfig"] = json!({});
    sandbox.conf["clusterNetwork"] = json!("/nowhere");
    sandbox.conf["unknown"] = json!(1);
    sandbox.rebooted()?;
    sandbox.del()?.ok()?;
    let calls = calls(&node)?;
    let [add, del] = &calls[..] else { anyhow::bail!("{calls:?}") };
    ensure!(add["command"] == "ADD" && del["command"] == "DEL");
    ensure!(add["conf"]["runtimeConfig"]["portMappings"] == ports);
    let mut before = add["conf"].clone();
    before.as_object_mut().context("configuration")?.remove("prevResult");
    ensure!(before == del["conf"], "{before} {}", del["conf"]);
    ensure!(add["args"] == del["args"] && del["netns"] == "");
    nothing_left(&node, &[])
}

/// With the result at hand DEL passes it on.
pub(crate) fn del_gets_the_result() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": [list("ptp", &[ptp(&node), recorder(&node)])]}))?;
    let added = sandbox.add()?.ok()?;
    sandbox.del()?.ok()?;
    let calls = calls(&node)?;
    let passed = &calls[1]["conf"]["prevResult"];
    for part in ["cniVersion", "interfaces", "ips", "routes"] {
        ensure!(!added.json[part].is_null() && passed[part] == added.json[part], "{part}: {passed} {}", added.json);
    }
    nothing_left(&node, &[&pod])
}

/// One network's DEL fails: the others are ended, the error names it, and the next DEL does the rest.
pub(crate) fn a_del_that_fails_is_repeated() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let mut bad = recorder(&node);
    bad["says"] = json!({"DEL": {"error": {"code": 11, "msg": "the device is busy"}}});
    let delegates = json!([list("ptp", &[ptp(&node)]), list("bad", &[bad]), list("bridge", &[bridge(&node)])]);
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates}))?;
    sandbox.add()?.ok()?;
    let told = sandbox.del()?.refused(11)?;
    ensure!(told.contains("network \"bad\", interface net1, plugin nsm-delegate: the device is busy"), "{told}");
    ensure!(links(&pod)?.is_empty() && held(&node, "ptp").is_empty() && held(&node, "bridge").is_empty());
    let record = node.dir().join("cni/nsm-cni/client@eth0.json");
    let text = fs::read_to_string(&record)?;
    ensure!(!text.contains("bridge") && text.contains("\"bad\""), "{text}");
    sandbox.del()?.refused(11)?;
    fs::write(&record, text.replace("the device is busy", "").replace("\"DEL\"", "\"none\""))?;
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])
}

/// Nothing is known of a container any more: the networks that every pod has are ended, the rest is told.
pub(crate) fn records_that_are_lost() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let file = node.dir().join("net.d/20-bridge.conflist");
    write(&file, &list("bridge", &[bridge(&node)]))?;
    let keys = json!({
        "delegates": [list("ptp", &[ptp(&node)]), list("seen", &[recorder(&node)])], "defaultNetworks": [file],
    });
    let sandbox = Sandbox::of(&node, &pod, &keys)?;
    let gone = || -> anyhow::Result<()> {
        ensure!(held(&node, "ptp").is_empty() && held(&node, "bridge").is_empty() && links(&pod)?.is_empty());
        let last = calls(&node)?.pop().context("no call")?;
        ensure!(last["command"] == "DEL" && last["ifname"] == "net1", "{last}");
        Ok(())
    };
    let record = node.dir().join("cni/nsm-cni/client@eth0.json");
    sandbox.add()?.ok()?;
    fs::remove_file(&record)?;
    let told = sandbox.del()?.ok()?.stderr;
    ensure!(told.contains("the record of container client is missing: of its networks ptp, seen"), "{told}");
    gone()?;
    // Nothing was there to be lost.
    let told = sandbox.del()?.ok()?.stderr;
    ensure!(!told.contains("of container"), "{told}");
    fs::remove_dir_all(node.dir().join("cni/nsm-cni"))?;

    sandbox.add()?.ok()?;
    fs::write(&record, "{\"format\": 1, \"contai")?;
    let told = sandbox.del()?.ok()?.stderr;
    ensure!(told.contains("cannot be read and is kept as"), "{told}");
    gone()?;
    ensure!(records(&node).iter().any(|name| name == "client@eth0.json.damaged"), "{:?}", records(&node));
    Ok(())
}

/// GC ends what the runtime does not know, by DEL and by the plugins' own GC, which is told of all that is in use.
pub(crate) fn gc_by_the_runtimes_list() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let [stays, goes] = [node.pod("stays")?, node.pod("goes")?];
    let mut newest = list("seen", &[recorder(&node)]);
    newest["cniVersion"] = "1.1.0".into();
    let delegates = json!([list("ptp", &[ptp(&node)]), newest]);
    let keys = json!({"delegates": delegates, "cniVersion": "1.1.0"});
    let sandboxes = [Sandbox::of(&node, &stays, &keys)?, Sandbox::of(&node, &goes, &keys)?];
    for sandbox in &sandboxes {
        sandbox.add()?.ok()?;
    }
    let conf = sandboxes[0].conf.clone();
    drop(sandboxes);
    let gc = |valid| node.cni().gc(&conf, valid)?.ok();
    gc(None)?;
    ensure!(held(&node, "ptp").len() == 2, "an absent list is not empty");
    gc(Some(&[("stays", "eth0")]))?;
    ensure!(held(&node, "ptp").len() == 1 && links(&goes)?.is_empty() && links(&stays)? == ["eth0"]);
    ensure!(records(&node) == ["stays@eth0.json", "stays@eth0.results"], "{:?}", records(&node));
    let calls = calls(&node)?;
    let told: Vec<_> = calls.iter().filter(|call| call["command"] == "GC").collect();
    let valid = json!([{"containerID": "stays", "ifname": "net1"}]);
    ensure!(told.len() == 1 && told[0]["conf"]["cni.dev/valid-attachments"] == valid, "{told:?}");
    // Without a list, what has lost its namespace.
    drop(stays);
    gc(None)?;
    ensure!(held(&node, "ptp").is_empty() && held(&node, "bridge").is_empty());
    // The runtime's DEL may be to come: until it has, or the list lacks it, it is known that there is nothing left.
    ensure!(records(&node) == ["stays@eth0.json"], "{:?}", records(&node));
    gc(None)?;
    gc(Some(&[]))?;
    nothing_left(&node, &[&goes])
}

/// GC leaves alone what a call works on, what cannot be read and what is of another network of the runtime's.
pub(crate) fn gc_leaves_others_alone() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pods = [node.pod("held")?, node.pod("damaged")?, node.pod("other")?, node.pod("goes")?];
    let mut newest = list("seen", &[recorder(&node)]);
    newest["cniVersion"] = "1.1.0".into();
    let keys = json!({"delegates": [list("ptp", &[ptp(&node)]), newest], "cniVersion": "1.1.0"});
    for pod in &pods {
        let mut sandbox = Sandbox::of(&node, pod, &keys)?;
        if pod.container() == "other" {
            sandbox.conf["name"] = "another".into();
        }
        sandbox.add()?.ok()?;
    }
    let conf = Sandbox::of(&node, &pods[0], &keys)?.conf;
    let folder = node.dir().join("cni/nsm-cni");
    let lock = fs::File::create(folder.join(".held@eth0.lock"))?;
    lock.lock()?;
    fs::write(folder.join("damaged@eth0.json"), "{")?;
    let words = node.cni().gc(&conf, Some(&[]))?.ok()?.stderr;
    ensure!(
        words.contains("a record cannot be read") && words.contains("GC of network \"seen\" is left out"),
        "{words}"
    );
    let ended: Vec<_> = calls(&node)?.into_iter().filter(|call| call["command"] == "DEL").collect();
    ensure!(ended.len() == 1 && ended[0]["container"] == "goes", "{ended:?}");
    ensure!(
        !calls(&node)?.iter().any(|call| call["command"] == "GC"),
        "plugins are told no list that may lack something"
    );
    ensure!(held(&node, "ptp").len() == 3 && links(&pods[0])? == ["eth0"], "{:?}", held(&node, "ptp"));
    drop(lock);
    // What one call of another kind left of its lock is nobody's.
    node.cni().gc(&conf, Some(&[]))?.ok()?;
    ensure!(held(&node, "ptp").len() == 2 && links(&pods[0])?.is_empty(), "{:?}", held(&node, "ptp"));
    Ok(())
}

/// A DEL that is killed has done what it has done: the next one does the rest.
pub(crate) fn what_is_ended_is_not_ended_again() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let mut slow = recorder(&node);
    slow["says"] = json!({"DEL": {"hang": true}});
    let delegates = json!([list("ptp", &[ptp(&node)]), list("slow", &[slow]), list("seen", &[recorder(&node)])]);
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates}))?;
    sandbox.add()?.ok()?;
    let ended = || -> anyhow::Result<Vec<String>> {
        let dels = calls(&node)?.into_iter().filter(|call| call["command"] == "DEL");
        Ok(dels.map(|call| call["ifname"].as_str().unwrap_or_default().to_owned()).collect())
    };
    let mut child = node.cni().start(&sandbox.call_with("DEL", &sandbox.conf))?;
    eventually("the second DEL", SOON, ended, |dels| dels == &["net2", "net1"])?;
    child.kill()?;
    child.wait()?;
    let record = node.dir().join("cni/nsm-cni/client@eth0.json");
    fs::write(&record, fs::read_to_string(&record)?.replace("\"hang\":true", "\"hang\":false"))?;
    sandbox.del()?.ok()?;
    ensure!(ended()? == ["net2", "net1", "net1"], "{:?}", ended()?);
    nothing_left(&node, &[&pod])
}

/// What a plugin has started goes on after a kill of `nsm-cni`, and DEL waits for its end, asleep.
pub(crate) fn del_waits_for_what_plugins_started() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let plugin = node.dir().join("bin/starts");
    fs::create_dir_all(node.dir().join("bin"))?;
    let script = "#!/bin/sh\ncat > /dev/null\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\nsleep 1000 &\necho $! > \"$0.new\"\nmv \"$0.new\" \"$0.pid\"\nwait\n";
    fs::write(&plugin, script)?;
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755))?;
    let delegates = json!([list("seen", &[recorder(&node)]), list("starts", &[json!({"type": "starts"})])]);
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates, "binDir": node.dir().join("bin")}))?;
    let mut add = node.cni().start(&sandbox.call_with("ADD", &sandbox.conf))?;
    let pid = || Ok(fs::read_to_string(node.dir().join("bin/starts.pid")).unwrap_or_default());
    let started: i32 = eventually("what the plugin starts", SOON, pid, |pid| !pid.is_empty())?.trim().parse()?;
    add.kill()?;
    add.wait()?;
    let mut del = node.cni().start(&sandbox.call_with("DEL", &sandbox.conf))?;
    // One of its threads is in that call, and not again and again (proc_pid_syscall(5)).
    let threads = format!("/proc/{}/task", del.id());
    let inside = || -> anyhow::Result<Vec<String>> {
        let threads = fs::read_dir(&threads)?.flatten();
        Ok(threads.filter_map(|thread| fs::read_to_string(thread.path().join("syscall")).ok()).collect())
    };
    let flock = format!("{} ", nix::libc::SYS_flock);
    eventually("a DEL that sleeps", SOON, inside, |calls| calls.iter().any(|call| call.starts_with(&flock)))?;
    ensure!(del.try_wait()?.is_none() && kill(Pid::from_raw(started), None).is_ok());
    ensure!(calls(&node)?.iter().all(|call| call["command"] == "ADD"), "{:?}", calls(&node)?);
    kill(Pid::from_raw(started), Signal::SIGKILL)?;
    ensure!(del.wait()?.success());
    ensure!(calls(&node)?.last().is_some_and(|call| call["command"] == "DEL"));
    nothing_left(&node, &[&pod])
}

/// STATUS asks all plugins of all networks, and says when the cluster's is not ready.
pub(crate) fn status_of_all() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let ready = node.dir().join("ready");
    let newest = |plugin| {
        let mut newest = list("seen", &[plugin]);
        newest["cniVersion"] = "1.1.0".into();
        newest
    };
    let mut bad = recorder(&node);
    bad["says"] = json!({"STATUS": {"error": {"code": 50, "msg": "no address left"}}});
    let of = |second| -> anyhow::Result<Sandbox<'_>> {
        let delegates = json!([list("ptp", &[ptp(&node)]), second]);
        Sandbox::of(
            &node,
            &pod,
            &json!({"delegates": delegates, "cniVersion": "1.1.0", "readinessindicatorfile": ready}),
        )
    };
    let status = |sandbox: Sandbox<'_>| node.cni().status(&sandbox.conf);
    let told = status(of(newest(recorder(&node)))?)?.refused(50)?;
    ensure!(told.contains("readinessindicatorfile"), "{told}");
    let told = of(newest(recorder(&node)))?.add()?.refused(11)?;
    ensure!(told.contains("readinessindicatorfile"), "{told}");
    fs::write(&ready, "")?;
    status(of(newest(recorder(&node)))?)?.ok()?;
    let told = status(of(newest(bad))?)?.refused(50)?;
    ensure!(told.contains("no address left"), "{told}");
    let told = status(of(list("old", &[json!({"type": "missing"})]))?)?.refused(50)?;
    ensure!(told.contains("plugin missing"), "{told}");
    Ok(())
}

/// A pod that Multus itself made is checked and ended from Multus's records, with its conflist's keys, and nothing of them stays.
pub(crate) fn made_by_multus() -> anyhow::Result<()> {
    let multus = bin_dir()?.join("multus");
    if !multus.is_file() {
        return Err(runner::Skip(format!("{} is not there: `cargo xtask test lab` builds it", multus.display())).into());
    }
    let node = Node::create("node-1")?;
    let pods = [node.pod("one")?, node.pod("two")?];
    let delegates = json!([list("ptp", &[ptp(&node), recorder(&node)]), list("bridge", &[bridge(&node)])]);
    let made = pods.iter().map(|pod| -> anyhow::Result<_> {
        let sandbox = Sandbox::of(&node, pod, &json!({"delegates": delegates}))?;
        let mut theirs = json!({"type": "multus", "logToStderr": false});
        for key in ["cniVersion", "name", "binDir", "cniDir", "delegates"] {
            theirs[key] = sandbox.conf[key].clone();
        }
        let added = node.cni().call_of(&multus, &sandbox.call_with("ADD", &theirs))?.ok()?;
        Ok((sandbox, added.json))
    });
    let made = made.collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(held(&node, "ptp").len() == 2 && held(&node, "bridge").len() == 2 && links(&pods[0])? == ["eth0", "net1"]);
    let [(one, added), (two, _)] = &made[..] else { anyhow::bail!("{} pods", made.len()) };
    one.check(added)?.ok()?;
    one.del()?.ok()?;
    ensure!(held(&node, "ptp").len() == 1 && held(&node, "bridge").len() == 1 && links(&pods[0])?.is_empty());
    let del = calls(&node)?.pop().context("no call")?;
    ensure!(
        del["command"] == "DEL" && del["conf"]["log"].is_string() && del["conf"]["prevResult"].is_object(),
        "{del}"
    );
    // What the runtime still knows stays, the rest goes.
    let mut conf = two.conf.clone();
    conf["cniVersion"] = "1.1.0".into();
    node.cni().gc(&conf, Some(&[("two", "eth0")]))?.ok()?;
    ensure!(held(&node, "ptp").len() == 1 && held(&node, "bridge").len() == 1);
    node.cni().gc(&conf, Some(&[]))?.ok()?;
    ensure!(held(&node, "ptp").len() == 1, "Multus may be at work while the namespace is there");
    drop(made);
    drop(pods);
    node.cni().gc(&conf, Some(&[]))?.ok()?;
    let left: Vec<_> = fs::read_dir(node.dir().join("cni"))?.flatten().filter(|entry| entry.path().is_file()).collect();
    ensure!(left.is_empty() && fs::read_dir(node.dir().join("cni/results"))?.count() == 0, "{left:?}");
    nothing_left(&node, &[])
}

/// What Multus's cache lacks is known from its list, and what the list lacks from the cache.
pub(crate) fn made_by_multus_and_half_forgotten() -> anyhow::Result<()> {
    let multus = bin_dir()?.join("multus");
    if !multus.is_file() {
        return Err(runner::Skip(format!("{} is not there: `cargo xtask test lab` builds it", multus.display())).into());
    }
    let node = Node::create("node-1")?;
    let pods = [node.pod("no-cache")?, node.pod("no-list")?];
    let delegates = json!([list("ptp", &[ptp(&node), recorder(&node)]), list("bridge", &[bridge(&node)])]);
    for pod in &pods {
        let sandbox = Sandbox::of(&node, pod, &json!({"delegates": delegates}))?;
        let mut theirs = json!({"type": "multus", "logToStderr": false});
        for key in ["cniVersion", "name", "binDir", "cniDir", "delegates"] {
            theirs[key] = sandbox.conf[key].clone();
        }
        node.cni().call_of(&multus, &sandbox.call_with("ADD", &theirs))?.ok()?;
    }
    ensure!(held(&node, "ptp").len() == 2 && held(&node, "bridge").len() == 2, "{:?}", held(&node, "bridge"));
    let cni_dir = node.dir().join("cni");
    for entry in fs::read_dir(cni_dir.join("results"))?.flatten() {
        if entry.file_name().to_string_lossy().contains("no-cache") {
            fs::remove_file(entry.path())?;
        }
    }
    let mut listed: Value = serde_json::from_slice(&fs::read(cni_dir.join("no-list"))?)?;
    listed.as_array_mut().context("a list")?.truncate(1);
    fs::write(cni_dir.join("no-list"), listed.to_string())?;
    // Nor does the configuration say it any more.
    let others = json!({"delegates": [list("other", &[ptp(&node)])]});
    for (pod, left) in pods.iter().zip([1, 0]) {
        Sandbox::of(&node, pod, &others)?.del()?.ok()?;
        ensure!(held(&node, "ptp").len() == left && held(&node, "bridge").len() == left, "{:?}", held(&node, "bridge"));
        let del = calls(&node)?.pop().context("no call")?;
        ensure!(del["command"] == "DEL" && del["conf"]["log"].is_string(), "{del}");
        ensure!(del["args"].as_str().is_some_and(|args| args.contains("K8S_POD_NAMESPACE=team")), "{del}");
        ensure!(!cni_dir.join(pod.container()).exists() && links(pod)?.is_empty());
    }
    ensure!(fs::read_dir(cni_dir.join("results"))?.count() == 0);
    nothing_left(&node, &[&pods[0], &pods[1]])
}
