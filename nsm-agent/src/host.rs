//! The one door to the host: for pods that run, the agent has the host's `nsm-cni` called there, as a runtime calls it.
//!
//! Guarantees: no other program is started through it, nor one that a name in a peer's hands chose; a call ends at its time, with all that
//! it started; a bounded number run. Where the agent lives in a container, a thread of its own enters the host's mount namespace and
//! ends with the start: no thread comes back.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
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
use tokio::{sync::Semaphore, time::Instant};

use crate::state::blocking;

/// Names under which the plugin is installed.
const PLUGINS: [&str; 3] = ["nsm-cni", "multus", "multus-shim"];
/// Most calls at the same time, in all and about pods of one namespace: plugins of a network that hang keep those of others waiting for no
/// place.
const AT_ONCE: usize = 8;
const OF_ONE: usize = 2;
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
    /// The namespace of the pod that it is about; empty: it is about none.
    pub of: String,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It could not be made.
    #[error("{0}")]
    NotCalled(String),
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

    /// Calls the plugin; answers what it printed.
    ///
    /// # Errors
    /// It could not be called, failed, or did not end in time.
    pub async fn call(&self, call: Call, until: Instant) -> Result<String, Error> {
        let ended = |_| Error::NotCalled("the agent is ending".to_owned());
        let share = self.share(&call.of);
        let _share = tokio::time::timeout_at(until, share.acquire()).await.map_err(|_| Error::Late)?.map_err(ended)?;
        let _place =
            tokio::time::timeout_at(until, self.places.acquire()).await.map_err(|_| Error::Late)?.map_err(ended)?;
        let host = self.host.clone();
        let started = blocking(move || Started::begin(&call, &host)).await?;
        let started = Arc::new(started);
        let waiting = started.clone();
        let work = blocking(move || waiting.finish());
        tokio::time::timeout_at(until, work).await.unwrap_or_else(|_| {
            started.kill();
            Err(Error::Late)
        })
    }
}

impl Door {
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

/// A plugin that runs.
struct Started {
    group: Pid,
    child: Mutex<Option<Child>>,
}

impl Started {
    fn begin(call: &Call, host: &Host) -> Result<Self, Error> {
        let plugin = &call.plugin;
        let name = plugin.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !plugin.is_absolute() || !PLUGINS.contains(&name) {
            let expected = format!("expected the path of {}", PLUGINS.join(", "));
            return Err(Error::NotCalled(format!("{} is not called: {expected}", plugin.display())));
        }
        let mut command = Command::new(plugin);
        command.env_clear().envs(call.environment.iter().cloned());
        // A group of its own, so that what it starts ends with it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let entered = |path: &Path, error: io::Error| {
            Error::NotCalled(format!(
                "the host's mount namespace {} cannot be entered: {error}; the agent's pod needs hostPID, SYS_PTRACE and SYS_CHROOT for \
                 networks of running pods",
                path.display()
            ))
        };
        let mut child = match host {
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
        .map_err(|error| Error::NotCalled(format!("{} cannot be started: {error}", plugin.display())))?;
        if let Some(mut stdin) = child.stdin.take() {
            let configuration = call.stdin.clone();
            // What it does not read is its own affair.
            thread::spawn(move || drop(stdin.write_all(configuration.as_bytes())));
        }
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        Ok(Self { group, child: Mutex::new(Some(child)) })
    }

