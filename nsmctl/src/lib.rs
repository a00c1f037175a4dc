//! `nsmctl`: shows, explains and changes what a node's agent knows.
//!
//! Exit codes: 0 done; 1 the agent said no, or `check` and `plan` found a problem; 2 the command line or a document is wrong;
//! 3 the agent, or for `attach` and `detach` the API server, cannot be reached.

#![forbid(unsafe_code)]

/// In the place of the standard library's, which panics when nobody reads: what was done is not undone by it, nor the exit code.
macro_rules! eprintln {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        std::writeln!(std::io::stderr(), $($words)*).ok();
    }};
}

mod agent;
mod apply;
mod check;
mod cli;
mod delete;
mod describe;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod get;
mod kind;
mod labels;
mod object;
mod output;
mod plan;
mod pods;
mod rows;
#[cfg(test)]
mod tests;
mod time;
mod uninstall;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    error::Error,
};

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nsmctl: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli, &mut io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output, `head` for one, has seen enough.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::Findings) {
                eprintln!("nsmctl: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Does what the command line says and writes to `out`.
async fn run(cli: Cli, out: &mut impl Write) -> Result<(), Error> {
    let timeout = std::time::Duration::from_secs(cli.timeout);
    let agent = agent::Agent::new(cli.cni_socket, timeout);
    let done = match cli.command {
        Command::Apply(args) => apply::run(&agent, &args, out).await,
        Command::Get(args) => get::run(&agent, &args, out).await,
        Command::Describe(args) => describe::run(&agent, &args, out).await,
        Command::Delete(args) => delete::run(&agent, &args, out).await,
        Command::Plan(args) => plan::run(&agent, &args, out).await,
        Command::Attach(args) => pods::attach(&args, timeout, out).await,
        Command::Detach(args) => pods::detach(&args, timeout, out).await,
        Command::Check(args) => check::run(&agent, &args, out).await,
        Command::Uninstall(args) => uninstall::run(&agent, &args, out).await,
    };
    done.map_err(|error| error.at(&agent.socket))
}
