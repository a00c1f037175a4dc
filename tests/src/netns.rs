//! Named network namespaces, as `ip netns` and container runtimes keep them.
//!
//! Guarantee: no thread comes home from a namespace. What runs inside one runs on a thread made for it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nsm_netlink::{IfName, LinkConfig, Netns, NetnsSocket};

use crate::sandbox::NETNS_DIR;

/// netdevice(7).
const IFF_UP: u32 = 1;

/// Who may open ICMP datagram sockets, in the namespace of who looks.
const PING_GROUPS: &str = "/proc/sys/net/ipv4/ping_group_range";

/// A network namespace with a path; `Drop` removes the path (the namespace itself lives as long as a process uses it).
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    owner: Owner,
}

/// Who made the path of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Lab,
    Kernel,
}

impl Namespace {
    /// Makes a namespace with its loopback up, at `/run/netns/NAME`.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        let path = Path::new(NETNS_DIR).join(name);
        File::create_new(&path).with_context(|| format!("network namespace {name} exists already"))?;
        let target = path.clone();
        let made = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        })
        .join()
        .unwrap_or(Err(nix::Error::EINTR));
        if let Err(error) = made {
            fs::remove_file(&path).ok();
            return Err(error).with_context(|| format!("network namespace {name}"));
        }
        let namespace = Self { name: name.to_owned(), path, owner: Owner::Lab };
        namespace.run(allow_ping)?.with_context(|| format!("preparing network namespace {name}"))?;
        Ok(namespace)
    }

    /// That of a running process, which somebody else made; `name` is what it is called here.
    pub fn of_process(name: &str, pid: u32) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let namespace = Self { name: name.to_owned(), path, owner: Owner::Kernel };
        let groups = || fs::write(PING_GROUPS, "0 0\n").context(PING_GROUPS);
        namespace.run(groups)?.with_context(|| format!("network namespace of process {pid}"))?;
        Ok(namespace)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a runtime passes as `CNI_NETNS`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `inode://DEV/INO` of the namespace's file.
    pub fn inode_url(&self) -> anyhow::Result<String> {
        let meta = fs::metadata(&self.path)?;
        Ok(format!("inode://{}/{}", meta.dev(), meta.ino()))
    }

    /// Runs `work` inside, on a throw-away thread. Sockets and processes made there stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let file = File::open(&self.path).with_context(|| format!("network namespace {}", self.path.display()))?;
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(file, CloneFlags::CLONE_NEWNET).context("setns")?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Takes an interface of it down, as an operator would.
    pub fn take_down(&self, link: &str) -> anyhow::Result<()> {
        self.run(|| {
            // A sysfs shows the network namespace that it was mounted in: this thread gets one of its own.
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).context("/sys")?;
            let path = Path::new("/sys/class/net").join(link).join("flags");
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let flags = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16)?;
            fs::write(&path, format!("{:#x}", flags & !IFF_UP)).context("taking the interface down")
        })?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        match self.owner {
            Owner::Lab => {
                umount2(&self.path, MntFlags::MNT_DETACH).ok();
                fs::remove_file(&self.path).ok();
            }
            Owner::Kernel => {}
        }
    }
}

/// Lets ICMP datagram sockets be opened, and takes the loopback up, in the thread's namespace.
pub(crate) fn allow_ping() -> anyhow::Result<()> {
    fs::write(PING_GROUPS, "0 0\n").context(PING_GROUPS)?;
    let mut socket = NetnsSocket::open(&Netns::current()?)?;
    let loopback = socket.link_by_name(&IfName::new("lo")?)?.context("no loopback")?;
    socket.configure(loopback.index, &LinkConfig { up: true, ..LinkConfig::default() }).context("loopback")?;
    Ok(())
}
