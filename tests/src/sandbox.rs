//! The namespaces of a lab process: entered before anything else runs.
//!
//! Guarantees:
//! - Own network, mount, PID and IPC namespaces; a private tmpfs on `/run`. Root uses them directly, anybody else (and
//!   root without `CAP_SYS_ADMIN`) through a user namespace.
//! - The lab process is PID 1 of its PID namespace and dies with the process that was started: whatever it leaves running
//!   is ended by the kernel, also on SIGKILL.
//!
//! Two processes: the one that was started (*outer*) makes the namespaces, starts its own executable again as PID 1
//! (*inner*) and passes on its exit code.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, exit};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getgid, getpid, getuid};

use crate::netns::allow_ping;

/// Where named network namespaces are.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// Set for the inner process: the outer one's process id.
const INSIDE: &str = "NSM_LAB_INSIDE";

const SPACES: CloneFlags = CloneFlags::CLONE_NEWNET
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC);

const ADVICE: &str = "a lab needs network namespaces of its own: either root (CAP_SYS_ADMIN), or user namespaces for \
    ordinary users. To allow them, as root, what applies here: `sysctl -w user.max_user_namespaces=10000`; Debian: `sysctl \
    -w kernel.unprivileged_userns_clone=1`; Ubuntu 24.04 and later: `sysctl -w \
    kernel.apparmor_restrict_unprivileged_userns=0`; in a container: start it with `--privileged`";

/// The sandbox that this process is in.
#[derive(Debug)]
pub struct Sandbox {
    outer_pid: String,
    inner_pid: String,
}

impl Sandbox {
    /// The command that opens a shell inside, for whoever debugs.
    pub fn shell(&self) -> String {
        let user = if own_user_namespace() { " --user --preserve-credentials" } else { "" };
        format!("nsenter --target {}{user} --net --mount --pid --ipc bash", self.inner_pid)
    }

    /// The process to kill in order to end all of it, as seen from outside.
    pub fn outer_pid(&self) -> &str {
        &self.outer_pid
    }
}

/// Enters the lab's namespaces. Returns only in the inner process; the outer one waits for it and exits as it did.
///
/// # Errors
/// With advice, where neither root nor user namespaces are to be had.
pub fn enter() -> anyhow::Result<Sandbox> {
    if let (Some(outer), 1) = (std::env::var_os(INSIDE), getpid().as_raw()) {
        return settle(&outer);
    }
    if let Err(errno) = unshare(SPACES) {
        if errno != Errno::EPERM {
            bail!("cannot make namespaces: {errno}; {ADVICE}");
        }
        own_user()?;
        unshare(SPACES)
            .map_err(|errno| anyhow::anyhow!("cannot make namespaces as an ordinary user: {errno}; {ADVICE}"))?;
    }
    private_run().context("a private /run")?;

    // By path, not /proc/self/exe: programs beside it are found by its path.
    let mut inner = Command::new(std::env::current_exe().context("path of this program")?);
    inner.args(std::env::args_os().skip(1)).env(INSIDE, std::process::id().to_string());
    let status = inner.status().context("starting the lab's inner process")?;
    exit(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// Becomes root of a user namespace in which the caller is the only user.
fn own_user() -> anyhow::Result<()> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| anyhow::anyhow!("cannot make a user namespace: {errno}; {ADVICE}"))?;
    fs::write("/proc/self/setgroups", "deny").context("setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("uid_map")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("gid_map")
}

fn own_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.contains("4294967295"))
}

fn private_run() -> anyhow::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("private mounts")?;
    tmpfs(Path::new("/run"), "mode=0755")?;
    fs::create_dir(NETNS_DIR).context(NETNS_DIR)
}

/// Mounts a tmpfs; `options` as in mount(8), e.g. `size=64k`.
pub fn tmpfs(at: &Path, options: &str) -> anyhow::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options)).with_context(|| format!("tmpfs on {}", at.display()))
}

/// The inner process's part.
fn settle(outer: &OsString) -> anyhow::Result<Sandbox> {
    set_pdeathsig(Signal::SIGKILL).context("PR_SET_PDEATHSIG")?;
    // While /proc is still the outer one, it tells how this process is called out there.
    let inner_pid = fs::read_link("/proc/self").context("/proc/self")?.display().to_string();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).context("mounting /proc of the lab's processes")?;
    allow_ping()?;
    Ok(Sandbox { outer_pid: outer.to_string_lossy().into_owned(), inner_pid })
}
