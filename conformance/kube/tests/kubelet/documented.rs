//! The documents' commands, run as they stand there. `nsm-agent/tests/docs.rs` sees to it that none is left out.

use std::{fs, slice};

use anyhow::{Context, bail, ensure};
use nsm_kube::documented::{Desk, Line, blocks, example, mentioned};
use nsm_kube::pods::{endpoint, registered};
use nsm_kube::{BIN_DIR, BUSYBOX, CONF_DIR, Machine, Mesh, SOON, idle, patiently};
use nsm_lab::Program;
use serde_json::{Value, json};

use self::lines::Instead;
use crate::multus;

mod lines;

/// The blocks of a section, which are that many, less the lines that are for others to run.
fn of<const N: usize>(document: &str, heading: &str) -> anyhow::Result<[Vec<Line>; N]> {
    let known = lines::TYPED.iter().any(|(of, section, _)| (*of, *section) == (document, heading));
    ensure!(known, "documented/lines.rs does not say who types in {heading:?} of {document}");
    let mut all = blocks(document, heading)?;
    for block in &mut all {
        block.retain(|line| {
            let other = lines::OTHERS.iter().find(|(of, command, _)| *of == document && *command == line.command);
            match other {
                Some((_, command, Instead::Like(file, text, how))) => {
                    eprintln!("not here  {command} ({how}: {text:?} in {file})");
                }
                Some((_, command, Instead::Not(why))) => eprintln!("not here  {command} ({why})"),
                None => return true,
            }
            false
        });
    }
    let found = all.len();
    all.try_into().ok().with_context(|| format!("{heading:?} of {document} has {found} blocks, {N} are run here"))
}

/// On every machine ours is first, or the network's own as before.
fn installed(mesh: &Mesh, wanted: bool) -> anyhow::Result<()> {
    for at in 0..mesh.len() {
        let machine = mesh.machine(at)?;
        let name = machine.first_configuration()?.context("no configuration")?;
        ensure!(name.starts_with("00-nsm") == wanted, "{} has {name} first in {CONF_DIR}", machine.name());
        let plugin = machine.place().list(BIN_DIR)?.iter().any(|name| name == "nsm-cni");
        ensure!(plugin == wanted, "nsm-cni on {}: {plugin}", machine.name());
    }
    Ok(())
}

/// As if nobody had ever been here: a pod, in a namespace of its own, starts by the network's own configuration.
fn as_before(mesh: &Mesh, namespace: &str) -> anyhow::Result<()> {
    installed(mesh, false)?;
    for kind in ["namespace/nsm-system", "clusterrole/nsm-agent", "crd/networkservices.networkservicemesh.io"] {
        let found = mesh.kubectl(&["get", "--ignore-not-found", kind])?;
        ensure!(found.is_empty(), "{kind} is still there: {found}");
    }
    mesh.namespace(namespace, &Value::Null)?;
    mesh.create(&idle(namespace, "pod", mesh.machine(0)?.name()))?;
    mesh.running(namespace, "pod").map(drop)
}

pub(crate) fn installed_upgraded_uninstalled(mesh: &mut Mesh) -> anyhow::Result<()> {
    let [manifests] = of("docs/install.md", "Install")?;
    let [helm] = of("docs/install.md", "With Helm")?;
    let [example] = of("docs/install.md", "An example")?;
    let [upgrade, helm_upgrade] = of("docs/install.md", "Upgrade")?;
    let [end_of_agents, on_nodes, everywhere, rest, helm_rest] = of("docs/install.md", "Uninstall")?;

    // Onto what is there already: `by_hand_and_by_the_readme` begins with nothing.
    mesh.without_agents()?;
    mesh.follow(&manifests)?;
    installed(mesh, true)?;
    checks(mesh)?;
    the_example(mesh, &example)?;
    mesh.follow(&upgrade)?;
    installed(mesh, true)?;
    mesh.follow(&end_of_agents)?;
    for at in 0..mesh.len() {
        let machine = mesh.machine(at)?;
        let seen = Desk::at(machine)?.follow(&on_nodes)?;
        ensure!(seen.contains("nsm-cni"), "{}: {seen}", machine.name());
    }
    installed(mesh, false)?;
    mesh.follow(&everywhere)?;
    mesh.follow(&rest)?;
    as_before(mesh, "without-manifests")?;

    mesh.follow(&helm)?;
    installed(mesh, true)?;
    mesh.follow(&helm_upgrade)?;
    installed(mesh, true)?;
    mesh.follow(&end_of_agents)?;
    mesh.follow(&everywhere)?;
    installed(mesh, false)?;
    mesh.follow(&helm_rest)?;
    // Those of the definitions are for both.
    mesh.follow(&rest)?;
    as_before(mesh, "without-helm")
}

