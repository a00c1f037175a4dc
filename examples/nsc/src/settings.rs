//! Flags and environment, under the names of the Go program.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use nsm_sdk::{
    endpoint::DEFAULT_AGENT,
    settings::{Mistakes, ServiceUrl, Wire, boolean, duration, unix_socket},
};
use tracing::level_filters::LevelFilter;

/// A client: connects the network namespace it runs in to network services, and keeps it connected.
///
/// All are texts here, so that one run shows every mistake.
#[derive(Debug, Default, Parser)]
#[command(version, about, long_about = None)]
pub(crate) struct Flags {
    /// Name of this client; the same one after a restart finds its connections again [default: nsc]
    #[arg(long, env = "NSM_NAME", value_name = "NAME")]
    name: Option<String>,
    /// The agent's socket [default: `unix:///var/lib/networkservicemesh/nsm.io.sock`]
    #[arg(long, env = "NSM_CONNECT_TO", value_name = "URL")]
    connect_to: Option<String>,
    /// What to connect to: `kernel://SERVICE[@DOMAIN]/INTERFACE?LABEL=VALUE&..`
    #[arg(long, env = "NSM_NETWORK_SERVICES", value_name = "URL,..")]
    network_services: Option<String>,
    /// How long connections outlive this process when it ends without closing them [default: 10m]
    #[arg(long, env = "NSM_MAX_TOKEN_LIFETIME", value_name = "DURATION")]
    max_token_lifetime: Option<String>,
    /// Most time of one call to the agent [default: 15s]
    #[arg(long, env = "NSM_REQUEST_TIMEOUT", value_name = "DURATION")]
    request_timeout: Option<String>,
    /// Whether to ping the other end and to heal when it does not answer [default: true]
    #[arg(long, env = "NSM_LIVENESSCHECKENABLED", value_name = "BOOL")]
    liveness_check_enabled: Option<String>,
    /// Time between two pings [default: 200ms]
    #[arg(long, env = "NSM_LIVENESSCHECKINTERVAL", value_name = "DURATION")]
    liveness_check_interval: Option<String>,
    /// Time for an answer [default: 1s]
    #[arg(long, env = "NSM_LIVENESSCHECKTIMEOUT", value_name = "DURATION")]
    liveness_check_timeout: Option<String>,
    /// TRACE, DEBUG, INFO, WARN or ERROR [default: INFO]
    #[arg(long, env = "NSM_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
}

/// What the flags and the environment say.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) connect_to: PathBuf,
    pub(crate) services: Vec<ServiceUrl>,
    pub(crate) token_lifetime: Duration,
    pub(crate) request_timeout: Duration,
    /// How often, and for how long at most; `None`: off.
    pub(crate) liveness: Option<(Duration, Duration)>,
    pub(crate) log_level: LevelFilter,
}

const SERVICES: &str = "services such as kernel://icmp-responder/nsm-1?app=a,kernel://other";
const SOCKET: &str = "a unix socket such as unix:///run/nsm.sock";
const DURATION: &str = "a duration above zero such as 10m or 500ms";

impl Settings {
    pub(crate) fn check(flags: &Flags) -> Result<Self, Mistakes> {
        let mut m = Mistakes::default();
        let name = m.read("NSM_NAME", flags.name.as_deref(), "a name of at most 240 bytes", |name| {
            (name.len() <= 240).then(|| name.to_owned())
        });
        let connect_to = m.read("NSM_CONNECT_TO", flags.connect_to.as_deref(), SOCKET, unix_socket);
        let texts = flags.network_services.as_deref().map(str::trim).unwrap_or_default();
        if texts.is_empty() {
            m.absent("NSM_NETWORK_SERVICES", SERVICES);
        }
        let services =
            texts.split(',').filter_map(|text| m.parse("NSM_NETWORK_SERVICES", Some(text), service)).collect();
        let mut positive = |name, value: &Option<String>| {
            m.read(name, value.as_deref(), DURATION, |text| duration(text).filter(|length| !length.is_zero()))
        };
        let token_lifetime = positive("NSM_MAX_TOKEN_LIFETIME", &flags.max_token_lifetime);
        let request_timeout = positive("NSM_REQUEST_TIMEOUT", &flags.request_timeout);
        let every = positive("NSM_LIVENESSCHECKINTERVAL", &flags.liveness_check_interval);
        let timeout = positive("NSM_LIVENESSCHECKTIMEOUT", &flags.liveness_check_timeout);
        let enabled =
            m.read("NSM_LIVENESSCHECKENABLED", flags.liveness_check_enabled.as_deref(), "true or false", boolean);
        let log_level =
            m.read("NSM_LOG_LEVEL", flags.log_level.as_deref(), "TRACE, DEBUG, INFO, WARN or ERROR", log_level);
        m.none()?;
        let liveness = (every.unwrap_or(Duration::from_millis(200)), timeout.unwrap_or(Duration::from_secs(1)));
        Ok(Self {
            name: name.unwrap_or_else(|| "nsc".into()),
            connect_to: connect_to.unwrap_or_else(|| DEFAULT_AGENT.into()),
            services,
            token_lifetime: token_lifetime.unwrap_or(Duration::from_mins(10)),
            request_timeout: request_timeout.unwrap_or(Duration::from_secs(15)),
            liveness: enabled.unwrap_or(true).then_some(liveness),
            log_level: log_level.unwrap_or(LevelFilter::INFO),
        })
    }
}

fn service(text: &str) -> Result<ServiceUrl, String> {
    let url: ServiceUrl = text.parse().map_err(|error: nsm_sdk::settings::InvalidServiceUrl| error.to_string())?;
    match url.wire {
        Wire::Kernel => Ok(url),
        Wire::Memif => Err("this program makes kernel interfaces only: expected kernel://".into()),
    }
}

/// The Go programs' levels too: what they call fatal and panic is an error here.
fn log_level(text: &str) -> Option<LevelFilter> {
    match text.to_ascii_uppercase().as_str() {
        "TRACE" => Some(LevelFilter::TRACE),
        "DEBUG" => Some(LevelFilter::DEBUG),
        "INFO" => Some(LevelFilter::INFO),
        "WARN" | "WARNING" => Some(LevelFilter::WARN),
        "ERROR" | "FATAL" | "PANIC" => Some(LevelFilter::ERROR),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_a_list() {
        let flags = Flags { network_services: Some("kernel://a/nsm-1?x=y, kernel://b".into()), ..Flags::default() };
        let settings = Settings::check(&flags).unwrap();
        assert_eq!(settings.services.iter().map(|url| url.service.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(settings.liveness, Some((Duration::from_millis(200), Duration::from_secs(1))));
    }

    #[test]
    fn one_run_shows_every_mistake() {
        let flags = Flags {
            network_services: Some("kernel://,memif://b,kernel://c".into()),
            request_timeout: Some("soon".into()),
            liveness_check_enabled: Some("perhaps".into()),
            ..Flags::default()
        };
        let text = Settings::check(&flags).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            Settings::check(&Flags::default()).unwrap_err().to_string().contains("NSM_NETWORK_SERVICES is not set")
        );
    }
}
