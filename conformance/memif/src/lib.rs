//! DPDK's test program with its memif driver (`net_memif`), as another process; and the packets that any peer sends back.
//!
//! Guarantees: it ends with its owner. It uses no hugepages, no PCI devices and a name of its own, so several run side by side.
//!
//! It forwards only between `start` and `stop`: DPDK 22.11 unmaps a peer's memory while its forwarding thread may be reading it, so a test that
//! disconnects stops it first.
#![forbid(unsafe_code)]

pub mod traffic;

use std::{
    fs,
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

const PROGRAM: &str = "dpdk-testpmd";
/// Most machines take two seconds to start it; one whose processors all poll takes longer.
const START: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(5);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running testpmd with one memif.
#[derive(Debug)]
pub struct Testpmd {
    child: Child,
    stdin: ChildStdin,
    said: Arc<Mutex<String>>,
    complains: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    /// What it leaves behind when it is killed, if it may write there.
    traces: PathBuf,
}

/// Which of its two processors forwards; the other is told what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwards {
    /// The first of those that this process may use.
    First,
    /// The second of them, or the first again.
    Second,
}

/// What it counted between `start` and `stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
}

impl Testpmd {
    /// Starts it with a device such as `role=server,id=0,socket=PATH,socket-abstract=no` and a forwarding mode (`io` sends back, `flowgen`
    /// and `txonly` send).
    ///
    /// # Errors
    /// It is not installed, or ends at once.
    pub fn start(device: &str, forward: &str, memory: &[&str]) -> anyhow::Result<Self> {
        Self::start_on(device, forward, memory, Forwards::First)
    }

    /// The same with the processor that forwards.
    ///
    /// # Errors
    /// It is not installed, or ends at once.
    pub fn start_on(device: &str, forward: &str, memory: &[&str], on: Forwards) -> anyhow::Result<Self> {
        let main = match on {
            Forwards::First => "1",
            Forwards::Second => "0",
        };
        let prefix = format!("memif-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Into a pipe it would say nothing until a buffer is full.
        let mut command = Command::new("stdbuf");
        command.args(["-o0", PROGRAM]);
        command.args([
            "--lcores",
            &lcores()?,
            "--main-lcore",
            main,
            "--no-pci",
            "--no-huge",
            "-m",
            "256",
            "--no-telemetry",
        ]);
        command.args(memory).arg(format!("--file-prefix={prefix}")).arg(format!("--vdev=net_memif0,{device}"));
        command.args(["--", "-i", "--total-num-mbufs=8192", "--nb-cores=1", "--port-topology=loop", "--no-mlockall"]);
        command.arg(format!("--forward-mode={forward}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{PROGRAM}: is the package dpdk-dev installed?"))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let said = Arc::new(Mutex::new(String::new()));
        let complains = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            hear(child.stdout.take().context("no stdout")?, Arc::clone(&said)),
            // Here EAL says why it does not start.
            hear(child.stderr.take().context("no stderr")?, Arc::clone(&complains)),
        ];
        let traces = Path::new("/var/run/dpdk").join(&prefix);
        let mut testpmd = Self { child, stdin, said, complains, readers, traces };
        testpmd.await_words("testpmd>", 0)?;
        Ok(testpmd)
    }

    /// Begins to forward.
    ///
    /// # Errors
    /// It has ended.
    pub fn forward(&mut self) -> anyhow::Result<()> {
        self.command("start", "packet forwarding - ports").map(|_| ())
    }

    /// Ends it, and tells what passed.
    ///
    /// # Errors
    /// It has ended, or says something else than is known.
    pub fn stop(&mut self) -> anyhow::Result<Forwarded> {
        let said = self.command("stop", "Done.")?;
        let accumulated = said.split("Accumulated").nth(1).with_context(|| format!("no totals in {said}"))?;
        let count = |name: &str| {
            let words = accumulated.split_whitespace().skip_while(|word| *word != name).nth(1);
            words.and_then(|word| word.parse().ok()).with_context(|| format!("no {name} in {accumulated}"))
        };
        Ok(Forwarded { received: count("RX-packets:")?, sent: count("TX-packets:")? })
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn command(&mut self, words: &str, until: &str) -> anyhow::Result<String> {
        let from = self.heard();
        writeln!(self.stdin, "{words}").with_context(|| format!("{PROGRAM} has ended: {}", self.tail()))?;
        // The first prompt is what the command was typed at.
        self.await_words(until, from + words.len())
    }

    fn heard(&self) -> usize {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn tail(&self) -> String {
        let [said, complains] = [&self.said, &self.complains].map(|text| {
            let text = text.lock().unwrap_or_else(PoisonError::into_inner);
            text.chars().skip(text.chars().count().saturating_sub(1500)).collect::<String>()
        });
        format!("{said}\n{complains}")
    }

    /// What it says from there on, once these words are among it.
    fn await_words(&mut self, words: &str, from: usize) -> anyhow::Result<String> {
        let began = Instant::now();
        loop {
            let said =
                self.said.lock().unwrap_or_else(PoisonError::into_inner).get(from..).unwrap_or_default().to_owned();
            if said.contains(words) {
                return Ok(said);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{PROGRAM} ended with {status}: {}", self.tail());
            }
            if began.elapsed() > START {
                bail!("{PROGRAM} does not say {words:?}: {}", self.tail());
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let _ = fs::remove_dir_all(&self.traces);
    }
}

/// Two threads of DPDK's, on processors that this process may use: on the same one where there is no other.
fn lcores() -> anyhow::Result<String> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    let mut processors = (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor).unwrap_or(false));
    let first = processors.next().context("no processor may be used")?;
    let second = processors.next().unwrap_or(first);
    Ok(format!("0@{first},1@{second}"))
}

/// Collects what comes out of a pipe.
fn hear(mut pipe: impl Read + Send + 'static, said: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut part) {
            let text = String::from_utf8_lossy(&part[..count]).into_owned();
            said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    })
}

/// The device of a server or client at a socket file.
pub fn device(role: &str, socket: &Path, more: &str) -> String {
    format!("role={role},socket={},socket-abstract=no{more}", socket.display())
}