/// Every agent's pod finds its node in order.
fn checks(mesh: &Mesh) -> anyhow::Result<()> {
    let line = mentioned("docs/install.md", "kubectl -n nsm-system exec POD -- nsmctl check")?;
    for pod in mesh.pods("nsm-system")? {
        let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
        mesh.follow(&[Line { command: line.command.replace("POD", name), ..line.clone() }])?;
    }
    Ok(())
}

fn the_example(mesh: &Mesh, example: &[Line]) -> anyhow::Result<()> {
    // What a connection needs is on one machine.
    for at in 1..mesh.len() {
        mesh.kubectl(&["cordon", mesh.machine(at)?.name()])?;
    }
    mesh.machine(0)?.ctr(&["images", "tag", "--force", BUSYBOX, "docker.io/library/busybox:1.36"])?;
    let seen = mesh.follow(example);
    for at in 1..mesh.len() {
        mesh.kubectl(&["uncordon", mesh.machine(at)?.name()])?;
    }
    let seen = seen?;
    ensure!(seen.contains("172.16.1.1/32"), "{seen}");
    Ok(())
}

/// An agent that is no pod, and what the README begins with.
pub(crate) fn by_hand_and_by_the_readme(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.without_agents()?;
    let machine = mesh.machine(0)?;
    let [by_hand] = of("docs/kubernetes.md", "Set up")?;
    let [for_the_cluster, for_the_node] = by_hand.as_slice() else { bail!("expected two commands: {by_hand:?}") };
    let mut desk = Desk::at(machine)?;
    desk.follow(slice::from_ref(for_the_cluster))?;
    let token = mesh.token_of(machine)?;
    machine.place().write("/etc/nsm/agent.conf", &mesh.kubeconfig_for_machines(&token).to_string())?;
    let agent = desk.start(for_the_node, &[("NSM_NODE_NAME", machine.name())])?;
    serves(machine, &agent)?;
    agent.stop()?;
    machine.place().run(|| fs::remove_file("/etc/nsm/agent.conf"))??;

    let [readme] = of("README.md", "In a cluster")?;
    mesh.follow(&readme)?;
    mesh.rolled_out()?;
    installed(mesh, true)?;
    mesh.follow(&[mentioned("README.md", "kubectl get netsvc,nse -A")?]).map(drop)
}

fn serves(machine: &Machine, agent: &Program) -> anyhow::Result<()> {
    let lists = || machine.nsmctl(&["get", "netsvc", "-o", "json"]);
    patiently("the agent", SOON, lists, |_| true).map(drop).with_context(|| agent.log())
}

/// What a program that goes on has printed, once it has all of that.
fn prints(program: &Program, expected: &str) -> anyhow::Result<()> {
    let all = |log: &String| expected.lines().all(|line| log.lines().any(|printed| printed.trim_end() == line));
    patiently(expected, SOON, || Ok(program.log()), all).map(drop)
}

pub(crate) fn without_a_cluster(mesh: &mut Mesh) -> anyhow::Result<()> {
    // The machine's, with the plugin that stays.
    mesh.kill_agent(0)?;
    let done = alone(mesh.machine(0)?);
    mesh.start_agent(0)?;
    done
}

