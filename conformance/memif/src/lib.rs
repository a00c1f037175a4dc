//! DPDK's test program with its memif driver (`net_memif`), as another process.
//!
//! Guarantees: it ends with its owner. It uses no hugepages, no PCI devices and a name of its own, so several run side by side.
//!
//! It forwards only between `start` and `stop`: DPDK 22.11 unmaps a peer's memory while its forwarding thread may be reading it, so a test that
//! disconnects stops it first.
#![forbid(unsafe_code)]

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

const PROGRAM: &str = "dpdk-testpmd";
/// Most machines take two seconds to start it.
const START: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(5);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running testpmd with one memif.
#[derive(Debug)]
pub struct Testpmd {
    child: Child,
    stdin: ChildStdin,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
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
        Self::start_on(device, forward, memory, "0,1", "1")
    }

    /// The same with the processors that it uses, and which of them does not forward.
    ///
    /// # Errors
    /// It is not installed, or ends at once.
    pub fn start_on(
        device: &str,
        forward: &str,
        memory: &[&str],
        processors: &str,
        main: &str,
    ) -> anyhow::Result<Self> {
        let prefix = format!("memif-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Into a pipe it would say nothing until a buffer is full.
        let mut command = Command::new("stdbuf");
        command.args(["-o0", PROGRAM]);
        command.args(["-l", processors, "--main-lcore", main, "--no-pci", "--no-huge", "-m", "256", "--no-telemetry"]);
        command.args(memory).arg(format!("--file-prefix={prefix}")).arg(format!("--vdev=net_memif0,{device}"));
        command.args(["--", "-i", "--total-num-mbufs=8192", "--nb-cores=1", "--port-topology=loop", "--no-mlockall"]);
        command.arg(format!("--forward-mode={forward}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("{PROGRAM}: is the package dpdk-dev installed?"))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let mut stdout = child.stdout.take().context("no stdout")?;
        let said = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&said);
        let reader = thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut part) {
                let text = String::from_utf8_lossy(&part[..count]).into_owned();
                hears.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        let mut testpmd = Self { child, stdin, said, reader: Some(reader) };
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
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.chars().rev().take(1500).collect::<Vec<_>>().into_iter().rev().collect()
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
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The device of a server or client at a socket file.
pub fn device(role: &str, socket: &Path, more: &str) -> String {
    format!("role={role},socket={},socket-abstract=no{more}", socket.display())
}
