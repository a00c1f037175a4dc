//! The meta-plugin: several networks of one pod, each by plugins of its own, from Multus's configuration and annotations.
//!
//! Guarantees: of each attachment a durable record is there before anything is made and until all of it is gone; DEL, CHECK and GC
//! work from it, whatever configuration, agent and cluster say by then. For a pod that asks nothing, of a configuration without
//! objects, no runtime is started and nobody asked.

mod add;
mod change;
mod check;
mod defaults;
mod del;
mod devinfo;
mod exec;
mod gc;
mod hostfiles;
mod inside;
mod lifeline;
mod lost;
mod multus;
mod network;
pub(crate) mod patience;
mod plan;
mod record;
mod settled;
mod status;
mod undo;

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nsm_cni_types::{Command, Error, code, pods::MetaCall};
use nsm_npwg::{ATTACH, Change, DETACH, Meta};
use serde_json::Value;

use crate::Call;
use exec::SearchPath;

/// What the call answers on stdout.
pub(crate) fn run(call: &Call) -> Result<Option<String>, Error> {
    let strict = || {
        let meta = Meta::parse(&call.stdin)?;
        for warning in meta.misspelled.iter().chain(&meta.without_effect) {
            eprintln!("nsm-cni: {warning}");
        }
        Ok(meta)
    };
    let lenient = || {
        let (meta, warnings) = Meta::lenient(&call.stdin);
        for warning in &warnings {
            eprintln!("nsm-cni: goes on in spite of: {warning}");
        }
        meta
    };
    match &call.env.command {
        Command::Add => {
            let meta = strict()?;
            match &meta.change {
                None => add::run(call, &meta).map(Some),
                Some(_) => Err(not_of_a_whole_pod("made")),
            }
        }
        Command::Attach => {
            let meta = strict()?;
            match &meta.change {
                Some(Change::Attach(attach)) => change::attach(call, &meta, attach).map(Some),
                None | Some(Change::Detach(_)) => Err(needs("attach")),
            }
        }
        Command::Check => check::run(call, &strict()?).map(|()| None),
        Command::Del => {
            let meta = lenient();
            // Also where it is not to be understood: that is no leave to end all of the pod.
            if [ATTACH, DETACH].iter().any(|key| call.stdin.keys.contains_key(*key)) {
                return Err(not_of_a_whole_pod("ended"));
            }
            del::run(call, &meta).map(|()| None)
        }
        Command::Detach => {
            let meta = lenient();
            match &meta.change {
                Some(Change::Detach(detach)) => change::detach(call, &meta, detach).map(Some),
                None | Some(Change::Attach(_)) => Err(needs("detach")),
            }
        }
        Command::Gc | Command::Collect => gc::run(call, &lenient()).map(|()| None),
        Command::Status => status::run(call, &strict()?).map(|()| None),
        Command::Version | Command::Unknown(_) => {
            Err(Error::new(code::INTERNAL, "no call of the meta-plugin: expected ADD, DEL, CHECK, GC or STATUS"))
        }
    }
}

fn not_of_a_whole_pod(done: &str) -> Error {
    let msg =
        format!("attach and detach go with CNI_COMMAND NSM_ATTACH and NSM_DETACH, by nsm-agent: nothing was {done}");
    Error::new(code::INVALID_CONFIG, msg)
}

fn needs(key: &str) -> Error {
    let msg = format!("this command needs {key} in the configuration, as nsm-agent writes it: nothing was changed");
    Error::new(code::INVALID_CONFIG, msg)
}

/// With what the agent calls this plugin again for the pod, where the call is the meta-plugin's.
pub(crate) fn call_again(call: &Call) -> Option<MetaCall> {
    if !Meta::is(&call.stdin.keys) {
        return None;
    }
    let mut configuration = call.stdin.keys.clone();
    configuration.retain(|key, _| !["prevResult", "runtimeConfig", ATTACH, DETACH].contains(&key.as_str()));
    Some(MetaCall {
        configuration: Value::Object(configuration).to_string(),
        cni_path: std::env::var("CNI_PATH").unwrap_or_default(),
        cni_args: call.env.args.clone(),
        plugin: std::env::current_exe().map(installed).unwrap_or_default(),
    })
}

/// Where the next plugin of that name is, when this one was replaced while it ran: the kernel says so behind the path (proc_pid_exe(5)).
fn installed(program: PathBuf) -> PathBuf {
    let replaced = program.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    match replaced.map(|path| PathBuf::from(OsStr::from_bytes(path))) {
        Some(path) if !program.exists() => path,
        Some(_) | None => program,
    }
}

/// Where plugins are looked for: `binDir`, then what the runtime says.
fn search(bin_dir: &Path) -> SearchPath {
    SearchPath::new(bin_dir, &std::env::var_os("CNI_PATH").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_program_that_was_replaced_while_it_ran_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, next) = (folder.path().join("nsm-cni"), folder.path().join("next"));
        for program in [&path, &next] {
            fs::copy("/bin/cat", program).unwrap();
        }
        let mut old = Command::new(&path).stdin(Stdio::piped()).spawn().unwrap();
        fs::rename(&next, &path).unwrap();
        let told = fs::read_link(format!("/proc/{}/exe", old.id())).unwrap();
        assert_ne!(told, path);
        assert_eq!(installed(told), path);
        drop(old.stdin.take());
        old.wait().unwrap();
        let odd = folder.path().join("odd (deleted)");
        fs::copy("/bin/cat", &odd).unwrap();
        for there in [odd, path] {
            assert_eq!(installed(there.clone()), there);
        }
    }
}
