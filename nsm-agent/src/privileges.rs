//! What this process may do: the user that it runs as, and its capabilities (capabilities(7)). And who may do everything with it.

use nsm_proto::admin::{Finding, finding::Level};

const FIX: &str = "give it to the agent: capabilities.add of its DaemonSet (deploy/nsm.yaml), or AmbientCapabilities and CapabilityBoundingSet of its \
                   systemd unit (deploy/nsm-agent.service), or run it as root";
/// Needed only for names in `/proc`.
const PTRACE: u32 = 19;

/// A capability: its number in linux/capability.h, its name, what does not work without it, and how bad that is.
const WANTED: [(u32, &str, &str, Level); 5] = [
    (12, "CAP_NET_ADMIN", "no interface can be made, and no peer's network namespace is known", Level::Error),
    (21, "CAP_SYS_ADMIN", "no network namespace can be entered", Level::Error),
    (11, "CAP_NET_BROADCAST", "interfaces that go are not noticed", Level::Error),
    (1, "CAP_DAC_OVERRIDE", "endpoints that run as other users cannot be called", Level::Warning),
    (
        PTRACE,
        "CAP_SYS_PTRACE",
        "pods whose namespace is named /proc/PID/ns/net lose their connections at a restart",
        Level::Warning,
    ),
];

/// Whether that user, on the host, may do everything here: root, and the user that this agent runs as.
pub fn is_operator(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// The findings about this process. `by_process`: whether the runtime names pods' namespaces by their processes.
pub fn findings(by_process: bool) -> Vec<Finding> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let user = Finding {
        level: Level::Ok.into(),
        subject: "agent: user".into(),
        detail: format!("user {}", nix::unistd::geteuid()),
        fix: String::new(),
    };
    [user].into_iter().chain(capabilities(effective(&status), by_process)).collect()
}

/// The effective set, by the line of `/proc/PID/status` (proc_pid_status(5)).
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn capabilities(effective: Option<u64>, by_process: bool) -> Vec<Finding> {
    let finding = |level: Level, detail: String, fix: &str| Finding {
        level: level.into(),
        subject: "agent: capabilities".into(),
        detail,
        fix: fix.into(),
    };
    let Some(effective) = effective else {
        return vec![finding(Level::Warning, "/proc does not tell them".into(), "mount /proc where the agent runs")];
    };
    let (has, without): (Vec<_>, Vec<_>) = WANTED.into_iter().partition(|(number, ..)| effective & (1 << number) != 0);
    let lacks: Vec<Finding> = without
        .into_iter()
        .filter(|(number, ..)| by_process || *number != PTRACE)
        .map(|(_, name, without, level)| finding(level, format!("without {name} {without}"), FIX))
        .collect();
    if lacks.is_empty() {
        let names: Vec<&str> = has.into_iter().map(|(_, name, ..)| name).collect();
        return vec![finding(Level::Ok, names.join(", "), "")];
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_fix() {
        assert_eq!(effective("Name:\tnsm-agent\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("Name:\tnsm-agent\n"), None);
        let all = capabilities(Some(u64::MAX), true);
        assert!(matches!(all.as_slice(), [one] if one.level() == Level::Ok), "{all:?}");
        let lacks = capabilities(Some(!(1 << 11 | 1 << 19)), true);
        let shown: Vec<_> = lacks.iter().map(|finding| (finding.level(), finding.detail.clone())).collect();
        assert_eq!(lacks.len(), 2);
        assert!(shown[0].0 == Level::Error && shown[0].1.contains("CAP_NET_BROADCAST"), "{shown:?}");
        assert!(shown[1].0 == Level::Warning && shown[1].1.contains("CAP_SYS_PTRACE"), "{shown:?}");
        assert!(lacks.iter().all(|finding| finding.fix.contains("nsm.yaml") && finding.fix.contains("systemd unit")));
        // What the DaemonSet has.
        let enough = capabilities(Some(1 << 1 | 1 << 11 | 1 << 12 | 1 << 21), false);
        assert!(matches!(enough.as_slice(), [one] if one.level() == Level::Ok), "{enough:?}");
        assert!(!enough[0].detail.contains("CAP_SYS_PTRACE"));
        assert_eq!(capabilities(None, true)[0].level(), Level::Warning);
    }
}
