//! A VPP for tests: another process, in a folder and a network namespace of its own.
//!
//! Guarantees: it ends with its owner; whatever it makes (sockets, files, interfaces on the host's side) goes with its folder and its
//! namespace; it takes no hugepages unless it is told to. Several run side by side. It needs root, as VPP does.
#![forbid(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

const PROGRAM: &str = "vpp";
/// Half a second on an idle machine.
const START: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(10);

/// Where VPP's packet buffers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffers {
    /// In pages as everything is: 64 MiB.
    Pages,
    /// In 2-MiB pages, of which the machine has to have some, so many buffers.
    Hugepages(u32),
}

/// A VPP, running or killed.
#[derive(Debug)]
pub struct Vpp {
    child: Option<Child>,
    folder: TempDir,
    netns: OwnedFd,
}

impl Vpp {
    /// Starts one, and waits until somebody answers at its API socket.
    ///
    /// # Errors
    /// It is not installed, or does not start: with what it said.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(Buffers::Pages)
    }

    /// The same with the buffers elsewhere.
    ///
    /// # Errors
    /// As [`Vpp::start`].
    pub fn start_with(buffers: Buffers) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("startup.conf"), configuration(folder.path(), buffers))?;
        let netns = thread::spawn(|| -> anyhow::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace for VPP: root can make one")?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let netns = netns.join().map_err(|_| anyhow::anyhow!("the thread that makes a namespace panicked"))??;
        let mut vpp = Self { child: None, folder, netns };
        vpp.start_again()?;
        Ok(vpp)
    }

    /// Starts it, where it was killed before: in the same folder, with what the last one left there.
    ///
    /// # Errors
    /// As [`Vpp::start`].
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "VPP runs: expected it to be killed before");
        let log = File::create(self.log())?;
        let mut command = Command::new(PROGRAM);
        command.arg("-c").arg(self.file("startup.conf"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = self.inside(move || command.spawn())?;
        self.child = Some(child.with_context(|| format!("{PROGRAM}: it has to be in PATH, with its plugins"))?);
        self.await_api()
    }

    fn await_api(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while let Err(error) = UnixStream::connect(self.api_socket()) {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                bail!("{PROGRAM} ended with {status}: {}", self.said());
            }
            if began.elapsed() > START {
                bail!("{}: {error} after {START:?}: {}", self.api_socket().display(), self.said());
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends it as a crash does: without a chance to say or remove anything.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Has it hang, until [`Vpp::go_on`].
    ///
    /// # Errors
    /// It does not run.
    pub fn hang(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Ends that.
    ///
    /// # Errors
    /// It does not run.
    pub fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("VPP does not run")?;
        Ok(kill(Pid::from_raw(child.id().cast_signed()), signal)?)
    }

    /// What `ip` says in VPP's network namespace.
    ///
    /// # Errors
    /// It fails: with what it said.
    pub fn ip(&self, arguments: &str) -> anyhow::Result<String> {
        let mut command = Command::new("ip");
        command.args(arguments.split_whitespace());
        let Output { status, stdout, stderr } = self.inside(move || command.output())?.context("ip")?;
        ensure!(status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&stderr));
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// On a thread in VPP's network namespace, which ends with that.
    fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> anyhow::Result<io::Result<T>> {
        let netns = self.netns.try_clone()?;
        let thread = thread::spawn(move || -> io::Result<T> {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread.join().map_err(|_| anyhow::anyhow!("a thread in VPP's namespace panicked"))
    }

    /// Its network namespace, which stays when it is killed.
    pub const fn netns(&self) -> &OwnedFd {
        &self.netns
    }

    /// Its API socket.
    pub fn api_socket(&self) -> PathBuf {
        self.file("api.sock")
    }

    /// The socket of its statistics.
    pub fn stats_socket(&self) -> PathBuf {
        self.file("stats.sock")
    }

    /// A name in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> PathBuf {
        self.file("log")
    }

    /// What it has printed since it was started last, the end of it.
    pub fn said(&self) -> String {
        let said = fs::read_to_string(self.log()).unwrap_or_default();
        said.chars().skip(said.chars().count().saturating_sub(2000)).collect()
    }
}

impl Drop for Vpp {
    fn drop(&mut self) {
        self.kill();
    }
}

/// No more than it takes to run.
fn configuration(folder: &Path, buffers: Buffers) -> String {
    let at = folder.display();
    let buffers = match buffers {
        Buffers::Pages => "page-size 4k".to_owned(),
        Buffers::Hugepages(count) => format!("page-size 2m buffers-per-numa {count}"),
    };
    format!(
        "unix {{ nodaemon nosyslog runtime-dir {at} cli-listen {at}/cli.sock }}\n\
         memory {{ main-heap-size 256M main-heap-page-size 4k }}\nbuffers {{ {buffers} }}\n\
         socksvr {{ socket-name {at}/api.sock }}\nstatseg {{ socket-name {at}/stats.sock page-size 4k }}\n\
         plugins {{ plugin dpdk_plugin.so {{ disable }} }}\n"
    )
}

/// The folder of definitions that is installed with it.
///
/// # Errors
/// VPP is not in `PATH`, or has none beside it.
pub fn definitions() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|program| program.is_file());
    let program = program.with_context(|| format!("{PROGRAM} is not in PATH"))?.canonicalize()?;
    let prefix = program.parent().and_then(Path::parent).context("VPP lies in no folder")?;
    let found = prefix.join("share/vpp/api");
    ensure!(found.is_dir(), "{}: expected VPP's definitions there", found.display());
    Ok(found)
}
