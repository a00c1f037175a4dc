//! The one door to the host: for pods that run, the agent has the host's `nsm-cni` called there, as a runtime calls it.
//!
//! Guarantees: no other program is started through it, nor one that a name in a peer's hands chose; a call ends at its time, with all that
//! it started, but what its plugins have started in process groups of their own; a bounded number run, as they live in the agent's
//! memory limit, and waiting for a place takes nothing of a call's time. What cannot be called is known before anything is begun: a
//! plugin that has started does nothing until it has its configuration. Where the agent lives in a container, a thread of its own enters
//! the host's mount namespace and ends with the start: no thread comes back.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::state::blocking;

/// Names under which the plugin is installed.
const PLUGINS: [&str; 3] = ["nsm-cni", "multus", "multus-shim"];
/// Most calls at the same time, in all and about pods of one namespace: plugins of a network that hang keep those of others waiting for no
/// place. Each is some programs of 10 to 15 MiB beside the agent, in its memory limit where it is in a container.
const AT_ONCE: usize = 4;
const OF_ONE: usize = 2;
/// Longest wait for a place: two turns of plugins that hang.
const WAITING: Duration = Duration::from_mins(2);
/// Longest answer that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The way to the host. Clones share it.
#[derive(Debug, Clone)]
pub struct Door {
    host: Host,
    places: Arc<Semaphore>,
    /// By namespace, of those that have calls.
    shares: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

/// Where the host's programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Here: the agent is one of them.
    Here,
    /// In this mount namespace, e.g. `/proc/1/ns/mnt`.
    In(Arc<Path>),
    /// Out of reach: the agent is in a container.
    Away,
}

impl Host {
    /// By the settings, and by what a kubelet tells each container.
    pub fn of(namespace: Option<PathBuf>) -> Self {
        match namespace {
            Some(path) => Self::In(path.into()),
            None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => Self::Away,
            None => Self::Here,
        }
    }
}

/// One call of the plugin.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Its program on the host.
    pub plugin: PathBuf,
    /// The variables of the call, and no others.
    pub environment: Vec<(&'static str, String)>,
    /// Its configuration.
    pub stdin: String,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It could not be made.
    #[error("{0}")]
    NotCalled(String),
    /// It is not there.
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    /// It was not made: all places were taken.
    #[error("nsm-cni was not called: {AT_ONCE} calls are under way, or {OF_ONE} of that namespace, for {} s: see which network's plugin hangs", WAITING.as_secs())]
    Full,
    /// It did not end in time.
    #[error("nsm-cni on the host did not answer in time, and was ended")]
    Late,
    /// The plugin said no.
    #[error("{message}")]
    Refused {
        /// The CNI error's code.
        code: u64,
        /// Its words.
        message: String,
    },
}

impl Door {
    /// The door to that host.
    pub fn new(host: Host) -> Self {
        Self { host, places: Arc::new(Semaphore::new(AT_ONCE)), shares: Arc::default() }
    }

    /// Whether nothing can be called.
    pub fn is_shut(&self) -> bool {
        self.host == Host::Away
    }

    /// Waits for a place, for a while: a call's time begins when it has one. `of`: the namespace of the pod that it is about; empty: it is
    /// about none.
    ///
    /// # Errors
    /// There is none for too long.
    pub async fn enter(&self, of: &str) -> Result<Entered, Error> {
        let both = async {
            let of_namespace = self.share(of).acquire_owned().await?;
            let of_all = self.places.clone().acquire_owned().await?;
            Ok((of_namespace, of_all))
        };
        let entered = tokio::time::timeout(WAITING, both).await.map_err(|_| Error::Full)?;
        let ended = |_: AcquireError| Error::NotCalled("the agent is ending".to_owned());
        Ok(Entered { host: self.host.clone(), places: entered.map_err(ended)? })
    }

    /// The places of a namespace.
    fn share(&self, namespace: &str) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| share.strong_count() > 0);
        if let Some(share) = shares.get(namespace).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Semaphore::new(OF_ONE));
        shares.insert(namespace.to_owned(), Arc::downgrade(&share));
        share
    }
}

/// A place at the door.
#[derive(Debug)]
pub struct Entered {
    host: Host,
    places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Entered {
    /// Starts the plugin, which waits for its configuration.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start(self, call: Call) -> Result<Ready, Error> {
        let Self { host, places } = self;
        let Call { plugin, environment, stdin } = call;
        let started = blocking(move || Started::begin(&plugin, environment, &host)).await?;
        Ok(Ready { started: Arc::new(started), stdin, _places: places })
    }

    /// Calls the plugin; answers what it printed.
    ///
    /// # Errors
    /// It could not be called, failed, or did not end within that time.
    pub async fn call(self, call: Call, time: Duration) -> Result<String, Error> {
        self.start(call).await?.finish(time).await
    }
}

