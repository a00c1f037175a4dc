//! CommonFlags and environment that all programs have, under the names of the Go programs.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use nsm_sdk::{
    endpoint::DEFAULT_AGENT,
    settings::{Mistakes, duration, unix_socket},
    token::DEFAULT_LIFETIME,
};
use tracing::level_filters::LevelFilter;

/// What a setting that is on or off expects.
pub const TRUTH: &str = "true or false";

/// All are texts here, so that one run shows every mistake.
#[derive(Debug, Default, Args)]
pub struct CommonFlags {
    /// The agent's socket [default: `unix:///var/lib/networkservicemesh/nsm.io.sock`]
    #[arg(long, env = "NSM_CONNECT_TO", value_name = "URL")]
    pub connect_to: Option<String>,
    /// How long a connection outlives a peer that falls silent [default: 10m]
    #[arg(long, env = "NSM_MAX_TOKEN_LIFETIME", value_name = "DURATION")]
    pub max_token_lifetime: Option<String>,
    /// TRACE, DEBUG, INFO, WARN or ERROR [default: INFO]
    #[arg(long, env = "NSM_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// What the common flags and the environment say.
#[derive(Debug, PartialEq, Eq)]
pub struct Common {
    /// The agent's socket.
    pub connect_to: PathBuf,
    /// How long a connection outlives a peer that falls silent.
    pub token_lifetime: Duration,
    /// What is logged.
    pub log_level: LevelFilter,
}

impl CommonFlags {
    /// Reads them; what is wrong is the default, and a mistake.
    pub fn check(&self, mistakes: &mut Mistakes) -> Common {
        let connect_to = socket(mistakes, "NSM_CONNECT_TO", self.connect_to.as_deref());
        let token_lifetime = above_zero(mistakes, "NSM_MAX_TOKEN_LIFETIME", self.max_token_lifetime.as_deref());
        let level = self.log_level.as_deref();
        let log_level = mistakes.read("NSM_LOG_LEVEL", level, "TRACE, DEBUG, INFO, WARN or ERROR", log_level);
        Common {
            connect_to: connect_to.unwrap_or_else(|| DEFAULT_AGENT.into()),
            token_lifetime: token_lifetime.unwrap_or(DEFAULT_LIFETIME),
            log_level: log_level.unwrap_or(LevelFilter::INFO),
        }
    }
}

/// The path of a unix socket.
pub fn socket(mistakes: &mut Mistakes, name: &str, value: Option<&str>) -> Option<PathBuf> {
    mistakes.read(name, value, "a unix socket such as unix:///run/nsm.sock", unix_socket)
}

/// A duration that is not zero.
pub fn above_zero(mistakes: &mut Mistakes, name: &str, value: Option<&str>) -> Option<Duration> {
    let read = |text: &str| duration(text).filter(|length| !length.is_zero());
    mistakes.read(name, value, "a duration above zero such as 10m or 500ms", read)
}

/// `NSM_NAME`, of so many bytes at most.
pub fn name(mistakes: &mut Mistakes, value: Option<&str>, most: usize) -> Option<String> {
    let read = |name: &str| (name.len() <= most).then(|| name.to_owned());
    mistakes.read("NSM_NAME", value, &format!("a name of at most {most} bytes"), read)
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
        let mut mistakes = Mistakes::default();
        let common = CommonFlags { log_level: Some(String::new()), ..CommonFlags::default() }.check(&mut mistakes);
        assert_eq!(mistakes.none(), Ok(()));
        assert_eq!((common.connect_to, common.log_level), (DEFAULT_AGENT.into(), LevelFilter::INFO));
    }

    #[test]
    fn mistakes_name_the_variable() {
        let mut mistakes = Mistakes::default();
        let flags = CommonFlags {
            connect_to: Some("tcp://127.0.0.1:5001".into()),
            max_token_lifetime: Some("0s".into()),
            log_level: Some("loud".into()),
        };
        flags.check(&mut mistakes);
        let text = mistakes.none().unwrap_err().to_string();
        for part in ["NSM_CONNECT_TO is \"tcp://127.0.0.1:5001\"", "NSM_MAX_TOKEN_LIFETIME", "NSM_LOG_LEVEL"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
