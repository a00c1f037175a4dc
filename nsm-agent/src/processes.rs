//! Whose pod a process of the host's network is, by its control groups.
//!
//! Guarantees: a pod's group is the outermost that has a kubelet's name for one, as what a container makes is below its own; groups that
//! name several pods name none. What somebody on the host may make is no pod's: systemd gives groups into other hands below a user's
//! (`user.slice`), a service and a scope. Where the agent itself is below one, so is its node, which is a container.
//!
//! Names are those of both drivers of the kubelet, cgroupfs (`…/podUID/…`) and systemd (`…-podUID.slice/…`, with `_` for `-`), in both
//! versions of control groups, and seen from another group (`/../…`), as a container sees them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Groups of users' sessions, in which they make groups of any name.
const SESSIONS: &str = "user.slice";

/// What a kubelet knows a pod by: its uid, or, of a static pod, the hash of its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodUid(Uuid);

/// No uid that a kubelet or an API server gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no pod's uid: 32 hexadecimal digits, with or without dashes, were expected")]
pub struct NoUid(String);

impl FromStr for PodUid {
    type Err = NoUid;

    fn from_str(text: &str) -> Result<Self, NoUid> {
        // No braces, no URN.
        let parsed = if matches!(text.len(), 32 | 36) { Uuid::try_parse(text).ok() } else { None };
        parsed.map(Self).ok_or_else(|| NoUid(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for PodUid {
    type Error = NoUid;

    fn try_from(text: String) -> Result<Self, NoUid> {
        text.parse()
    }
}

impl From<PodUid> for String {
    fn from(uid: PodUid) -> Self {
        uid.to_string()
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process whose groups are those of several pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its control groups are those of several pods")]
pub struct Several;

/// The pod of a process, by its groups as proc_pid_cgroup(5) has them; none: it is the host's. `own` are this process's: what both are
/// in is nobody's of the two, as when the whole node is a pod.
pub fn pod_of(groups: &str, own: &str) -> Result<Option<PodUid>, Several> {
    let mut found = None;
    for (hierarchy, path) in lines(groups) {
        let ours = lines(own).find(|(other, _)| *other == hierarchy).map_or("", |(_, path)| path);
        let mut outer = pods(ours, ours).fuse();
        let Some(pod) = pods(path, ours).find(|pod| outer.next() != Some(*pod)) else { continue };
        if *found.get_or_insert(pod) != pod {
            return Err(Several);
        }
    }
    Ok(found)
}

/// Hierarchies, named by number and controllers, and the group in each. A path may have colons.
fn lines(groups: &str) -> impl Iterator<Item = ((&str, &str), &str)> {
    groups.lines().filter_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some(((number, controllers), path))
    })
}

/// The pods that a path leads through, the outermost first. `own` is this process's.
fn pods(path: &str, own: &str) -> impl Iterator<Item = PodUid> {
    let mut own = own.split('/').fuse();
    let mut common = true;
    let mut before = "";
    let kubelets = path.split('/').take_while(move |group| {
        common &= own.next() == Some(*group);
        *group != SESSIONS && (common || !is_handed_on(group))
    });
    kubelets.filter_map(move |group| pod(group, std::mem::replace(&mut before, group)))
}

/// Whether systemd may let others make groups in it (`Delegate=` is of services and scopes).
fn is_handed_on(group: &str) -> bool {
    [".service", ".scope"].iter().any(|unit| group.ends_with(unit))
}

/// The pod of a group, by its name and that of the group which it is in.
fn pod(group: &str, parent: &str) -> Option<PodUid> {
    let group = group.strip_suffix(" (deleted)").unwrap_or(group);
    match group.strip_suffix(".slice") {
        Some(slice) => {
            let (parent, pod) = slice.rsplit_once('-')?;
            let uid = pod.strip_prefix("pod")?.replace('_', "-");
            parent.contains("kubepods").then(|| uid.parse().ok()).flatten()
        }
        // One that is not seen is named "..".
        None if !["kubepods", "burstable", "besteffort", ".."].contains(&parent) => None,
        None => group.strip_prefix("pod")?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
    const B: &str = "11111111-2222-3333-4444-555555555555";
    const STATIC: &str = "d8f7a1b2c3d4e5f60718293a4b5c6d7e";

    fn uid(text: &str) -> PodUid {
        text.parse().unwrap()
    }

    fn underscored(text: &str) -> String {
        text.replace('-', "_")
    }

    #[test]
    fn both_drivers_in_both_versions() {
        let systemd = format!("kubepods-besteffort-pod{}.slice", underscored(A));
        for groups in [
            // Version 1: all hierarchies say the same, or nothing.
            format!(
                "11:memory:/kubepods/besteffort/pod{A}/0a1b\n2:cpu,cpuacct:/kubepods/besteffort/pod{A}/0a1b\n0::/\n"
            ),
            format!(
                "5:pids:/kubepods.slice/kubepods-besteffort.slice/{systemd}/cri-containerd-0a1b.scope\n0::/system.slice/containerd.service"
            ),
            // Version 2.
            format!("0::/kubepods/burstable/pod{A}/0a1b"),
            format!("0::/kubepods.slice/kubepods-pod{}.slice/crio-0a1b.scope", underscored(A)),
            // Of a kubelet with a root of its own: kind.
            format!(
                "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-{systemd}/cri-containerd-0a1b.scope"
            ),
            // Seen from a container.
            format!("0::/../../../kubepods-besteffort.slice/{systemd}/cri-containerd-0a1b.scope"),
            format!("0::/../../pod{A}/0a1b"),
            // What a container made below its own group, and a group that is removed.
            format!("0::/kubepods/pod{A}/0a1b/pod{B}/evil:group"),
            format!("0::/kubepods/pod{A} (deleted)"),
        ] {
            assert_eq!(pod_of(&groups, "0::/"), Ok(Some(uid(A))), "{groups}");
        }
        let fixed = format!("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/x.scope");
        assert_eq!(pod_of(&fixed, ""), Ok(Some(uid(STATIC))), "a static pod's hash");
    }

    #[test]
    fn what_is_no_pods_is_the_hosts() {
        for groups in [
            "",
            "nonsense",
            "0::/",
            "0::/system.slice/sshd.service",
            "0::/machine.slice/libpod-0a1b.scope",
            "0::/podman/pods/pod",
            "4:memory:/kubepods/besteffort",
            &format!("0::/user.slice/user-1000.slice/user@1000.service/kubepods/pod{A}"),
            &format!("0::/system.slice/x-pod{}.slice", underscored(A)),
            &format!("0::/kubepods/pod{{{A}}}"),
            // What a service or a session made that may make groups.
            &format!("0::/system.slice/jenkins.service/pod{A}"),
            &format!("0::/system.slice/jenkins.service/kubepods/pod{A}"),
            &format!("0::/system.slice/jenkins.service/kubepods/burstable/pod{A}/0a1b"),
            &format!("0::/system.slice/jenkins.service/app/kubepods-pod{}.slice", underscored(A)),
            &format!("0::/machine.slice/libpod-0a1b.scope/container/kubepods/pod{A}"),
            &format!("0::/../../../../system.slice/jenkins.service/kubepods/pod{A}"),
            &format!("2:cpu:/system.slice/jenkins.service/kubepods/pod{A}\n0::/system.slice/jenkins.service"),
            &format!("0::/lxc.payload.web/pod{A}"),
        ] {
            assert_eq!(pod_of(groups, "0::/"), Ok(None), "{groups}");
        }
    }

    #[test]
    fn who_is_in_several_pods_is_in_none() {
        let groups = format!("2:cpu:/kubepods/pod{A}/c\n1:memory:/kubepods/pod{B}/c");
        assert_eq!(pod_of(&groups, ""), Err(Several));
    }

    #[test]
    fn what_both_are_in_is_of_neither() {
        let agent = format!("0::/kubepods/pod{A}/agent");
        assert_eq!(pod_of(&format!("0::/kubepods/pod{A}/other"), &agent), Ok(None), "the agent's own pod");
        // A node in a pod.
        let nested = format!("0::/kubepods/pod{A}/node/kubepods/pod{B}/c");
        assert_eq!(pod_of(&nested, &agent), Ok(Some(uid(B))));
        let deeper = format!("0::/kubepods/pod{A}/node/kubepods/pod{STATIC}/agent");
        assert_eq!(pod_of(&nested, &deeper), Ok(Some(uid(B))));
        assert_eq!(pod_of(&agent, &deeper), Ok(None), "the node's own");
    }

    #[test]
    fn a_node_in_a_scope_has_its_pods_there() {
        let node = "/system.slice/docker-0a1b.scope";
        let of = |uid: &str, container: &str| format!("0::{node}/kubelet/kubepods/pod{uid}/{container}");
        let agent = of(STATIC, "agent");
        assert_eq!(pod_of(&of(A, "c"), &agent), Ok(Some(uid(A))));
        assert_eq!(pod_of(&format!("0::{node}/system.slice/ci.service/kubepods/pod{A}"), &agent), Ok(None));
        assert_eq!(pod_of(&format!("0::/system.slice/ci.service/docker-0a1b.scope/kubepods/pod{A}"), &agent), Ok(None));
        // The agent as a service of the host.
        let service = "0::/system.slice/nsm-agent.service";
        assert_eq!(pod_of(&of(A, "c"), service), Ok(None), "a container's kubelet is not this node's");
    }

    #[test]
    fn a_uid_is_one_with_and_without_dashes() {
        assert_eq!(uid(A), uid(&A.replace('-', "")));
        assert_eq!(uid(A).to_string(), A);
        for wrong in ["", "x", &A[1..], &format!("{A}0"), &"g".repeat(32)] {
            assert!(wrong.parse::<PodUid>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(groups in "[0-9:/a-z_. -]{0,200}", own in "[0-9:/a-z_.-]{0,80}") {
            let _ = pod_of(&groups, &own);
            prop_assert_eq!(pod_of(&groups, &groups), Ok(None), "who is where the agent is, is no pod of its own");
        }
    }
}
