//! Flags and environment, under the names of the Go program.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Parser;
use nsm_program::{Common, TRUTH, above_zero, name, socket};
use nsm_proto::payload;
use nsm_sdk::{
    ipam::Groups,
    settings::{Mistakes, boolean, labels, names},
};

/// An endpoint that gives out addresses and lets the kernel answer pings.
///
/// All are texts here, so that one run shows every mistake.
#[derive(Debug, Default, Parser)]
#[command(version, about, long_about = None)]
pub(crate) struct Flags {
    /// Name of this endpoint, its own in the whole mesh [default: icmp-server]
    #[arg(long, env = "NSM_NAME", value_name = "NAME")]
    name: Option<String>,
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
    /// Most time of one call to the agent [default: 5s]
    #[arg(long, env = "NSM_DIAL_TIMEOUT", value_name = "DURATION")]
    dial_timeout: Option<String>,
    #[command(flatten)]
    common: nsm_program::CommonFlags,
}

/// What the flags and the environment say.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) listen_on: Option<PathBuf>,
    pub(crate) services: Vec<String>,
    pub(crate) register_service: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) payload: String,
    pub(crate) prefixes: Groups,
    pub(crate) dial_timeout: Duration,
}

impl Settings {
    pub(crate) fn check(flags: &Flags) -> Result<(Common, Self), Mistakes> {
        let mut m = Mistakes::default();
        let common = flags.common.check(&mut m);
        let name = name(&mut m, flags.name.as_deref(), 253);
        let listen_on = socket(&mut m, "NSM_LISTEN_ON", flags.listen_on.as_deref());
        let services = m.read("NSM_SERVICE_NAMES", flags.service_names.as_deref(), "names such as a,b", names);
        let register_service = m.read("NSM_REGISTER_SERVICE", flags.register_service.as_deref(), TRUTH, boolean);
        let labels = m.read("NSM_LABELS", flags.labels.as_deref(), "labels such as app:icmp,zone:a", labels);
        let payload = m.read("NSM_PAYLOAD", flags.payload.as_deref(), "IP or ETHERNET", |text| {
            let text = text.to_ascii_uppercase();
            (text == payload::IP || text == payload::ETHERNET).then_some(text)
        });
        let prefixes = flags.cidr_prefix.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let prefixes = m.parse("NSM_CIDR_PREFIX", prefixes.or(Some("169.254.0.0/16")), str::parse);
        let dial_timeout = above_zero(&mut m, "NSM_DIAL_TIMEOUT", flags.dial_timeout.as_deref());
        let none = m.clone().none();
        match (none, prefixes) {
            (Ok(()), Some(prefixes)) => Ok((
                common,
                Self {
                    name: name.unwrap_or_else(|| "icmp-server".into()),
                    listen_on,
                    services: services.unwrap_or_else(|| vec!["icmp-responder".into()]),
                    register_service: register_service.unwrap_or(true),
                    labels: labels.unwrap_or_default(),
                    payload: payload.unwrap_or_else(|| payload::IP.into()),
                    prefixes,
                    dial_timeout: dial_timeout.unwrap_or(Duration::from_secs(5)),
                },
            )),
            (_, _) => Err(m),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_do_not_contradict_each_other() {
        Flags::command().debug_assert();
    }

    #[test]
    fn nothing_set_means_defaults() {
        let (_, settings) = Settings::check(&Flags { name: Some(String::new()), ..Flags::default() }).unwrap();
        assert_eq!((settings.name.as_str(), settings.services.len()), ("icmp-server", 1));
        assert_eq!(settings.prefixes.to_string(), "169.254.0.0/16");
    }

    #[test]
    fn one_run_shows_every_mistake() {
        let flags = Flags {
            common: nsm_program::CommonFlags { connect_to: Some("tcp://127.0.0.1:5001".into()), ..Default::default() },
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
