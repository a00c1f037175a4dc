//! One run of another plugin's binary.
//!
//! Guarantees: bounded in time and output, whatever the binary does; it gets its configuration as a file, so that neither side waits
//! for the other; of a binary that is ended at its bound nothing goes on, and none outlives this program. What it writes to stderr goes
//! to ours.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use nsm_cni_types::{Error, code};
use serde_json::Value;

use super::lifeline;

/// Longest run of one plugin.
const LONGEST_RUN: Duration = Duration::from_secs(100);
/// Longest result or error that is read, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;
/// How much is kept of what a plugin writes to stderr, in bytes.
const LONGEST_WORDS: usize = 64 << 10;
/// First and longest pause while a process ends that has closed its output.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

/// The folders in which plugins are looked for, in order.
#[derive(Debug, Clone)]
pub(crate) struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    /// `binDir` first, then what the runtime says.
    pub(crate) fn new(bin_dir: &Path, cni_path: &OsStr) -> Self {
        let mut folders = vec![bin_dir.to_owned()];
        for folder in std::env::split_paths(cni_path).filter(|folder| !folder.as_os_str().is_empty()) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        Self(folders)
    }

    /// As delegates get it, who look for plugins of their own (IPAM) in it.
    pub(crate) fn cni_path(&self) -> OsString {
        // A folder with a colon came from binDir alone, and could be no element of the list.
        std::env::join_paths(&self.0).unwrap_or_else(|_| OsString::from(&self.0[0]))
    }

    /// The binary of a plugin.
    ///
    /// # Errors
    /// Code 7, naming the type and the folders.
    pub(crate) fn find(&self, kind: &str) -> Result<PathBuf, Error> {
        let plain = !kind.is_empty() && !kind.contains('/') && kind != "." && kind != "..";
        let found = self.0.iter().map(|folder| folder.join(kind)).find(|path| plain && path.is_file());
        found.ok_or_else(|| {
            let folders: Vec<String> = self.0.iter().map(|folder| folder.display().to_string()).collect();
            let msg = format!("plugin {kind:?} is in none of {}: install it, or set binDir", folders.join(", "));
            Error::new(code::INVALID_CONFIG, msg)
        })
    }
}

/// What a plugin is told by its environment. Empty: not told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) command: &'static str,
    pub(crate) container_id: &'a str,
    pub(crate) netns: &'a str,
    pub(crate) ifname: &'a str,
    pub(crate) args: &'a str,
    pub(crate) path: &'a OsStr,
}

/// Runs a plugin. What it answers, if anything.
///
/// # Errors
/// The plugin's own, with its code; or that it could not be run, was ended, or answered no JSON.
pub(crate) fn run(
    program: &Path,
    told: Told<'_>,
    configuration: &Value,
    until: Instant,
) -> Result<Option<Value>, Error> {
    let bound = until.saturating_duration_since(Instant::now()).min(LONGEST_RUN);
    if bound.is_zero() {
        let msg = format!("{} was not run: nothing is left of the call's time", program.display());
        return Err(Error::new(code::TRY_AGAIN, msg));
    }
    run_for(bound, program, told, configuration)
}

fn run_for(bound: Duration, program: &Path, told: Told<'_>, configuration: &Value) -> Result<Option<Value>, Error> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Error::new(code::IO, format!("{}: {what}: {error}", program.display()))
    };
    let deadline = Instant::now() + bound;
    let stdin = as_file(configuration).map_err(|error| failed("its configuration", &error))?;
    let mut command = Command::new(program);
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.env("CNI_COMMAND", told.command).env("CNI_PATH", told.path);
    for (name, value) in [
        ("CNI_CONTAINERID", told.container_id),
        ("CNI_NETNS", told.netns),
        ("CNI_IFNAME", told.ifname),
        ("CNI_ARGS", told.args),
    ] {
        command.env(name, value);
    }
    lifeline::bind(&mut command);
    let mut child = command.spawn().map_err(|error| failed("cannot be run", &error))?;
    let heard = listen(&mut child, deadline).map_err(|error| failed("its answer", &error));
    let ended = heard.and_then(|heard| {
        let status = reap(&mut child, deadline).map_err(|error| failed("its end", &error))?;
        Ok(status.map(|status| (heard, status)))
    });
    match ended {
        Ok(Some((heard, status))) => heard.outcome(program, status),
        Ok(None) => {
            end(&mut child);
            let msg = format!("{} did not end within {:.1} s and was killed", program.display(), bound.as_secs_f32());
            Err(Error::new(code::TRY_AGAIN, msg))
        }
        Err(error) => {
            end(&mut child);
            Err(error)
        }
    }
}

