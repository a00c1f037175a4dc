//! Links that vanish are told of.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nsm_netlink::{LinkEvent, Netlink, Netns};

use crate::{Node, identity};

fn events(agent: &Netlink) -> Receiver<LinkEvent> {
    let (sender, receiver) = channel();
    agent.subscribe(move |event| match sender.send(event.clone()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    });
    receiver
}

fn wait_for(events: &Receiver<LinkEvent>, wanted: impl Fn(&LinkEvent) -> bool) -> LinkEvent {
    loop {
        let event = events.recv_timeout(Duration::from_secs(20)).expect("the event comes");
        if wanted(&event) {
            return event;
        }
    }
}

#[test]
fn a_deleted_link_is_told_with_name_and_mac() {
    let node = Node::new();
    let events = events(&node.agent);
    let [one, two] = node.create(["nsm-1", "client-0"]);
    node.agent.delete_link(&identity(&one)).unwrap();
    for link in [one, two] {
        let event = wait_for(&events, |e| matches!(e, LinkEvent::Deleted { nsid, .. } if *nsid == Some(link.nsid)));
        let wanted = LinkEvent::Deleted {
            nsid: Some(link.nsid),
            index: link.index,
            name: link.name.to_string(),
            mac: Some(link.mac),
        };
        assert_eq!(event, wanted);
    }
}

#[test]
fn a_namespace_that_dies_takes_its_links_along() {
    let mut node = Node::new();
    let events = events(&node.agent);
    let [one, two] = node.create(["nsm-1", "client-0"]);
    node.pods[0] = Netns::create().unwrap();
    // Its number goes first, then the other end of the pair.
    wait_for(&events, |e| *e == LinkEvent::NetnsGone { nsid: one.nsid });
    wait_for(
        &events,
        |e| matches!(e, LinkEvent::Deleted { nsid, index, .. } if (*nsid, *index) == (Some(two.nsid), two.index)),
    );
    assert_eq!(node.inside(1).link(two.index).unwrap(), None);
    assert_eq!(node.agent.link(one.nsid, one.index).unwrap(), None);
}

#[test]
fn one_subscriber_does_not_harm_another() {
    let node = Node::new();
    node.agent.subscribe(|_| panic!("a subscriber fails"));
    node.agent.subscribe(|_| ControlFlow::Break(()));
    let events = events(&node.agent);
    for _ in 0..3 {
        let [one, _] = node.create(["nsm-1", "client-0"]);
        node.agent.delete_link(&identity(&one)).unwrap();
        wait_for(&events, |e| matches!(e, LinkEvent::Deleted { name, .. } if name == "nsm-1"));
    }
}

#[test]
fn the_thread_ends_with_the_last_handle() {
    let node = Node::new();
    let events = events(&node.agent);
    let clone = node.agent.clone();
    drop(node);
    assert!(events.try_recv().is_err_and(|e| e == std::sync::mpsc::TryRecvError::Empty));
    drop(clone);
    assert!(loop {
        match events.recv() {
            Ok(_) => {}
            Err(_) => break true,
        }
    });
}
