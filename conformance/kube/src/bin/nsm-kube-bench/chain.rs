//! ADD of the node's whole list of plugins, as a runtime runs them, on fresh namespaces.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nsm_kube::pods::{ASKS, endpoint, reaches, serve};
use nsm_kube::{BIN_DIR, Mesh, Place};
use nsm_lab::Namespace;
use serde_json::{Value, json};

use crate::figures::{Figures, rounds};

/// After a sandbox: the kernel takes a namespace apart with its network lock held, which must not fall into the next figure.
const SETTLE: Duration = Duration::from_millis(80);

const CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";

/// Whose list is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    First,
    Silent,
    Asking,
}

pub(crate) fn add_beside_the_first_network(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("bench", &Value::Null)?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint("bench", "responder", machine, "icmp", "172.16.0.0/20"))?;
    let first = machine.first_network();
    let mut ours = first.clone();
    let plugins = ours["plugins"].as_array_mut().context("plugins")?;
    plugins.push(json!({
        "type": "nsm-cni", "capabilities": { CAPABILITY: true },
        "cniSocket": "/run/nsm/cni.sock", "agentWaitSeconds": 10,
    }));
    let mut figures: [Figures; 3] = Default::default();
    let arms = [Arm::First, Arm::Silent, Arm::Asking];
    for round in 0..rounds("NSM_BENCH_ADDS", 200) + 5 {
        for turn in 0..arms.len() {
            // Each is first as often as the others.
            let at = (round + turn) % arms.len();
            let list = if arms[at] == Arm::First { &first } else { &ours };
            let took = once(machine.place(), list, arms[at], &format!("bench-{round}-{turn}"))?;
            thread::sleep(SETTLE);
            if round >= 5 {
                figures[at].add(took);
            }
        }
    }
    figures[0].print("ADD of the first network (ptp, host-local) alone");
    figures[1].print("the same with nsm-cni behind it, pod asks nothing");
    figures[2].print("the same, pod asks one service");
    for (at, what) in [(1, "asks nothing"), (2, "asks one service")] {
        let [median, p95] = [50, 95].map(|percent| figures[at].percentile(percent) - figures[0].percentile(percent));
        println!("above the first network, {what}: median {median:+.2} ms, p95 {p95:+.2} ms");
    }
    Ok(())
}

/// One sandbox from ADD to DEL; how long ADD took.
fn once(place: &Place, list: &Value, arm: Arm, name: &str) -> anyhow::Result<Duration> {
    let network = place.run(|| Namespace::create(name))??;
    let annotations = if arm == Arm::Asking { json!({ ASKS: "kernel://icmp/nsm-1" }) } else { json!({}) };
    let plugins = list["plugins"].as_array().context("plugins")?;
    let confs = plugins.iter().map(|plugin| {
        let mut conf = plugin.clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        conf["name"] = list["name"].clone();
        if conf["capabilities"][CAPABILITY] == true {
            conf["runtimeConfig"] = json!({ CAPABILITY: annotations });
        }
        conf
    });
    let confs: Vec<Value> = confs.collect();
    // As a runtime does it: one thread that is where the plugins shall be.
    place.run(|| {
        let began = Instant::now();
        let mut result = Value::Null;
        for conf in &confs {
            result = call("ADD", &network, conf, &result)?;
        }
        let took = began.elapsed();
        if arm == Arm::Asking {
            reaches(&network, "nsm-1")?;
        }
        for conf in confs.iter().rev() {
            call("DEL", &network, conf, &result)?;
        }
        drop(network);
        Ok(took)
    })?
}

/// On a thread of the machine's.
fn call(verb: &str, network: &Namespace, conf: &Value, before: &Value) -> anyhow::Result<Value> {
    let mut conf = conf.clone();
    if !before.is_null() {
        conf["prevResult"] = before.clone();
    }
    let name = network.name();
    let program = format!("{BIN_DIR}/{}", conf["type"].as_str().context("type")?);
    let mut command = Command::new(&program);
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("CNI_PATH", BIN_DIR);
    command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", name).env("CNI_IFNAME", "eth0");
    command.env("CNI_NETNS", network.path());
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={name};K8S_POD_UID={name}");
    command.env("CNI_ARGS", args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| program.clone())?;
    child.stdin.take().context("stdin")?.write_all(conf.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{program} {verb}: {text}");
    if text.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
}