    /// Waits for its end.
    fn finish(&self) -> Result<String, Error> {
        let (stdout, stderr) = {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            let pipes = child.as_mut().map(|child| (child.stdout.take(), child.stderr.take()));
            pipes.unwrap_or_default()
        };
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
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

    use super::*;

    fn call(dir: &Path, script: &str) -> Call {
        let plugin = dir.join("nsm-cni");
        // Written beside, as a file that is open for writing cannot be executed.
        let aside = dir.join("nsm-cni.new");
        fs::write(&aside, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&aside, &plugin).unwrap();
        Call { plugin, environment: vec![("CNI_COMMAND", "ADD".into())], stdin: "{}".into(), of: "one".into() }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn what_the_plugin_says_is_answered() {
        let (dir, door) = (tempfile::tempdir().unwrap(), Door::new(Host::Here));
        let script = call(dir.path(), "read stdin; echo \"$CNI_COMMAND $stdin ${HOME:-none}\"");
        assert_eq!(door.call(script, soon()).await, Ok("ADD {} none\n".into()));
        let script = call(dir.path(), r#"echo '{"code": 11, "msg": "later", "details": "because"}'; exit 1"#);
        let refused = Error::Refused { code: 11, message: "later; because".into() };
        assert_eq!(door.call(script, soon()).await, Err(refused));
        let script = call(dir.path(), "echo trouble >&2; exit 3");
        let why = door.call(script, soon()).await.unwrap_err().to_string();
        assert!(why.ends_with("trouble"), "{why}");
    }

    #[tokio::test]
    async fn what_does_not_end_is_ended_with_all_that_it_started() {
        let (dir, door) = (tempfile::tempdir().unwrap(), Door::new(Host::Here));
        let script = call(dir.path(), "sleep 1000 & wait");
        let began = Instant::now();
        assert_eq!(door.call(script, Instant::now() + Duration::from_millis(200)).await, Err(Error::Late));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn one_namespace_keeps_no_other_waiting() {
        let (dir, door) = (tempfile::tempdir().unwrap(), Door::new(Host::Here));
        let script = "echo begun >> \"$0.begun\"; while [ ! -e \"$0.end\" ]; do sleep 0.01; done";
        let hangs = call(dir.path(), script);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..2 * AT_ONCE {
            let (door, call) = (door.clone(), hangs.clone());
            calls.spawn(async move { door.call(call, soon()).await });
        }
        let begun = || fs::read_to_string(dir.path().join("nsm-cni.begun")).unwrap_or_default().lines().count();
        while begun() < OF_ONE {
            tokio::task::yield_now().await;
        }
        let other = tempfile::tempdir().unwrap();
        let other = Call { of: "two".into(), ..call(other.path(), "echo here") };
        // In no time, while all of the first one's wait.
        assert_eq!(door.call(other, soon()).await, Ok("here\n".into()));
        assert_eq!((begun(), calls.try_join_next().is_none()), (OF_ONE, true));
        let _own = door.share("three");
        let mut known: Vec<String> = door.shares.lock().unwrap().keys().cloned().collect();
        known.sort();
        assert_eq!(known, ["one", "three"], "what nobody uses is forgotten");
        fs::write(dir.path().join("nsm-cni.end"), "").unwrap();
        while let Some(done) = calls.join_next().await {
            assert_eq!(done.unwrap(), Ok(String::new()));
        }
    }

    #[tokio::test]
    async fn nothing_else_is_called() {
        let door = Door::new(Host::Here);
        for plugin in ["/bin/sh", "nsm-cni", "/tmp/nsm-cni/../sh"] {
            let call = Call { plugin: plugin.into(), ..Call::default() };
            let why = door.call(call, soon()).await.unwrap_err().to_string();
            assert!(why.contains("is not called: expected the path of nsm-cni"), "{why}");
        }
        let door = Door::new(Host::In(Path::new("/nowhere/ns/mnt").into()));
        let call = Call { plugin: "/opt/cni/bin/nsm-cni".into(), ..Call::default() };
        assert!(door.call(call.clone(), soon()).await.unwrap_err().to_string().contains("hostPID"));
        let door = Door::new(Host::Away);
        assert!(door.is_shut());
        assert!(door.call(call, soon()).await.unwrap_err().to_string().contains("runningPodNetworks"));
    }

    /// What another mount namespace has under a path is called, and what is there here is not.
    #[tokio::test]
    async fn the_hosts_files_are_meant() {
        let dir = tempfile::tempdir().unwrap();
        let here = call(dir.path(), "echo here");
        let script = "mount -t tmpfs none \"$1\" && printf '#!/bin/sh\\necho there\\n' > \"$1/nsm-cni\" && chmod 755 \"$1/nsm-cni\" \
                      && echo made && exec cat";
        let mut host = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        host.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"made\n");
        let door = Door::new(Host::In(PathBuf::from(format!("/proc/{}/ns/mnt", host.id())).into()));
        assert_eq!(door.call(here.clone(), soon()).await, Ok("there\n".into()));
        assert_eq!(Door::new(Host::Here).call(here, soon()).await, Ok("here\n".into()));
        drop(host.stdin.take());
        assert!(host.wait().unwrap().success());
    }
}
