//! Which versions of `nsm-cni` call this agent: what `nsmctl check` compares.
//!
//! Guarantees: bounded; what is no version is not remembered. In memory only: an upgrade restarts the agent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use nsm_proto::admin::PluginInfo;

/// Most versions that are remembered.
const MOST: usize = 8;
/// Longest version.
const LONGEST: usize = 64;

/// The versions that called, the last one first. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Plugins(Arc<Mutex<Vec<(String, SystemTime)>>>);

impl Plugins {
    /// A plugin called.
    pub fn called(&self, version: &str) {
        if version.is_empty() || version.len() > LONGEST || !version.chars().all(|c| c.is_ascii_graphic()) {
            return;
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(known, _)| known != version);
        seen.insert(0, (version.to_owned(), SystemTime::now()));
        seen.truncate(MOST);
    }

    /// As the private API tells them.
    pub fn seen(&self) -> Vec<PluginInfo> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |(version, at): &(String, SystemTime)| PluginInfo {
            version: version.clone(),
            last_call: Some((*at).into()),
        };
        seen.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_caller_comes_first_and_few_are_remembered() {
        let plugins = Plugins::default();
        for version in ["0.1.0", "0.2.0", "0.1.0", "", "a b", &"9".repeat(65)] {
            plugins.called(version);
        }
        let versions = || plugins.seen().into_iter().map(|plugin| plugin.version).collect::<Vec<_>>();
        assert_eq!(versions(), ["0.1.0", "0.2.0"]);
        for minor in 0..100 {
            plugins.called(&format!("1.{minor}.0"));
        }
        assert_eq!(versions().len(), MOST);
        assert_eq!(versions()[0], "1.99.0");
    }
}
