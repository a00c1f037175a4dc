//! Flags and environment, under the names of the Go program.

use std::time::Duration;

use clap::Parser;
use nsm_program::{Common, TRUTH, above_zero, name};
use nsm_sdk::settings::{Mistakes, ServiceUrl, Wire, awareness_groups, boolean};

/// A client: connects the network namespace it runs in to network services, and keeps it connected.
///
/// All are texts here, so that one run shows every mistake.
#[derive(Debug, Default, Parser)]
#[command(version, about, long_about = None)]
pub(crate) struct Flags {
    /// Name of this client; the same one after a restart finds its connections again [default: nsc]
    #[arg(long, env = "NSM_NAME", value_name = "NAME")]
    name: Option<String>,
    /// What to connect to: `kernel://SERVICE[@DOMAIN]/INTERFACE?LABEL=VALUE&..`
    #[arg(long, env = "NSM_NETWORK_SERVICES", value_name = "URL,..")]
    network_services: Option<String>,
    /// Services whose endpoints may give this client the same addresses, each written as in the services: `[URL,URL],[URL,..]`
    #[arg(long, env = "NSM_AWARENESS_GROUPS", value_name = "GROUPS")]
    awareness_groups: Option<String>,
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
    #[command(flatten)]
    common: nsm_program::CommonFlags,
}

/// What the flags and the environment say.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) services: Vec<ServiceUrl>,
    /// Places in `services` of those that are aware of each other.
    pub(crate) aware: Vec<Vec<usize>>,
    pub(crate) request_timeout: Duration,
    /// How often, and for how long at most; `None`: off.
    pub(crate) liveness: Option<(Duration, Duration)>,
}

const SERVICES: &str = "services such as kernel://icmp-responder/nsm-1?app=a,kernel://other";

impl Settings {
    pub(crate) fn check(flags: &Flags) -> Result<(Common, Self), Mistakes> {
        let mut m = Mistakes::default();
        let common = flags.common.check(&mut m);
        // Shorter than a name may be: connections are called NAME-NUMBER.
        let name = name(&mut m, flags.name.as_deref(), 240);
        let texts = flags.network_services.as_deref().map(str::trim).unwrap_or_default();
        if texts.is_empty() {
            m.absent("NSM_NETWORK_SERVICES", SERVICES);
        }
        let services: Vec<ServiceUrl> =
            texts.split(',').filter_map(|text| m.parse("NSM_NETWORK_SERVICES", Some(text), service)).collect();
        let aware = m
            .parse("NSM_AWARENESS_GROUPS", flags.awareness_groups.as_deref(), |text| awareness_groups(text, &services));
        let request_timeout = above_zero(&mut m, "NSM_REQUEST_TIMEOUT", flags.request_timeout.as_deref());
        let every = above_zero(&mut m, "NSM_LIVENESSCHECKINTERVAL", flags.liveness_check_interval.as_deref());
        let timeout = above_zero(&mut m, "NSM_LIVENESSCHECKTIMEOUT", flags.liveness_check_timeout.as_deref());
        let enabled = m.read("NSM_LIVENESSCHECKENABLED", flags.liveness_check_enabled.as_deref(), TRUTH, boolean);
        m.none()?;
        let liveness = (every.unwrap_or(Duration::from_millis(200)), timeout.unwrap_or(Duration::from_secs(1)));
        Ok((
            common,
            Self {
                name: name.unwrap_or_else(|| "nsc".into()),
                services,
                aware: aware.unwrap_or_default(),
                request_timeout: request_timeout.unwrap_or(Duration::from_secs(15)),
                liveness: enabled.unwrap_or(true).then_some(liveness),
            },
        ))
    }
}

fn service(text: &str) -> Result<ServiceUrl, String> {
    let url: ServiceUrl = text.parse().map_err(|error: nsm_sdk::settings::InvalidServiceUrl| error.to_string())?;
    match url.wire {
        Wire::Kernel => Ok(url),
        Wire::Memif => Err("this program carries no packets itself, as a memif would need: expected kernel://".into()),
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
    fn services_are_a_list() {
        let flags = Flags { network_services: Some("kernel://a/nsm-1?x=y, kernel://b".into()), ..Flags::default() };
        let (_, settings) = Settings::check(&flags).unwrap();
        assert_eq!(settings.services.iter().map(|url| url.service.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(settings.aware.is_empty());
        let groups = Some("[kernel://b, kernel://a/nsm-1?x=y]".into());
        let (_, settings) = Settings::check(&Flags { awareness_groups: groups, ..flags }).unwrap();
        assert_eq!(settings.aware, [[1, 0]]);
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
