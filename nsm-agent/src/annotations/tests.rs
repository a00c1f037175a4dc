use std::collections::BTreeSet;

use nsm_netlink::{Mac, NetnsId};
use proptest::prelude::*;

use super::*;
use crate::state::{Attachment, AttachmentKey, RoutePolicy, Source};

fn v1(text: &str) -> Annotations {
    Annotations { services: Some(text.into()), services_2019: None }
}

fn v2019(text: &str) -> Annotations {
    Annotations { services: None, services_2019: Some(text.into()) }
}

fn shown(wishes: &[Wish]) -> Vec<String> {
    let one = |wish: &Wish| {
        let name = wish.interface.as_ref().map(ToString::to_string).unwrap_or_default();
        let labels: Vec<String> = wish.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{}/{name}?{}", wish.service, labels.join("&"))
    };
    wishes.iter().map(one).collect()
}

fn wishes(pod: Annotations, namespace: Annotations) -> Result<Vec<String>, String> {
    Asked { pod, namespace }.wishes().map(|all| shown(&all)).map_err(|error| error.to_string())
}

#[test]
fn both_forms_and_both_places_are_joined() {
    let pod = Annotations {
        services: Some("kernel://a/nsm-1?x=1, kernel://b,".into()),
        services_2019: Some("c?y=2&z=3".into()),
    };
    let namespace = Annotations { services: Some("kernel://b".into()), services_2019: Some("d".into()) };
    assert_eq!(wishes(pod, namespace).unwrap(), ["a/nsm-1?x=1", "b/?", "c/?y=2&z=3", "d/?"]);
    assert_eq!(wishes(v1("kernel://a,kernel://a"), Annotations::default()).unwrap(), ["a/?", "a/?"], "two interfaces");
    assert_eq!(wishes(v1(" , "), Annotations::default()).unwrap(), Vec::<String>::new());
}

#[test]
fn a_mistake_names_the_annotation_and_what_is_wrong() {
    let none = Annotations::default;
    for (pod, namespace, parts) in [
        (v1("kernel://a/x,kernel://b/x"), none(), ["interface x is asked for twice", "\"a\" and for \"b\""]),
        (v1("kernel://a/x"), v1("kernel://b/x"), ["interface x is asked for twice", "name another one"]),
        (none(), v1("a"), ["annotation networkservicemesh.io of the namespace", "kernel://"]),
        (v2019("kernel://a"), none(), ["annotation ns.networkservicemesh.io of the pod", "service?label=value"]),
        (v1("memif://a"), none(), ["shared memory", "expected kernel://"]),
        (v1("kernel://a?podName=x"), none(), ["sets label podName", "the agent gives"]),
        (v1("kernel://a/way-too-long-a-name"), none(), ["annotation networkservicemesh.io of the pod", "15 bytes"]),
        (v1(&"kernel://a,".repeat(33)), none(), ["33 network services", "at most 32"]),
        (v1(&"x".repeat(LONGEST + 1)), none(), ["has 65537 bytes", "at most 65536"]),
    ] {
        let error = wishes(pod, namespace).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part:?} in {error:?}");
        }
    }
}

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
    let wishes = Asked { pod: v1(text), ..Asked::default() }.wishes().map_err(|error| error.to_string())?;
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
    fn any_text_is_read_or_refused(first in ".{0,80}", second in ".{0,80}") {
        let _ = wishes(v1(&first), v2019(&second));
    }

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
