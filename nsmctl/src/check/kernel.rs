//! What the kernel must be able to do, tried out with namespaces and sockets of our own.

use nsm_netlink::{IfName, Mac, Netlink, Netns, VethEnd, VethPair};
use std::path::Path;

use nsm_fdpass::{Peer, Process};
use nsm_proto::admin::{Finding, finding::Level};
use tokio::net::UnixStream;

use super::{bad, finding, good};

/// Oldest kernel that does what the agent needs, and the one that does all that it can use.
const NEEDED: (u32, u32) = (5, 7);
const WANTED: (u32, u32) = (6, 5);

/// Everything about the kernel.
pub(super) fn all() -> Vec<Finding> {
    let mut findings = vec![version(), namespaces_and_veth(), ipv6(Path::new("/proc/sys/net/ipv6"))];
    findings.extend(peers());
    findings
}

fn version() -> Finding {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    of_release(&release.unwrap_or_default())
}

fn of_release(release: &str) -> Finding {
    const SUBJECT: &str = "kernel: version";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        return finding(
            Level::Warning,
            SUBJECT,
            &format!("{release:?} is no version that is understood"),
            "none known",
        );
    };
    let detail = format!("Linux {release}");
    match (major, minor) {
        version if version < NEEDED => bad(
            SUBJECT,
            &format!("{detail}: expected {}.{} or newer", NEEDED.0, NEEDED.1),
            "install a newer kernel: nsm-agent does not work on this one",
        ),
        version if version < WANTED => finding(
            Level::Warning,
            SUBJECT,
            &format!("{detail}: from {}.{} on the end of an endpoint's process is noticed at once", WANTED.0, WANTED.1),
            "none needed: endpoints go when their registration expires",
        ),
        _ => good(SUBJECT, &detail),
    }
}

fn ipv6(settings: &Path) -> Finding {
    const SUBJECT: &str = "kernel: IPv6";
    if settings.is_dir() {
        return good(SUBJECT, "works");
    }
    finding(
        Level::Warning,
        SUBJECT,
        "there is none: endpoints that give IPv6 addresses cannot be connected to",
        "boot without ipv6.disable=1, modprobe ipv6 (CONFIG_IPV6)",
    )
}

/// What the kernel says of the other end of a unix socket: by this the agent knows who asks.
fn peers() -> [Finding; 2] {
    const NAMESPACE: &str = "kernel: network namespace of a peer (SIOCGSKNS)";
    const PROCESS: &str = "kernel: end of a peer's process (SO_PEERPIDFD)";
    let pair = UnixStream::pair().and_then(|(ours, _theirs)| Peer::of(&ours));
    let peer = match pair {
        Ok(peer) => peer,
        Err(error) => {
            let failed = |subject| bad(subject, &format!("no unix socket can be asked: {error}"), "run as root");
            return [failed(NAMESPACE), failed(PROCESS)];
        }
    };
    let privilege = "run nsmctl check as root (CAP_NET_ADMIN); the agent needs that too, and Linux 4.10 or newer";
    [
        match peer.netns {
            Some(_) => good(NAMESPACE, "works"),
            None if !nix::unistd::geteuid().is_root() => finding(Level::Warning, NAMESPACE, "is not told", privilege),
            None => bad(NAMESPACE, "is not told: no peer can be told from another", privilege),
        },
        match peer.process {
            Process::Proved(_) => good(PROCESS, "works"),
            Process::Numbered(_) | Process::Ended | Process::Unseen | Process::Failed(_) => finding(
                Level::Warning,
                PROCESS,
                "is not told: endpoints that crash stay until their registration expires, and in Kubernetes root on the host is no operator on the NSM socket",
                "Linux 6.5 or newer",
            ),
        },
    ]
}

/// A pair of interfaces between two namespaces that nobody else sees; it goes with them.
fn namespaces_and_veth() -> Finding {
    const SUBJECT: &str = "kernel: veth between network namespaces";
    let (ours, theirs) = match (Netns::create(), Netns::create()) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(error), _) | (_, Err(error)) => {
            let fix = "run as root; a kernel without CONFIG_NET_NS cannot run nsm-agent";
            return bad(SUBJECT, &format!("no network namespace can be made: {error}"), fix);
        }
    };
    let made = IfName::new("nsm-check").map_err(|error| error.to_string()).and_then(|name| {
        let end = |netns| VethEnd { netns, name: name.clone(), mac: Mac::random() };
        let pair = VethPair { ends: [end(&ours), end(&theirs)], mtu: None, group: None };
        let netlink = Netlink::open_in(&ours).map_err(|error| error.to_string())?;
        netlink.create_veth(&pair).map_err(|error| error.to_string())
    });
    match made {
        Ok(_) => good(SUBJECT, "works"),
        Err(error) => bad(SUBJECT, &error, "modprobe veth (CONFIG_VETH), and run as root"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_told() {
        assert_eq!(of_release("6.12.3-amd64").level(), Level::Ok);
        assert_eq!(of_release("6.5.0").level(), Level::Ok);
        assert_eq!(of_release("5.15.0-91-generic").level(), Level::Warning);
        assert_eq!(of_release("5.4.0").level(), Level::Error);
        assert_eq!(of_release("plan9").level(), Level::Warning);
    }

    #[test]
    fn a_kernel_without_ipv6_is_told() {
        let dir = tempfile::TempDir::new().unwrap();
        assert_eq!(ipv6(dir.path()).level(), Level::Ok);
        assert_eq!(ipv6(&dir.path().join("none")).level(), Level::Warning);
    }
}
