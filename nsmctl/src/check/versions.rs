//! Whether the programs of this node work together: one minor version apart is what the private API promises.

use std::{path::Path, process::Stdio, time::Duration};

use nsm_proto::admin::{Finding, InfoResponse, finding::Level};

use super::{bad, finding, good};

/// For the plugin to say its version.
const PATIENCE: Duration = Duration::from_secs(5);
const FIX: &str = "install nsmctl, nsm-cni and nsm-agent of one release";

/// The agent beside this program.
pub(super) fn of_agent(agent: &str) -> Finding {
    skew("versions", ("agent", agent), ("nsmctl", env!("CARGO_PKG_VERSION")), "")
}

/// The plugin that called the agent last: older callers may be gone.
pub(super) fn of_callers(info: &InfoResponse) -> Finding {
    const SUBJECT: &str = "versions: nsm-cni that called";
    match info.plugins.split_first() {
        None => good(SUBJECT, "none since the agent's start"),
        Some((last, earlier)) => {
            let earlier: Vec<&str> = earlier.iter().map(|plugin| plugin.version.as_str()).collect();
            let note = if earlier.is_empty() { String::new() } else { format!("; before: {}", earlier.join(", ")) };
            skew(SUBJECT, ("nsm-cni", &last.version), ("agent", &info.version), &note)
        }
    }
}

/// The installed plugin. A result of CNI's VERSION knows protocols only: `nsm-cni --version` is asked.
pub(super) async fn of_installed(plugin: &Path, agent: Option<&str>) -> Finding {
    const SUBJECT: &str = "versions: installed nsm-cni";
    let shown = plugin.display();
    let other = agent.map_or(("nsmctl", env!("CARGO_PKG_VERSION")), |agent| ("agent", agent));
    match installed(plugin).await {
        Ok(version) => skew(SUBJECT, ("nsm-cni", &version), other, &format!("; {shown}")),
        Err(why) => finding(
            Level::Warning,
            SUBJECT,
            &format!("{shown}: {why}"),
            "install nsm-cni in the runtime's plugin directory, or name it with --cni-plugin",
        ),
    }
}

async fn installed(plugin: &Path) -> Result<String, String> {
    let mut command = tokio::process::Command::new(plugin);
    command.arg("--version").env_clear().stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(output) => output.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("does not say its version within {PATIENCE:?}")),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().strip_prefix("nsm-cni ").filter(|_| output.status.success());
    let sound = |version: &&str| version.len() <= 64 && version.chars().all(|c| c.is_ascii_graphic());
    version.filter(sound).map(str::to_owned).ok_or_else(|| "is no nsm-cni: it does not say its version".to_owned())
}

/// `note` goes to the end of what is shown.
fn skew(subject: &str, (one, a): (&str, &str), (other, b): (&str, &str), note: &str) -> Finding {
    let numbers = |version: &str| -> Option<(u64, u64)> {
        let mut parts = version.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    };
    let text = format!("{one} {a}, {other} {b}{note}");
    match (numbers(a), numbers(b)) {
        _ if a == b => good(subject, &text),
        (Some(a), Some(b)) if a.0 == b.0 && a.1.abs_diff(b.1) <= 1 => finding(Level::Warning, subject, &text, FIX),
        _ => bad(subject, &text, FIX),
    }
}

#[cfg(test)]
mod tests {
    use nsm_proto::admin::PluginInfo;

    use super::*;

    #[test]
    fn one_minor_version_apart_is_fine() {
        let level = |a, b| skew("versions", ("agent", a), ("nsmctl", b), "").level();
        assert_eq!(level("1.2.3", "1.2.3"), Level::Ok);
        assert_eq!(level("1.2.3", "1.3.0"), Level::Warning);
        assert_eq!(level("1.2.3", "1.4.0"), Level::Error);
        assert_eq!(level("one", "1.4.0"), Level::Error);
    }

    #[test]
    fn the_plugin_that_called_last_counts() {
        let info = |versions: &[&str]| InfoResponse {
            version: "0.3.0".into(),
            plugins: versions
                .iter()
                .map(|version| PluginInfo { version: (*version).to_owned(), last_call: None })
                .collect(),
            ..InfoResponse::default()
        };
        assert_eq!(of_callers(&info(&[])).level(), Level::Ok);
        let upgraded = of_callers(&info(&["0.3.0", "0.1.0"]));
        assert_eq!(upgraded.level(), Level::Ok, "{upgraded:?}");
        assert!(upgraded.detail.contains("before: 0.1.0"), "{upgraded:?}");
        let old = of_callers(&info(&["0.1.0", "0.3.0"]));
        assert!(old.level() == Level::Error && !old.fix.is_empty(), "{old:?}");
    }
}
