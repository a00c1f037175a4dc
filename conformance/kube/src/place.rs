//! Where a machine's programs run: a network and a tree of mounts of its own.
//!
//! Guarantees: what is written below [`PRIVATE`] and [`FRESH`] is seen by the machine's programs only and gone with them. Mounts
//! made there reach the containers that ask for them, as on a real host, and no other machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nsm_lab::sandbox::tmpfs;
use nsm_lab::{Namespace, Program};

/// Directories of the host that a machine sees and changes only for itself.
const PRIVATE: [&str; 4] = ["/etc", "/opt", "/var/lib", "/var/log"];

/// Directories that begin empty.
const FRESH: [&str; 11] = [
    "/run/netns",
    "/run/nsm",
    "/run/containerd",
    "/run/runc",
    "/etc/cni/net.d",
    "/opt/cni/bin",
    "/var/lib/cni",
    "/var/lib/nsm",
    "/var/lib/networkservicemesh",
    "/var/log/pods",
    "/var/log/containers",
];

/// What a kubelet would set for the whole kernel, the host's too. It finds these values and lets them be.
const KERNEL: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A machine's network and mounts.
#[derive(Debug)]
pub struct Place {
    network: Namespace,
    mounts: File,
    dir: PathBuf,
}

impl Place {
    /// With `dir` for its files.
    pub(crate) fn create(name: &str, dir: &Path) -> anyhow::Result<Self> {
        let network = Namespace::create(name)?;
        let made = thread::scope(|scope| scope.spawn(|| mounts(dir)).join());
        let mounts = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Self { network, mounts, dir: dir.to_owned() })
    }

    /// Its network alone.
    pub const fn network(&self) -> &Namespace {
        &self.network
    }

    /// Where its logs and other files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs `work` there, on a throw-away thread.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let network = File::open(self.network.path())?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                // A thread that shares its root and working directory cannot change mount namespaces.
                unshare(CloneFlags::CLONE_FS).context("unshare")?;
                setns(&self.mounts, CloneFlags::CLONE_NEWNS).context("setns of mounts")?;
                setns(network, CloneFlags::CLONE_NEWNET).context("setns of network")?;
                anyhow::Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a program there.
    pub fn start(&self, name: &str, command: &mut Command) -> anyhow::Result<Program> {
        let log = self.dir.join(format!("{name}.log"));
        Program::start_by(name, command, &log, |command| self.run(|| command.spawn()))
    }

    /// Runs a program there to its end; its standard output.
    pub fn output(&self, command: &mut Command) -> anyhow::Result<String> {
        let words = format!("{command:?}");
        let output = self.run(|| command.output())?.with_context(|| words.clone())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{words}: {}: {}", output.status, stderr.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes a file there, with its directories.
    pub fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let write = || {
            let path = Path::new(path);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            fs::write(path, text)
        };
        self.run(write)?.with_context(|| path.to_owned())
    }

    /// The names in a directory there; none where it is missing.
    pub fn list(&self, path: &str) -> anyhow::Result<Vec<String>> {
        self.run(|| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let mut names: Vec<String> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        })
    }

    /// A file there; empty where it is missing.
    pub fn read(&self, path: &str) -> anyhow::Result<String> {
        self.run(|| fs::read_to_string(path).unwrap_or_default())
    }
}

/// Makes a mount namespace for this thread.
fn mounts(dir: &Path) -> anyhow::Result<File> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).context("unshare")?;
    for path in PRIVATE {
        overlay(Path::new(path), &dir.join("over"))?;
    }
    for path in FRESH {
        fs::create_dir_all(path).with_context(|| path.to_owned())?;
        tmpfs(Path::new(path), "mode=0755")?;
    }
    // Of its own, or who looks for the file system of other files finds these.
    fs::create_dir_all(dir.join("kernel"))?;
    tmpfs(&dir.join("kernel"), "size=64k")?;
    for (name, value) in KERNEL {
        let decoy = dir.join("kernel").join(name);
        fs::create_dir_all(decoy.parent().unwrap_or(dir))?;
        fs::write(&decoy, format!("{value}\n"))?;
        bind(&decoy, &Path::new("/proc/sys").join(name))?;
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)
        .context("shared mounts")?;
    File::open("/proc/thread-self/ns/mnt").context("mount namespace")
}

fn overlay(path: &Path, dir: &Path) -> anyhow::Result<()> {
    let name = path.display().to_string().replace('/', "-");
    let [upper, work] = ["upper", "work"].map(|part| dir.join(format!("{part}{name}")));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let options = format!("lowerdir={},upperdir={},workdir={}", path.display(), upper.display(), work.display());
    mount(Some("overlay"), path, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("overlay on {}", path.display()))
}

fn bind(from: &Path, to: &Path) -> anyhow::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).with_context(|| to.display().to_string())
}
