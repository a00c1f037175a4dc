//! Places where a test may end the plugin, to prove that the next call finishes or undoes what was half done.
//!
//! `NSM_FAILPOINT=NAME` in its environment, which is the runtime's or the agent's to say, ends it there without any clean-up.

/// Ends here, if this is the place.
pub(crate) fn hit(name: &str) {
    if std::env::var_os("NSM_FAILPOINT").is_some_and(|chosen| chosen == name) {
        std::process::abort();
    }
}
