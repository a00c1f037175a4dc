//! Making pairs.

use nsm_netlink::{Error, IfIndex, Netns, NetnsSocket};

use crate::{Node, name, net};

#[test]
fn both_ends_are_at_once_where_they_belong() {
    let node = Node::new();
    let pair = node.pair(["nsm-1", "client-0"]);
    let made = node.agent.create_veth(&pair).unwrap();
    for (at, end) in made.iter().enumerate() {
        let link = node.inside(at).link(end.index).unwrap().unwrap();
        assert_eq!(link.name, pair.ends[at].name.as_str());
        assert_eq!(link.mac, Some(pair.ends[at].mac));
        assert_eq!((link.mtu, link.group, link.up), (1400, 77, false));
        assert_eq!(link.kind.as_deref(), Some("veth"));
        assert_eq!(link.peer, Some(made[1 - at].index));
        let seen_by_agent = node.agent.link(end.nsid, end.index).unwrap().unwrap();
        assert_eq!((seen_by_agent.mac, seen_by_agent.peer_nsid), (link.mac, Some(made[1 - at].nsid)));
        assert_eq!(node.inside(at).link_by_name(&pair.ends[at].name).unwrap(), Some(link));
    }
    let in_agent = NetnsSocket::open(node.agent.netns()).unwrap().links().unwrap();
    assert!(in_agent.iter().all(|link| link.kind.as_deref() != Some("veth")), "{in_agent:?}");
}

#[test]
fn both_ends_may_be_in_one_namespace() {
    let node = Node::new();
    let mut pair = node.pair(["a", "b"]);
    pair.ends[1].netns = pair.ends[0].netns;
    let made = node.agent.create_veth(&pair).unwrap();
    assert_eq!(node.inside(0).link(made[0].index).unwrap().unwrap().peer, Some(made[1].index));

    pair.ends[1].name = name("a");
    assert!(matches!(node.agent.create_veth(&pair), Err(Error::Invalid(_))));
}

#[test]
fn a_taken_name_is_named_and_nothing_is_left() {
    let node = Node::new();
    node.create(["nsm-1", "client-0"]);
    for (names, pod) in [(["nsm-1", "other"], 0), (["other", "client-0"], 1)] {
        let error = node.agent.create_veth(&node.pair(names)).unwrap_err();
        let taken = matches!(&error, Error::NameTaken { name: n, netns }
            if n.as_str() == names[pod] && *netns == node.pods[pod].id());
        assert!(taken, "{error}");
        assert!(error.is_conflict());
        assert_eq!(node.inside(1 - pod).link_by_name(&name("other")).unwrap(), None);
    }
}

#[test]
fn reads_what_a_namespace_has() {
    let pod = Netns::create().unwrap();
    let mut inside = NetnsSocket::open(&pod).unwrap();
    let links = inside.links().unwrap();
    assert_eq!(links[0].name, "lo");
    assert_eq!(links[0].index, IfIndex::new(1).unwrap());
    assert_eq!(inside.link(IfIndex::new(4711).unwrap()).unwrap(), None);
    assert!(inside.addresses().unwrap().is_empty());
    assert!(inside.neighbours().unwrap().is_empty());
    let tables: Vec<_> = inside.rules().unwrap().into_iter().map(|rule| (rule.table, rule.priority)).collect();
    assert!(tables.contains(&(254, Some(32766))), "{tables:?}");
    assert!(inside.routes().unwrap().iter().all(|entry| entry.route.destination != net("0.0.0.0/0")));
}
