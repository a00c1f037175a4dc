//! The shipped systemd unit under a systemd of the test's own: PID 1 of namespaces inside the lab's, with units of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::mount::{MsFlags, mount};
use nsm_lab::{Endpoint, Node, Pinger, Program, binary, eventually, runner, sandbox};

use crate::{IFNAME, SERVICE};

const UNIT: &str = "nsm-agent";
const BOOT: Duration = Duration::from_secs(20);
const BOUND: Duration = Duration::from_secs(10);
/// Longer than any test takes.
const STALE: Duration = Duration::from_mins(30);
const PACE: Duration = Duration::from_millis(20);

const SYSTEMD: &str = "/lib/systemd/systemd";
/// Units that this systemd knows; none of the machine's.
const UNITS: &str = "/run/units";
const EMPTY: &str = "/run/no-generators";
const CGROUPS: &str = "/run/cgroup2";
const PREFIX: &str = "nsm-lab-";
/// What the shipped unit is ordered by or needs.
const TARGETS: [&str; 7] = ["lab", "sysinit", "basic", "shutdown", "multi-user", "local-fs", "network-pre"];

/// The shell makes the namespaces, in which systemd then finds what it expects: its own /proc, and a cgroup that is the root.
const INSIDE: &str = r#"
echo $$ > "$1/cgroup.procs" &&
exec unshare --cgroup --pid --mount --propagation slave --fork --kill-child sh -c '
    mount --make-rshared / &&
    mount -t proc proc /proc &&
    { umount -R /sys/fs/cgroup || true; } &&
    mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
    exec "$0" --system --unit=lab.target --log-target=console --show-status=no --default-standard-output=null
' "$2"
"#;

/// A booted systemd; it ends with the value, and its cgroup goes.
struct Systemd {
    // Ends before its cgroup is removed.
    program: Option<Program>,
    cgroup: PathBuf,
    /// systemd's process id, in the lab.
    pid: String,
}

impl Systemd {
    fn boot(node: &Node) -> anyhow::Result<Self> {
        for program in [SYSTEMD, "/usr/bin/systemctl", "/usr/bin/unshare", "/usr/bin/nsenter"] {
            if !Path::new(program).is_file() {
                return Err(runner::Skip(format!("{program} is not there: install systemd and util-linux")).into());
            }
        }
        let cgroup = cgroup().map_err(|error| runner::Skip(format!("no cgroup of its own for systemd: {error:#}")))?;
        let mut systemd = Self { program: None, cgroup, pid: String::new() };
        // Where the unit keeps its state; the lab's /run is its own already.
        sandbox::tmpfs(Path::new("/var/lib"), "mode=0755")?;
        units()?;
        // What is mounted from now on, pods' namespaces, is to appear in there.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", INSIDE, "systemd"])
            .arg(&systemd.cgroup)
            .arg(SYSTEMD)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("container", "nsm-lab")
            .env("SYSTEMD_UNIT_PATH", UNITS)
            .env("SYSTEMD_GENERATOR_PATH", EMPTY)
            .env("SYSTEMD_ENVIRONMENT_GENERATOR_PATH", EMPTY);
        let program = Program::start("systemd", &mut command, node.namespace(), &node.dir().join("systemd.log"))?;
        let pid = program.pid();
        systemd.program = Some(program);
        let children = || Ok(fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?.trim().to_owned());
        systemd.pid = eventually("systemd's process", BOOT, children, |pid| !pid.is_empty())?;
        eventually("systemd", BOOT, || systemd.control(&["is-active", "lab.target"]), |state| state == "active")?;
        Ok(systemd)
    }

