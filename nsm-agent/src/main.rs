//! `nsm-agent`: reads its settings, runs one agent, ends on SIGTERM or SIGINT.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use nsm_agent::{
    agent::Agent,
    config::{self, LogFormat, Settings},
    failpoint, memory,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How long an agent that has ended waits for what its threads are writing. What waits longer waits for another program.
const WRITING: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    memory::keep_small();
    let settings = match Settings::read(std::env::args_os().collect::<Vec<_>>()) {
        Ok(settings) => settings,
        Err(config::Error::Flags(error)) => error.exit(),
        Err(config::Error::Mistakes(mistakes)) => {
            let _ = writeln!(std::io::stderr(), "{mistakes}");
            return ExitCode::from(2);
        }
    };
    if settings.list_failpoints {
        // Whoever reads no more has read enough.
        let _ = writeln!(std::io::stdout(), "{}", failpoint::ALL.join("\n"));
        return ExitCode::SUCCESS;
    }
    nsm_netlink::settings_at(settings.proc_sys.clone());
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "nsm-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log_level)
        .with_context(|| format!("log-level {:?}: expected a level or directives", settings.log_level))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        // Each blocking call is short; what waits longer waits in the netlink crate's own workers.
        .max_blocking_threads(32)
        .build()?;
    if let Err(error) = nsm_fdpass::raise_file_limit() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let node = settings.node_name();
        let agent = Agent::start(settings).await?;
        tracing::info!(node, version = nsm_agent::VERSION, "serving");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!(node, "stopping");
        agent.stop().await;
        anyhow::Ok(())
    });
    runtime.shutdown_timeout(WRITING);
    served
}
