//! What programs over `nsm-sdk` have in common: settings by flag and environment, log, signals, exit codes.
//!
//! Guarantees: every mistake in the settings is told before anything is done, with exit code 2; a program that fails later says
//! so in its log, with exit code 1; SIGTERM and SIGINT end it in order.
#![forbid(unsafe_code)]

mod settings;
mod stop;

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use nsm_sdk::settings::Mistakes;

pub use crate::{
    settings::{Common, CommonFlags, TRUTH, above_zero, name, socket},
    stop::Stop,
};

/// Runs a program with its settings, whose common part says how it logs.
pub async fn main<S>(
    settings: Result<(Common, S), Mistakes>,
    run: impl AsyncFnOnce(Common, S, Stop) -> anyhow::Result<()>,
) -> ExitCode {
    let (common, own) = match settings {
        Ok(settings) => settings,
        Err(mistakes) => {
            let _ = writeln!(std::io::stderr(), "{mistakes}");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_max_level(common.log_level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let ran = match Stop::listen() {
        Ok(stop) => run(common, own, stop).await,
        Err(error) => Err(error),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}
