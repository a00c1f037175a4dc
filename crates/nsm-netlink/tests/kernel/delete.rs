//! Deleting what is ours, and only that.

use std::thread;
use std::time::{Duration, Instant};

use nsm_netlink::{Deletion, Error, LinkConfig, Mac, VethLink};

use crate::{Node, identity, point_to_point};

#[test]
fn both_ends_go_and_twice_is_harmless() {
    let node = Node::new();
    let [one, two] = node.create(["nsm-1", "client-0"]);
    node.inside(0).configure(one.index, &point_to_point("172.16.0.1/32", "172.16.0.0/32")).unwrap();
    assert_eq!(node.agent.delete_link(&identity(&one)).unwrap(), Deletion::Deleted);
    for (pod, link) in [(0, &one), (1, &two)] {
        assert_eq!(node.inside(pod).link(link.index).unwrap(), None);
        assert_eq!(node.agent.delete_link(&identity(link)).unwrap(), Deletion::AlreadyGone);
    }
    assert!(node.inside(0).addresses().unwrap().is_empty());
    // The names are free at once.
    node.create(["nsm-1", "client-0"]);
}

#[test]
fn an_impostor_is_left_alone() {
    let node = Node::new();
    let [one, _] = node.create(["nsm-1", "client-0"]);
    let ours = one.identity(Some("nsm:test:a".into()));
    assert_eq!(node.agent.link(one.nsid, one.index).unwrap().unwrap().alias, None);

    let mut other_mac = ours.clone();
    other_mac.mac = Mac::random();
    let error = node.agent.delete_link(&other_mac).unwrap_err();
    assert!(matches!(error, Error::NotOurs { .. }), "{error}");

    let theirs = LinkConfig { alias: Some("theirs".into()), ..LinkConfig::default() };
    node.inside(0).configure(one.index, &theirs).unwrap();
    let error = node.agent.delete_link(&ours).unwrap_err();
    assert!(matches!(error, Error::NotOurs { .. }), "{error}");
    assert!(node.inside(0).link(one.index).unwrap().is_some());

    assert_eq!(node.agent.delete_link(&one.identity(Some("theirs".into()))).unwrap(), Deletion::Deleted);
}

#[test]
fn without_an_alias_yet_the_mac_tells() {
    let node = Node::new();
    let [one, _] = node.create(["nsm-1", "client-0"]);
    assert_eq!(node.agent.delete_link(&one.identity(Some("nsm:planned".into()))).unwrap(), Deletion::Deleted);
}

#[test]
fn a_namespace_that_is_gone_has_no_links() {
    let mut node = Node::new();
    let [one, two] = node.create(["nsm-1", "client-0"]);
    let [first, _second] = &mut node.pods;
    *first = nsm_netlink::Netns::create().unwrap();
    // The kernel takes a namespace down in its own time: whatever it got to, both ends are gone afterwards.
    for link in [&one, &two] {
        node.agent.delete_link(&identity(link)).unwrap();
    }
    for link in [&one, &two] {
        assert_eq!(node.agent.delete_link(&identity(link)).unwrap(), Deletion::AlreadyGone);
    }
    assert_eq!(node.inside(1).link(two.index).unwrap(), None);
}

#[test]
fn a_hundred_at_once() {
    let node = Node::new();
    let links: Vec<VethLink> =
        (0..100).flat_map(|n| node.create([&format!("nsm-{n}"), &format!("client-{n}")])).step_by(2).collect();
    let start = Instant::now();
    thread::scope(|scope| {
        for link in &links {
            scope.spawn(|| assert_eq!(node.agent.delete_link(&identity(link)).unwrap(), Deletion::Deleted));
        }
    });
    let took = start.elapsed();
    println!("100 deletions at once: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    for pod in 0..2 {
        let left = node.inside(pod).links().unwrap();
        assert!(left.iter().all(|link| link.kind.as_deref() != Some("veth")), "{left:?}");
    }
}

#[test]
fn the_same_one_from_many_threads() {
    let node = Node::new();
    let [one, two] = node.create(["nsm-1", "client-0"]);
    thread::scope(|scope| {
        for at in 0..16 {
            let (agent, link) = (&node.agent, if at % 2 == 0 { &one } else { &two });
            scope.spawn(move || agent.delete_link(&identity(link)).unwrap());
        }
    });
    assert_eq!(node.agent.link(one.nsid, one.index).unwrap(), None);
}
