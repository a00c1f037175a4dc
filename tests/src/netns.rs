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

/// A network namespace with a path; `Drop` removes the path (the namespace itself lives as long as a process uses it).
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
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
        let namespace = Self { name: name.to_owned(), path };
        namespace.run(allow_ping)?.with_context(|| format!("preparing network namespace {name}"))?;
        Ok(namespace)
    }

    /// The last part of its path.
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
        umount2(&self.path, MntFlags::MNT_DETACH).ok();
        fs::remove_file(&self.path).ok();
    }
}

/// Lets ICMP datagram sockets be opened, and takes the loopback up, in the thread's namespace.
pub(crate) fn allow_ping() -> anyhow::Result<()> {
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0\n").context("net.ipv4.ping_group_range")?;
    let mut socket = NetnsSocket::open(&Netns::current()?)?;
    let loopback = socket.link_by_name(&IfName::new("lo")?)?.context("no loopback")?;
    socket.configure(loopback.index, &LinkConfig { up: true, ..LinkConfig::default() }).context("loopback")?;
    Ok(())
}