/// A plugin that has started and has done nothing. Dropped it ends so.
#[derive(Debug)]
pub struct Ready {
    started: Arc<Started>,
    stdin: String,
    _places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Ready {
    /// Gives it its configuration; answers what it printed.
    ///
    /// # Errors
    /// It failed, or did not end within that time.
    pub async fn finish(self, time: Duration) -> Result<String, Error> {
        let until = Instant::now() + time;
        let Self { started, stdin, _places } = self;
        let waiting = started.clone();
        let work = blocking(move || waiting.finish(stdin));
        tokio::time::timeout_at(until, work).await.unwrap_or_else(|_| {
            started.kill();
            Err(Error::Late)
        })
    }
}

/// A plugin that runs.
#[derive(Debug)]
struct Started {
    group: Pid,
    child: Mutex<Option<Child>>,
}

impl Started {
    fn begin(plugin: &Path, environment: Vec<(&'static str, String)>, host: &Host) -> Result<Self, Error> {
        let name = plugin.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !plugin.is_absolute() || !PLUGINS.contains(&name) {
            let expected = format!("expected the path of {}", PLUGINS.join(", "));
            return Err(Error::NotCalled(format!("{} is not called: {expected}", plugin.display())));
        }
        let mut command = Command::new(plugin);
        command.env_clear().envs(environment);
        // A group of its own, so that what it starts ends with it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let entered = |path: &Path, error: io::Error| {
            Error::NotCalled(format!(
                "the host's mount namespace {} cannot be entered: {error}; the agent's pod needs hostPID, SYS_PTRACE and SYS_CHROOT for \
                 networks of running pods",
                path.display()
            ))
        };
        let child = match host {
            Host::Away => {
                let missing = "networks of running pods do not change: the agent is in a container without --host-mount-namespace; \
                               install the chart with runningPodNetworks=true, or start the pod again";
                return Err(Error::NotCalled(missing.to_owned()));
            }
            Host::Here => command.spawn(),
            Host::In(path) => {
                let file = File::open(path).map_err(|error| entered(path, error))?;
                spawn_in(file, command).map_err(|error| entered(path, error))?
            }
        }
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Missing(plugin.to_owned()),
            _ => Error::NotCalled(format!("{} cannot be started: {error}", plugin.display())),
        })?;
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        Ok(Self { group, child: Mutex::new(Some(child)) })
    }

    /// Has it begun, and waits for its end.
    fn finish(&self, configuration: String) -> Result<String, Error> {
        let (stdin, stdout, stderr) = {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            let pipes = child.as_mut().map(|child| (child.stdin.take(), child.stdout.take(), child.stderr.take()));
            pipes.unwrap_or_default()
        };
        if let Some(mut stdin) = stdin {
            // What it does not read is its own affair.
            thread::spawn(move || drop(stdin.write_all(configuration.as_bytes())));
        }
        let told = thread::spawn(move || read(stderr));
        let answer = read(stdout);
        // Until it is reaped its number is nobody else's.
        let _ = waitid(Id::Pid(self.group), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let status = child.map(|mut child| child.wait());
        let told = told.join().unwrap_or_default();
        match status {
            Some(Ok(status)) if status.success() => Ok(answer),
            _ => Err(refused(&answer, &told)),
        }
    }

    fn kill(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if child.is_some() {
            let _ = killpg(self.group, Signal::SIGKILL);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.kill();
        // It was never asked for anything.
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.wait();
        }
    }
}

/// Starts a program in a mount namespace; the outer error is about entering it.
fn spawn_in(namespace: File, mut command: Command) -> io::Result<io::Result<Child>> {
    let entering = thread::Builder::new().name("host".to_owned()).spawn(move || {
        // Of this thread alone, which ends here.
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        Ok(command.spawn())
    })?;
    entering.join().unwrap_or_else(|_| Err(io::Error::other("the thread failed")))
}

fn read(pipe: Option<impl Read>) -> String {
    let mut text = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(LONGEST).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The plugin's error, as it printed it.
fn refused(answer: &str, told: &str) -> Error {
    let error: Value = serde_json::from_str(answer).unwrap_or_default();
    let text = |key: &str| error[key].as_str().filter(|text| !text.is_empty());
    let message = match (text("msg"), text("details")) {
        (Some(msg), Some(details)) => format!("{msg}; {details}"),
        (Some(msg), None) => msg.to_owned(),
        (None, _) => {
            let line = told.lines().last().unwrap_or_default();
            format!("nsm-cni on the host failed without a word of why: {}", line.chars().take(300).collect::<String>())
        }
    };
    Error::Refused { code: error["code"].as_u64().unwrap_or_default(), message }
}

#[cfg(test)]
mod tests;
