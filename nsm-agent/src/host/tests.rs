//! The door, with shell scripts in the place of the plugin.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

fn call(dir: &Path, script: &str) -> Call {
    let plugin = dir.join("nsm-cni");
    // Written beside, as a file that is open for writing cannot be executed.
    let aside = dir.join("nsm-cni.new");
    fs::write(&aside, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&aside, &plugin).unwrap();
    Call { plugin, environment: vec![("CNI_COMMAND", "ADD".into())], stdin: "{}".into() }
}

const SOON: Duration = Duration::from_secs(20);

impl Door {
    async fn call(&self, call: Call) -> Result<String, Error> {
        self.call_of("one", call).await
    }

    async fn call_of(&self, of: &str, call: Call) -> Result<String, Error> {
        self.enter(of).await?.call(call, SOON).await
    }
}

#[tokio::test]
async fn what_the_plugin_says_is_answered() {
    let (dir, door) = (tempfile::tempdir().unwrap(), Door::new(Host::Here));
    let script = call(dir.path(), "read stdin; echo \"$CNI_COMMAND $stdin ${HOME:-none}\"");
    assert_eq!(door.call(script).await, Ok("ADD {} none\n".into()));
    let script = call(dir.path(), r#"echo '{"code": 11, "msg": "later", "details": "because"}'; exit 1"#);
    let refused = Error::Refused { code: 11, message: "later; because".into() };
    assert_eq!(door.call(script).await, Err(refused));
    let script = call(dir.path(), "echo trouble >&2; exit 3");
    let why = door.call(script).await.unwrap_err().to_string();
    assert!(why.ends_with("trouble"), "{why}");
}

#[tokio::test]
async fn what_does_not_end_is_ended_with_all_that_it_started() {
    let (dir, door) = (tempfile::tempdir().unwrap(), Door::new(Host::Here));
    let script = call(dir.path(), "sleep 1000 & echo $! > \"$0.pid\"; wait");
    let began = Instant::now();
    let entered = door.enter("one").await.unwrap();
    assert_eq!(entered.call(script, Duration::from_millis(500)).await, Err(Error::Late));
    assert!(began.elapsed() < Duration::from_secs(10));
    let started = fs::read_to_string(dir.path().join("nsm-cni.pid")).unwrap();
    let program = Path::new("/proc").join(started.trim()).join("exe");
    while program.read_link().is_ok() && began.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(program.read_link().is_err(), "{started}");
}

#[tokio::test]
async fn one_namespace_keeps_no_other_waiting() {
    let (dir, door) = (tempfile::tempdir().unwrap(), Door::new(Host::Here));
    let script = "echo begun >> \"$0.begun\"; while [ ! -e \"$0.end\" ]; do sleep 0.01; done";
    let hangs = call(dir.path(), script);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..2 * AT_ONCE {
        let (door, call) = (door.clone(), hangs.clone());
        calls.spawn(async move { door.call(call).await });
    }
    let begun = || fs::read_to_string(dir.path().join("nsm-cni.begun")).unwrap_or_default().lines().count();
    while begun() < OF_ONE {
        tokio::task::yield_now().await;
    }
    let other = tempfile::tempdir().unwrap();
    // In no time, while all of the first one's wait.
    assert_eq!(door.call_of("two", call(other.path(), "echo here")).await, Ok("here\n".into()));
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

/// As many as have room in the agent's memory limit, whosever they are.
#[tokio::test(start_paused = true)]
async fn so_many_at_once() {
    let door = Door::new(Host::Here);
    let mut taken = Vec::new();
    for number in 0..AT_ONCE {
        taken.push(door.enter(&format!("of-{number}")).await.unwrap());
    }
    assert_eq!(door.enter("another").await.unwrap_err(), Error::Full);
    taken.pop();
    door.enter("another").await.unwrap();
}

/// Who had to wait has its whole time, and what never began was not ended.
#[tokio::test(start_paused = true)]
async fn waiting_takes_nothing_of_a_calls_time() {
    let door = Door::new(Host::Here);
    let mut taken = Vec::new();
    for _ in 0..OF_ONE {
        taken.push(door.enter("one").await.unwrap());
    }
    let (began, waits) = (Instant::now(), door.enter("one"));
    let leaves = async {
        tokio::time::sleep(WAITING / 2).await;
        drop(taken.pop());
    };
    let (entered, ()) = tokio::join!(waits, leaves);
    assert_eq!(began.elapsed(), WAITING / 2);
    let why = door.enter("one").await.unwrap_err();
    assert!(why.to_string().contains("was not called"), "{why}");
    // Of the real clock, as programs are.
    tokio::time::resume();
    let dir = tempfile::tempdir().unwrap();
    let script = call(dir.path(), "sleep 0.3; echo here");
    assert_eq!(entered.unwrap().call(script, SOON).await, Ok("here\n".into()));
}

/// Whoever has started it and does not go on has changed nothing.
#[tokio::test]
async fn what_has_started_does_nothing_until_it_is_asked() {
    let (dir, door) = (tempfile::tempdir().unwrap(), Door::new(Host::Here));
    let script = "echo begun >> \"$0.begun\"; read stdin && echo done || exit 1";
    let begun = || fs::read_to_string(dir.path().join("nsm-cni.begun")).unwrap_or_default().lines().count();
    let with_line = || Call { stdin: "{}\n".into(), ..call(dir.path(), script) };
    let ready = door.enter("one").await.unwrap().start(with_line()).await.unwrap();
    while begun() < 1 {
        tokio::task::yield_now().await;
    }
    let program = Path::new("/proc").join(ready.started.group.to_string());
    drop(ready);
    assert!(!program.exists(), "it has ended, and nobody waits for it");
    let ready = door.enter("one").await.unwrap().start(with_line()).await.unwrap();
    assert_eq!(ready.finish(SOON).await, Ok("done\n".into()));
    let missing = Call { plugin: dir.path().join("multus"), ..with_line() };
    let why = door.enter("one").await.unwrap().start(missing.clone()).await.unwrap_err();
    assert_eq!(why, Error::Missing(missing.plugin), "before anything is written down");
}

#[tokio::test]
async fn nothing_else_is_called() {
    let door = Door::new(Host::Here);
    for plugin in ["/bin/sh", "nsm-cni", "/tmp/nsm-cni/../sh"] {
        let call = Call { plugin: plugin.into(), ..Call::default() };
        let why = door.call(call).await.unwrap_err().to_string();
        assert!(why.contains("is not called: expected the path of nsm-cni"), "{why}");
    }
    let door = Door::new(Host::In(Path::new("/nowhere/ns/mnt").into()));
    let call = Call { plugin: "/opt/cni/bin/nsm-cni".into(), ..Call::default() };
    assert!(door.call(call.clone()).await.unwrap_err().to_string().contains("hostPID"));
    let door = Door::new(Host::Away);
    assert!(door.is_shut());
    assert!(door.call(call).await.unwrap_err().to_string().contains("runningPodNetworks"));
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
    assert_eq!(door.call(here.clone()).await, Ok("there\n".into()));
    assert_eq!(Door::new(Host::Here).call(here).await, Ok("here\n".into()));
    drop(host.stdin.take());
    assert!(host.wait().unwrap().success());
}