fn alone(machine: &Machine) -> anyhow::Result<()> {
    let [install] = of("README.md", "Install")?;
    let [endpoint] = of("README.md", "An endpoint")?;
    let [pod] = of("README.md", "A pod, with cnitool")?;
    let [which] = of("README.md", "Which endpoint?")?;
    let [nsc] = of("docs/examples.md", "nsc")?;
    let [make, offer] = endpoint.as_slice() else { bail!("expected two commands: {endpoint:?}") };
    let [apply, describe, watch, plan] = which.as_slice() else { bail!("expected four commands: {which:?}") };
    let [nsc] = nsc.as_slice() else { bail!("expected one command: {nsc:?}") };

    let mut desk = Desk::at(machine)?;
    let agent = desk.start(&Line::of_root("nsm-agent"), &[])?;
    serves(machine, &agent)?;
    desk.follow(&install)?;
    desk.follow(slice::from_ref(make))?;
    let endpoint = desk.start(offer, &[])?;
    registered(machine, "responder-1").with_context(|| endpoint.log())?;
    desk.follow(&pod)?;
    desk.write("service.yaml", &example("README.md", "Which endpoint?", "yaml")?)?;
    desk.follow(slice::from_ref(apply))?;
    desk.follow(slice::from_ref(describe))?;
    let client = desk.start(nsc, &[])?;
    prints(&client, &nsc.shows)?;
    let watch = desk.start(watch, &[])?;
    patiently("a connection", SOON, || Ok(watch.log()), |log| log.contains("nsm-7"))?;
    watch.kill()?;
    desk.follow(slice::from_ref(plan))?;
    for program in [client, endpoint, agent] {
        program.stop()?;
    }
    desk.follow(&[Line::of_root("ip netns del pod"), Line::of_root("ip netns del server")]).map(drop)
}

pub(crate) fn on_pods_and_nodes(mesh: &mut Mesh) -> anyhow::Result<()> {
    let [attach_and_detach] = of("docs/nsmctl.md", "Attach and detach")?;
    let [before_a_move] = of("docs/moving-from-multus.md", "Before")?;
    let [look_around] = of("docs/troubleshooting.md", "Look around")?;
    let machine = mesh.machine(0)?;
    mesh.namespace("shop", &Value::Null)?;
    let mut firewall = endpoint("shop", "firewall-0", machine, "secure-intranet", "172.16.1.2/31");
    for (name, value) in [("NSM_NAME", "firewall-0"), ("NSM_LABELS", "app:firewall")] {
        let variables = firewall["spec"]["containers"][0]["env"].as_array_mut().context("no variables")?;
        variables.retain(|variable| variable["name"] != name);
        variables.push(json!({ "name": name, "value": value }));
    }
    mesh.create(&firewall)?;
    mesh.running("shop", "firewall-0")?;
    registered(machine, "firewall-0")?;
    mesh.create(&idle("shop", "web-0", machine.name()))?;
    mesh.running("shop", "web-0")?;
    let [attach, detach] = attach_and_detach.as_slice() else { bail!("expected two commands: {attach_and_detach:?}") };
    mesh.follow(slice::from_ref(attach))?;
    let mut desk = Desk::at(machine)?;
    let seen = desk.follow(&look_around)?;
    ensure!(seen.contains("alias") && seen.contains("firewall-0"), "{seen}");
    mesh.follow(slice::from_ref(detach))?;

    let config = json!({ "cniVersion": "1.0.0", "name": "usual", "type": "bridge", "bridge": "usual" });
    mesh.define("shop", &[("usual", config)])?;
    multus::install(mesh, machine)?;
    let seen = desk.follow(&before_a_move);
    machine.unconfigure("00-multus.conf")?;
    let seen = seen?;
    ensure!(seen.contains("moving: definitions"), "{seen}");
    Ok(())
}
