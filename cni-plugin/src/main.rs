//! `nsm-cni`: the CNI plugin. Environment and stdin in, JSON on stdout, warnings on stderr, an exit code.
//!
//! Guarantees: the result or the error is the only thing on stdout, in the configuration's version; the call ends by
//! `agentWaitSeconds` + `timeoutSeconds`, DEL within one second (as meta-plugin, which waits for others' plugins, within
//! [`meta::patience`]); VERSION starts no runtime and reads nothing. For a pod that asks
//! for no network service by annotation nobody is asked, and no runtime is started either.
//!
//! Error codes: the specification's (1, 2, 4 to 8, 11, 50), and from 100 on those of [`nsm_cni_types::code`].

/// In the place of the standard library's, which panics when nobody reads: a runtime that ended must not cut a call in half.
macro_rules! eprintln {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        std::writeln!(std::io::stderr(), $($words)*).ok();
    }};
}

mod add;
mod agent;
mod check;
mod del;
mod failpoint;
mod files;
mod gc;
mod meta;
mod netns;
mod owed;
mod pod;
mod sandbox;
mod status;

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use nsm_cni_types::{Command, Environment, Error, Stdin, Version, code};

/// This program's version.
const VERSION: &str = MARKED.split_at("nsm-cni version ".len()).1;
/// It stands once in the program, so that a test makes another version of it in no time.
const MARKED: &str = concat!("nsm-cni version ", env!("CARGO_PKG_VERSION"));
/// Longest configuration that is read, in bytes.
const LONGEST_STDIN: u64 = 16 << 20;

/// A call whose environment and stdin are sound so far.
struct Call {
    env: Environment,
    stdin: Stdin,
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "--version" || argument == "-V") {
        return print(&format!("nsm-cni {VERSION}"));
    }
    let get = |name: &str| std::env::var_os(name).unwrap_or_default().to_string_lossy().into_owned();
    match Environment::read(get) {
        Ok(None) => {
            let versions: Vec<&str> = Version::ALL.iter().map(|version| version.as_str()).collect();
            eprintln!("CNI plugin nsm-cni v{VERSION}");
            eprintln!("CNI protocol versions supported: {}", versions.join(", "));
            ExitCode::SUCCESS
        }
        Ok(Some(env)) if env.command == Command::Version => print(&Version::supported_json()),
        Ok(Some(env)) => called(env),
        Err(error) => failed(&error, Version::NEWEST),
    }
}

fn called(env: Environment) -> ExitCode {
    let mut json = Vec::new();
    if let Err(error) = io::stdin().take(LONGEST_STDIN).read_to_end(&mut json) {
        return failed(&Error::new(code::IO, format!("error reading from stdin: {error}")), Version::NEWEST);
    }
    let stdin = match Stdin::parse(&json, &env.command) {
        Ok(stdin) => stdin,
        Err(error) => return failed(&error, Version::NEWEST),
    };
    let version = stdin.version;
    match run(&Call { env, stdin }) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(result)) => print(&result),
        Err(error) => failed(&error, version),
    }
}

/// What the call answers on stdout.
fn run(call: &Call) -> Result<Option<String>, Error> {
    if nsm_npwg::Meta::is(&call.stdin.keys) {
        return meta::run(call);
    }
    match &call.env.command {
        Command::Add => add::run(call).map(Some),
        Command::Check => check::run(call).map(|()| None),
        Command::Del => del::run(call).map(|()| None),
        Command::Gc => gc::run(call).map(|()| None),
        Command::Status => status::run(call).map(|()| None),
        Command::Version => Ok(Some(Version::supported_json())),
        Command::Attach | Command::Detach | Command::Collect => Err(Error::new(
            code::INVALID_ENVIRONMENT,
            "NSM_ commands are the meta-plugin's: expected its configuration",
        )),
        Command::Unknown(other) => Err(Error::new(code::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND: {other}"))),
    }
}

/// Does what needs the agent.
fn in_runtime<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(code::INTERNAL, format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nsm-cni: cannot write to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

fn failed(error: &Error, version: Version) -> ExitCode {
    print(&error.to_json(version));
    ExitCode::FAILURE
}