/// A file in memory: read by the plugin at its pace, with nobody waiting at the other end of a pipe.
fn as_file(configuration: &Value) -> io::Result<File> {
    let file = memfd_create("configuration", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(configuration.to_string().as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// What a plugin wrote.
#[derive(Default)]
struct Heard {
    answer: Vec<u8>,
    words: Vec<u8>,
}

/// Reads both outputs to their ends, or to the deadline.
fn listen(child: &mut Child, deadline: Instant) -> io::Result<Heard> {
    let mut heard = Heard::default();
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    while stdout.is_some() || stderr.is_some() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let ready = {
            let open: Vec<BorrowedFd<'_>> =
                stdout.iter().map(AsFd::as_fd).chain(stderr.iter().map(AsFd::as_fd)).collect();
            let mut polled: Vec<PollFd<'_>> = open.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
            match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            polled.iter().map(|fd| fd.any().unwrap_or(true)).collect::<Vec<bool>>()
        };
        let mut ready = ready.into_iter();
        if stdout.is_some() && ready.next() == Some(true) {
            read(&mut stdout, &mut heard.answer)?;
            if heard.answer.len() > LONGEST_ANSWER {
                return Err(io::Error::other(format!("longer than {LONGEST_ANSWER} bytes")));
            }
        }
        if stderr.is_some() && ready.next() == Some(true) {
            read(&mut stderr, &mut heard.words)?;
            heard.words.truncate(LONGEST_WORDS);
        }
    }
    Ok(heard)
}

/// Reads what is there; at the end of the stream the stream goes.
fn read(stream: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 16 << 10];
    let Some(open) = stream else { return Ok(()) };
    match open.read(&mut chunk) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(error),
        Ok(0) => {
            *stream = None;
            Ok(())
        }
        Ok(length) => {
            into.extend_from_slice(&chunk[..length]);
            Ok(())
        }
    }
}

