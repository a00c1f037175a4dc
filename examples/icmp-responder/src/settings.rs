//! Flags and environment, under the names of the Go program.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Parser;
use nsm_proto::payload;
use nsm_sdk::{
    endpoint::DEFAULT_AGENT,
    ipam::Groups,
    settings::{Mistakes, boolean, duration, labels, names, unix_socket},
};
use tracing::level_filters::LevelFilter;

/// An endpoint that gives out addresses and lets the kernel answer pings.
///
/// All are texts here, so that one run shows every mistake.
#[derive(Debug, Default, Parser)]
#[command(version, about, long_about = None)]
pub(crate) struct Flags {
    /// Name of this endpoint, its own in the whole mesh [default: icmp-server]
    #[arg(long, env = "NSM_NAME", value_name = "NAME")]
    name: Option<String>,
    /// The agent's socket [default: `unix:///var/lib/networkservicemesh/nsm.io.sock`]
    #[arg(long, env = "NSM_CONNECT_TO", value_name = "URL")]
    connect_to: Option<String>,
    /// Socket to serve on [default: in a private folder]
    #[arg(long, env = "NSM_LISTEN_ON", value_name = "URL")]
    listen_on: Option<String>,
    /// Network services to serve [default: icmp-responder]
    #[arg(long, env = "NSM_SERVICE_NAMES", value_name = "NAME,..")]
    service_names: Option<String>,
    /// Whether to register the network services too [default: true]
    #[arg(long, env = "NSM_REGISTER_SERVICE", value_name = "BOOL")]
    register_service: Option<String>,
    /// Labels by which matches choose this endpoint
    #[arg(long, env = "NSM_LABELS", value_name = "KEY:VALUE,..")]
    labels: Option<String>,
    /// IP or ETHERNET [default: IP]
    #[arg(long, env = "NSM_PAYLOAD", value_name = "PAYLOAD")]
    payload: Option<String>,
    /// Prefixes to give addresses from, one pair of each; in brackets: one pair of the first that has one left
    /// [default: 169.254.0.0/16]
    #[arg(long, env = "NSM_CIDR_PREFIX", value_name = "PREFIX,..")]
    cidr_prefix: Option<String>,
    /// How long a connection outlives a silent peer [default: 10m]
    #[arg(long, env = "NSM_MAX_TOKEN_LIFETIME", value_name = "DURATION")]
    max_token_lifetime: Option<String>,
    /// Most time of one call to the agent [default: 5s]
    #[arg(long, env = "NSM_DIAL_TIMEOUT", value_name = "DURATION")]
    dial_timeout: Option<String>,
    /// TRACE, DEBUG, INFO, WARN or ERROR [default: INFO]
    #[arg(long, env = "NSM_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
}

/// What the flags and the environment say.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) connect_to: PathBuf,
    pub(crate) listen_on: Option<PathBuf>,
    pub(crate) services: Vec<String>,
    pub(crate) register_service: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) payload: String,
    pub(crate) prefixes: Groups,
    pub(crate) token_lifetime: Duration,
    pub(crate) dial_timeout: Duration,
    pub(crate) log_level: LevelFilter,
}

const SOCKET: &str = "a unix socket such as unix:///run/nsm.sock";
const DURATION: &str = "a duration above zero such as 10m or 500ms";

impl Settings {
    pub(crate) fn check(flags: &Flags) -> Result<Self, Mistakes> {
        let mut m = Mistakes::default();
        let name = m.read("NSM_NAME", flags.name.as_deref(), "a name of at most 253 bytes", |name| {
            (name.len() <= 253).then(|| name.to_owned())
        });
        let connect_to = m.read("NSM_CONNECT_TO", flags.connect_to.as_deref(), SOCKET, unix_socket);
        let listen_on = m.read("NSM_LISTEN_ON", flags.listen_on.as_deref(), SOCKET, unix_socket);
        let services = m.read("NSM_SERVICE_NAMES", flags.service_names.as_deref(), "names such as a,b", names);
        let register_service =
            m.read("NSM_REGISTER_SERVICE", flags.register_service.as_deref(), "true or false", boolean);
        let labels = m.read("NSM_LABELS", flags.labels.as_deref(), "labels such as app:icmp,zone:a", labels);
        let payload = m.read("NSM_PAYLOAD", flags.payload.as_deref(), "IP or ETHERNET", |text| {
            let text = text.to_ascii_uppercase();
            (text == payload::IP || text == payload::ETHERNET).then_some(text)
        });
        let prefixes = flags.cidr_prefix.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let prefixes = m.parse("NSM_CIDR_PREFIX", prefixes.or(Some("169.254.0.0/16")), str::parse);
        let mut positive = |name, value: &Option<String>| {
            m.read(name, value.as_deref(), DURATION, |text| duration(text).filter(|length| !length.is_zero()))
        };
        let token_lifetime = positive("NSM_MAX_TOKEN_LIFETIME", &flags.max_token_lifetime);
        let dial_timeout = positive("NSM_DIAL_TIMEOUT", &flags.dial_timeout);
        let log_level =
            m.read("NSM_LOG_LEVEL", flags.log_level.as_deref(), "TRACE, DEBUG, INFO, WARN or ERROR", log_level);
        let none = m.clone().none();
        match (none, prefixes) {
            (Ok(()), Some(prefixes)) => Ok(Self {
                name: name.unwrap_or_else(|| "icmp-server".into()),
                connect_to: connect_to.unwrap_or_else(|| DEFAULT_AGENT.into()),
                listen_on,
                services: services.unwrap_or_else(|| vec!["icmp-responder".into()]),
                register_service: register_service.unwrap_or(true),
                labels: labels.unwrap_or_default(),
                payload: payload.unwrap_or_else(|| payload::IP.into()),
                prefixes,
                token_lifetime: token_lifetime.unwrap_or(Duration::from_mins(10)),
                dial_timeout: dial_timeout.unwrap_or(Duration::from_secs(5)),
                log_level: log_level.unwrap_or(LevelFilter::INFO),
            }),
            (_, _) => Err(m),
        }
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
    fn nothing_set_means_defaults() {
        let settings = Settings::check(&Flags { name: Some(String::new()), ..Flags::default() }).unwrap();
        assert_eq!((settings.name.as_str(), settings.services.len()), ("icmp-server", 1));
        assert_eq!(settings.prefixes.to_string(), "169.254.0.0/16");
    }

    #[test]
    fn one_run_shows_every_mistake() {
        let flags = Flags {
            connect_to: Some("tcp://127.0.0.1:5001".into()),
            cidr_prefix: Some("10.0.0.0/33".into()),
            labels: Some("app".into()),
            dial_timeout: Some("0s".into()),
            payload: Some("carrier pigeon".into()),
            ..Flags::default()
        };
        let text = Settings::check(&flags).unwrap_err().to_string();
        for part in [
            "NSM_CONNECT_TO is \"tcp://127.0.0.1:5001\"",
            "NSM_CIDR_PREFIX",
            "NSM_LABELS",
            "NSM_DIAL_TIMEOUT",
            "NSM_PAYLOAD",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.lines().count(), 5);
    }
}