    /// What systemctl prints. systemd answers those alone whose process it can see.
    fn control(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("/usr/bin/nsenter");
        command.args(["--target", &self.pid, "--mount", "--pid", "--cgroup", "/usr/bin/systemctl"]).args(args);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            let log = fs::read_to_string("/run/agent.log").unwrap_or_default();
            bail!("systemctl {args:?}: {} {text} {}\n{log}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }

    fn property(&self, name: &str) -> anyhow::Result<String> {
        self.control(&["show", UNIT, "--value", "-p", name])
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        drop(self.program.take());
        let gone = || Ok(remove(&self.cgroup) || !self.cgroup.exists());
        if let Err(error) = eventually("removal of the cgroup", BOUND, gone, |gone| *gone) {
            eprintln!("{error:#}");
        }
    }
}

/// A cgroup below the machine's root, in the unified hierarchy.
fn cgroup() -> anyhow::Result<PathBuf> {
    fs::create_dir_all(CGROUPS)?;
    mount(Some("cgroup2"), CGROUPS, Some("cgroup2"), MsFlags::empty(), None::<&str>).context("mounting cgroup2")?;
    // Of tests that were killed. One that is in use cannot be removed, a young one may be about to be used.
    for entry in fs::read_dir(CGROUPS)?.filter_map(Result::ok) {
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && age > STALE {
            remove(&entry.path());
        }
    }
    let unique = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let cgroup = Path::new(CGROUPS).join(format!("{PREFIX}{}", unique.trim()));
    fs::create_dir(&cgroup)?;
    Ok(cgroup)
}

/// Removes a cgroup and those below it; whether it is gone.
fn remove(cgroup: &Path) -> bool {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    fs::remove_dir(cgroup).is_ok()
}

fn units() -> anyhow::Result<()> {
    let changes = Path::new(UNITS).join(format!("{UNIT}.service.d"));
    fs::create_dir_all(&changes)?;
    fs::create_dir_all(EMPTY)?;
    for target in TARGETS {
        let text = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n");
        fs::write(Path::new(UNITS).join(format!("{target}.target")), text)?;
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nsm-agent.service");
    fs::copy(shipped, Path::new(UNITS).join(format!("{UNIT}.service")))?;
    // Where the program is, and where its log goes without a journal: all else is as shipped.
    let agent = binary("nsm-agent")?;
    let change = format!("[Service]\nExecStart=\nExecStart={}\nStandardError=append:/run/agent.log\n", agent.display());
    Ok(fs::write(changes.join("lab.conf"), change)?)
}

/// A node whose agent is where the unit has it.
fn node() -> anyhow::Result<Node> {
    let node = Node::create("node-1")?;
    fs::remove_dir(node.state_dir())?;
    fs::remove_dir(node.run_dir())?;
    symlink("/var/lib/nsm", node.state_dir())?;
    symlink("/run/nsm/state", node.run_dir())?;
    symlink("/run/nsm/cni.sock", node.cni_socket())?;
    symlink("/var/lib/networkservicemesh/nsm.io.sock", node.nsm_socket())?;
    Ok(node)
}

pub(crate) fn under_systemd() -> anyhow::Result<()> {
    let node = node()?;
    let systemd = Systemd::boot(&node)?;
    // Type=notify: started is ready.
    systemd.control(&["start", UNIT])?;
    ensure!(node.connections()?.is_empty());
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);

    // The sandbox of the unit lets through what the agent must do.
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    pod.ping(added.peer(false)?)?;
    node.cni().check(&pod, IFNAME, &conf, &added.json)?.ok()?;

    let pinger = Pinger::start(pod.namespace(), added.peer(false)?, PACE)?;
    systemd.control(&["restart", UNIT])?;
    node.cni().check(&pod, IFNAME, &conf, &added.json)?.ok()?;
    let first = systemd.property("MainPID")?;
    systemd.control(&["kill", "--signal=KILL", UNIT])?;
    let again = || Ok((systemd.property("MainPID")?, systemd.property("ActiveState")?));
    let restarted = |(pid, state): &(String, String)| *pid != first && pid != "0" && state == "active";
    eventually("a new agent", BOUND, again, restarted)?;
    ensure!(node.connections()?.len() == 1, "the restarted agent does not know the connection");
    node.cni().check(&pod, IFNAME, &conf, &added.json)?.ok()?;
    let pings = pinger.stop_behind(5);
    ensure!(pings.lost == 0, "{pings:?}");

    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)?;
    ensure!(node.connections()?.is_empty());
    systemd.control(&["stop", UNIT])?;
    ensure!(
        systemd.property("ActiveState")? == "inactive" && systemd.property("Result")? == "success",
        "{}",
        systemd.property("Result")?
    );
    ensure!(fs::exists("/run/nsm/state")?, "the records went with the agent");
    Ok(())
}

/// Wrong settings do not mend themselves: said once, not tried again.
pub(crate) fn with_wrong_settings() -> anyhow::Result<()> {
    let node = node()?;
    let systemd = Systemd::boot(&node)?;
    let wrong = "[Service]\nEnvironment=NSM_METRICS=nonsense\n";
    fs::write(Path::new(UNITS).join(format!("{UNIT}.service.d/wrong.conf")), wrong)?;
    systemd.control(&["daemon-reload"])?;
    ensure!(systemd.control(&["start", UNIT]).is_err());
    ensure!(systemd.property("ActiveState")? == "failed", "{}", systemd.property("ActiveState")?);
    ensure!((systemd.property("ExecMainStatus")?.as_str(), systemd.property("NRestarts")?.as_str()) == ("2", "0"));
    let log = fs::read_to_string("/run/agent.log")?;
    ensure!(log.contains("nonsense"), "{log}");
    Ok(())
}