/// How a process ended that has, as a rule, just closed its output; none: it goes on at the deadline.
fn reap(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = PAUSES.0;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Kills a plugin with all that it started.
fn end(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.wait();
}

impl Heard {
    fn outcome(self, program: &Path, status: ExitStatus) -> Result<Option<Value>, Error> {
        if !self.words.is_empty() {
            let _ = io::stderr().write_all(&self.words);
        }
        let answer = self.answer.trim_ascii();
        let value: Option<Value> = serde_json::from_slice(answer).ok();
        match (status.success(), value) {
            (true, value) if answer.is_empty() || value.is_some() => Ok(value),
            (true, _) => {
                let msg = format!("{} answered {}: expected JSON", program.display(), shown(answer));
                Err(Error::new(code::DECODING, msg))
            }
            (false, Some(Value::Object(error))) if error.contains_key("code") || error.contains_key("msg") => {
                let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
                let given = error.get("code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
                let code = given.filter(|code| *code > 0).unwrap_or(code::INTERNAL);
                Err(Error::new(code, text("msg")).details(text("details")))
            }
            (false, _) => {
                let said = if answer.is_empty() { self.words.trim_ascii() } else { answer };
                let msg = format!("{} ended with {status} and without an error: {}", program.display(), shown(said));
                Err(Error::new(code::INTERNAL, msg))
            }
        }
    }
}

/// The beginning of what a plugin wrote.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(500)]).into_owned();
    if text.is_empty() { "nothing".to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use serde_json::json;

    use super::*;

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugin");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    fn ran(text: &str, bound: Duration) -> Result<Option<Value>, Error> {
        let (_dir, path) = script(text);
        let told = Told {
            command: "ADD",
            container_id: "c",
            netns: "",
            ifname: "net1",
            args: "A=1",
            path: OsStr::new("/x:/y"),
        };
        // Another test's fork may have the script open for writing for a moment.
        loop {
            match run_for(bound, &path, told, &json!({"name": "n", "long": "x".repeat(200_000)})) {
                Err(error) if error.msg.contains("Text file busy") => {}
                other => return other,
            }
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn an_answer_is_an_answer() {
        let said =
            ran(r#"read x; echo "{\"got\": ${#x}, \"env\": \"$CNI_COMMAND $CNI_IFNAME $CNI_ARGS $CNI_PATH\"}""#, LONG);
        let said = said.unwrap().unwrap();
        assert!(said["got"].as_u64().unwrap() > 200_000, "{said}");
        assert_eq!(said["env"], "ADD net1 A=1 /x:/y");
        assert_eq!(ran("exit 0", LONG), Ok(None));
    }

    #[test]
    fn an_error_keeps_its_code_and_words() {
        let error = ran(r#"echo '{"code": 11, "msg": "later", "details": "d"}'; exit 1"#, LONG).unwrap_err();
        assert_eq!(error, Error::new(11, "later").details("d"));
        let error = ran("echo oh >&2; exit 3", LONG).unwrap_err();
        assert!(error.code == code::INTERNAL && error.msg.contains("\"oh\""), "{}", error.msg);
        assert_eq!(ran("echo x", LONG).unwrap_err().code, code::DECODING);
        let missing = run(
            Path::new("/nowhere/x"),
            Told { command: "DEL", container_id: "", netns: "", ifname: "", args: "", path: OsStr::new("/") },
            &json!({}),
            Instant::now() + LONG,
        );
        assert!(missing.unwrap_err().msg.contains("/nowhere/x: cannot be run"));
    }

    #[test]
    fn what_hangs_or_never_stops_talking_is_ended_with_its_children() {
        let began = Instant::now();
        let error = ran("sleep 100 & sleep 100", Duration::from_millis(200)).unwrap_err();
        assert!(error.code == code::TRY_AGAIN && error.msg.contains("0.2 s"), "{}", error.msg);
        let error = ran("exec >&- 2>&-; sleep 100", Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.code, code::TRY_AGAIN);
        assert!(ran("yes", LONG).unwrap_err().msg.contains("longer than"));
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn without_time_nothing_is_run() {
        let (dir, path) = script("touch $CNI_ARGS");
        let begun = dir.path().join("begun");
        let told = Told {
            command: "ADD",
            container_id: "c",
            netns: "",
            ifname: "net1",
            args: begun.to_str().unwrap(),
            path: OsStr::new("/"),
        };
        let error = run(&path, told, &json!({}), Instant::now()).unwrap_err();
        assert!(error.code == code::TRY_AGAIN && error.msg.contains("was not run"), "{}", error.msg);
        assert!(!begun.exists());
    }

    #[test]
    fn a_plugin_is_found_in_the_first_folder_that_has_it() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&one, &two] {
            fs::write(dir.path().join("both"), "").unwrap();
        }
        fs::write(two.path().join("ptp"), "").unwrap();
        let path = SearchPath::new(one.path(), std::env::join_paths([two.path(), one.path()]).unwrap().as_os_str());
        assert_eq!(path.find("both").unwrap(), one.path().join("both"));
        assert_eq!(path.find("ptp").unwrap(), two.path().join("ptp"));
        assert_eq!(path.cni_path(), std::env::join_paths([one.path(), two.path()]).unwrap());
        for other in ["", "..", "../ptp", "none"] {
            assert!(path.find(other).unwrap_err().msg.contains("binDir"), "{other}");
        }
    }
}
