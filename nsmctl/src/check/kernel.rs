//! What the kernel must be able to do, tried out in a network namespace of our own.

use nsm_netlink::{IfName, Mac, Netlink, Netns, VethEnd, VethPair};
use nsm_proto::admin::Finding;

use super::{bad, good};

/// Everything about the kernel.
pub(super) fn all() -> Vec<Finding> {
    vec![namespaces_and_veth()]
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
