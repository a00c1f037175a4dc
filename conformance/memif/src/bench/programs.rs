//! memif-gen as another process, and DPDK's program at the other end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nsm_memif_peers::{Forwards, Testpmd, device};

/// Bytes of a frame.
pub(crate) const SIZE: &str = "64";
/// How long a socket takes to be there.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Packets per second for the latency.
const PACE: &str = "2000";

/// Which programs, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) memif_gen: PathBuf,
    pub(crate) each: Duration,
}

/// Who sends to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pair {
    Ours,
    OursToDpdk,
    DpdkToOurs,
    Dpdk,
}

/// Two processors that this process may use: the same one where there is no other.
pub(crate) fn processors() -> anyhow::Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    let mut processors = (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor).unwrap_or(false));
    let first = processors.next().context("no processor may be used")?;
    Ok([first, processors.next().unwrap_or(first)])
}

/// Keeps the thread that calls on one processor.
pub(crate) fn pin(processor: usize) {
    pin_process(Pid::from_raw(0), processor);
}

fn pin_process(process: Pid, processor: usize) {
    let mut set = CpuSet::new();
    // One that is not let stays where it is.
    let _ = set.set(processor).and_then(|()| sched_setaffinity(process, &set));
}

/// A memif-gen that ends with its owner.
struct Gen(Child);

impl Gen {
    /// On one processor: an end that polls has it for itself.
    fn start(programs: &Programs, socket: &Path, processor: usize, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(&programs.memif_gen);
        command.arg("--socket").arg(socket).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("{}: cargo build --release -p memif-programs", programs.memif_gen.display()))?;
        pin_process(pid(&child), processor);
        Ok(Self(child))
    }

    /// What it tells at its end.
    fn end(mut self) -> anyhow::Result<String> {
        let mut said = String::new();
        let mut stdout = self.0.stdout.take().context("no stdout")?;
        std::io::Read::read_to_string(&mut stdout, &mut said)?;
        Ok(said)
    }

    fn stop(self) -> anyhow::Result<String> {
        kill(pid(&self.0), Signal::SIGTERM)?;
        self.end()
    }

    /// What all its threads have taken of processors so far.
    fn took(&self) -> anyhow::Result<Duration> {
        let mut took = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let file = thread?.path().join("schedstat");
            let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
            let first = text.split_whitespace().next().with_context(|| format!("{} is empty", file.display()))?;
            took += Duration::from_nanos(first.parse()?);
        }
        Ok(took)
    }
}

impl Drop for Gen {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn number(line: &str, name: &str) -> anyhow::Result<f64> {
    let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Ok(found.with_context(|| format!("no {name} in {line:?}"))?.parse()?)
}

fn there(socket: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    while !socket.exists() {
        if began.elapsed() > SOON {
            bail!("{} does not appear", socket.display());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl Programs {
    fn seconds(&self) -> String {
        self.each.as_secs().max(1).to_string()
    }

    /// Packets per second that arrive: the receiver is the server, and both ends poll.
    pub(crate) fn throughput(&self, pair: Pair) -> anyhow::Result<f64> {
        let [first, second] = processors()?;
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("memif.sock");
        let (from_dpdk, to_dpdk) = match pair {
            Pair::Ours => (false, false),
            Pair::OursToDpdk => (false, true),
            Pair::DpdkToOurs => (true, false),
            Pair::Dpdk => (true, true),
        };
        let mut dpdk_sink =
            to_dpdk.then(|| Testpmd::start(&device("server", &socket, ""), "rxonly", &[])).transpose()?;
        let server = ["--receive", "poll", "--role", "server", "sink"];
        let sink = (!to_dpdk).then(|| Gen::start(self, &socket, first, &server)).transpose()?;
        there(&socket)?;
        if let Some(sink) = &mut dpdk_sink {
            sink.forward()?;
        }
        if !from_dpdk {
            // Nothing comes back, so it sleeps where it would count that.
            let args = ["--seconds", &self.seconds(), "send", "--rate", "max", "--size", SIZE];
            let sent = Gen::start(self, &socket, second, &args)?.end()?;
            // DPDK forgets what it counted when its peer goes. What was sent is what it took, and one ring.
            return match sink {
                Some(sink) => number(&sink.stop()?, "received_pps"),
                None => number(&sent, "sent_pps"),
            };
        }
        // Both of DPDK's would forward on the same processor if one were not told to use the other.
        let mut source = Testpmd::start_on(&device("client", &socket, ""), "txonly", &[], Forwards::Second)?;
        source.forward()?;
        let began = Instant::now();
        thread::sleep(self.each);
        source.stop()?;
        let took = began.elapsed().as_secs_f64();
        match (sink, dpdk_sink) {
            (Some(sink), _) => number(&sink.stop()?, "received_pps"),
            (None, Some(mut sink)) => {
                #[expect(clippy::cast_precision_loss, reason = "a rate")]
                let received = sink.stop()?.received as f64;
                Ok(received / took)
            }
            (None, None) => bail!("no sink"),
        }
    }

    /// A generator and a sink that both sleep between packets, from program to program: p50 and p99 in microseconds.
    pub(crate) fn latency(&self) -> anyhow::Result<(f64, f64)> {
        let [first, second] = processors()?;
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("memif.sock");
        let sink = Gen::start(self, &socket, first, &["--role", "server", "sink"])?;
        there(&socket)?;
        let args = ["--seconds", &self.seconds(), "send", "--rate", PACE, "--size", SIZE];
        Gen::start(self, &socket, second, &args)?.end()?;
        let line = sink.stop()?;
        Ok((number(&line, "p50")?, number(&line, "p99")?))
    }

    /// What a sink costs to which nothing comes, in hundredths of a processor. It looks ten times a second whether it is to stop.
    pub(crate) fn idle(&self) -> anyhow::Result<f64> {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("memif.sock");
        let sink = Gen::start(self, &socket, processors()?[0], &["--role", "server", "sink"])?;
        there(&socket)?;
        // A socket is there a moment before somebody listens.
        let client = memif::Client::new(memif::Address::path(&socket)?);
        let client = memif::Reconnect::new(client, memif::Backoff::default()).connect(SOON);
        let client = client.context("the sink answers nobody")?;
        let (before, began) = (sink.took()?, Instant::now());
        thread::sleep(self.each);
        let took = sink.took()?.saturating_sub(before);
        let share = took.as_secs_f64() / began.elapsed().as_secs_f64();
        drop(client);
        Ok(share * 100.0)
    }
}
