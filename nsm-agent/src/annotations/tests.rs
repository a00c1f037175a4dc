use std::collections::{BTreeMap, BTreeSet};

use nsm_netlink::{IfName, Mac, NetnsId};
use proptest::prelude::*;

use super::*;
use crate::state::{Attachment, AttachmentKey, RoutePolicy, Source};

fn attached(interface: &str, service: &str, labels: &[(&str, &str)]) -> Attachment {
    let key = AttachmentKey { container_id: "c".into(), ifname: interface.into() };
    let mut labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    labels.insert("podName".into(), "p".into());
    Attachment {
        client_id: key.client_id(),
        key,
        interface: IfName::new(interface).unwrap(),
        source: Source::Annotation { ifname: "eth0".into() },
        network: "n".into(),
        netns_path: "/run/netns/c".into(),
        netns: NetnsId { dev: 4, ino: 5 },
        network_service: service.into(),
        labels,
        pod: None,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        ips: Vec::new(),
        mtu: None,
        routes: RoutePolicy { default_route: false, overlap: false },
    }
}

fn names(text: &str, attached: &[Attachment], taken: &[&str]) -> Result<Vec<String>, String> {
    let wishes =
        Asked { pod: Annotations { services: Some(text.into()), ..Annotations::default() }, ..Asked::default() }
            .wishes()
            .map_err(|error| error.to_string())?;
    let taken = taken.iter().map(|name| IfName::new(*name).unwrap()).collect();
    let all = named(&wishes, attached, &taken).map_err(|error| error.to_string())?;
    Ok(all.iter().map(|one| format!("{}={}", one.interface, one.service)).collect())
}

#[test]
fn unnamed_wishes_get_the_lowest_free_names() {
    assert_eq!(
        names("kernel://a,kernel://b/nsm-1,kernel://c", &[], &["eth0", "nsm-3"]).unwrap(),
        ["nsm-2=a", "nsm-1=b", "nsm-4=c"]
    );
    let taken = names("kernel://a/eth0", &[], &["eth0"]).unwrap_err();
    assert!(taken.contains("interface eth0 of \"a\" is the pod's already"), "{taken}");
}

#[test]
fn an_unnamed_wish_keeps_its_interface() {
    let has = [attached("nsm-2", "b", &[("x", "1")]), attached("nsm-1", "a", &[]), attached("nsm-3", "b", &[])];
    assert_eq!(names("kernel://b?x=1,kernel://a", &has, &["eth0"]).unwrap(), ["nsm-2=b", "nsm-1=a"]);
    // What is not wished for any more makes room; a name of one's own goes before what another one has.
    assert_eq!(names("kernel://d,kernel://b", &has, &[]).unwrap(), ["nsm-1=d", "nsm-3=b"]);
    assert_eq!(names("kernel://a,kernel://d/nsm-1", &has, &[]).unwrap(), ["nsm-2=a", "nsm-1=d"]);
    assert_eq!(names("kernel://a,kernel://a", &has, &[]).unwrap(), ["nsm-1=a", "nsm-2=a"]);
    let wanted = Named {
        interface: IfName::new("nsm-2").unwrap(),
        service: "b".into(),
        labels: BTreeMap::from([("x".into(), "1".into())]),
    };
    assert!(wanted.is(&has[0]) && !wanted.is(&has[1]));
}

proptest! {
    #[test]
    fn names_are_told_apart(count in 0_usize..12, taken in prop::collection::btree_set(1_u32..20, 0..8)) {
        let taken: BTreeSet<IfName> = taken.into_iter().filter_map(|n| IfName::new(format!("nsm-{n}")).ok()).collect();
        let wish = Wish { service: "s".into(), interface: None, labels: BTreeMap::new() };
        let all = named(&vec![wish; count], [], &taken).unwrap();
        let names: BTreeSet<_> = all.iter().map(|one| one.interface.clone()).collect();
        prop_assert_eq!(names.len(), count);
        prop_assert!(names.is_disjoint(&taken));
    }
}
