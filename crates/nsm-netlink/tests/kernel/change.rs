//! From one configuration to another without making the link anew.

use nsm_netlink::{Error, Family, LinkConfig, Mac, Mtu, Neighbour, Route, Rule};

use crate::{Node, ip, net, point_to_point};

fn configs() -> [LinkConfig; 2] {
    let rule = |table| Rule {
        family: Family::V4,
        table,
        from: Some(net("10.77.0.0/16")),
        protocol: None,
        source_ports: None,
        destination_ports: None,
        priority: None,
    };
    let mut old = point_to_point("172.16.0.1/32", "172.16.0.0/32");
    old.addresses.push(net("fd00::1/128"));
    old.routes.push(Route::via(net("10.0.0.0/8"), ip("172.16.0.0")));
    old.neighbours.push(Neighbour { ip: ip("172.16.0.0"), mac: Mac([2, 0, 0, 0, 0, 1]) });
    old.rules.push(rule(50));
    let mut new = point_to_point("172.16.0.3/32", "172.16.0.2/32");
    new.alias.clone_from(&old.alias);
    new.mtu = Some(Mtu::new(1300).unwrap());
    new.addresses.push(net("fd00::3/128"));
    new.routes.push(Route::via(net("10.0.0.0/8"), ip("172.16.0.2")));
    new.neighbours.push(Neighbour { ip: ip("172.16.0.2"), mac: Mac([2, 0, 0, 0, 0, 2]) });
    new.rules.push(rule(51));
    [old, new]
}

#[test]
fn the_difference_is_applied() {
    let node = Node::new();
    let [one, _] = node.create(["nsm-1", "client-0"]);
    let [old, new] = configs();
    let mut inside = node.inside(0);
    inside.configure(one.index, &old).unwrap();
    // What others put there stays.
    let foreign = LinkConfig { up: true, addresses: vec![net("192.168.7.7/24")], ..LinkConfig::default() };
    inside.configure(one.index, &foreign).unwrap();

    let state = inside.reconfigure(one.index, &old, &new).unwrap();
    assert_eq!((state.mtu, state.index), (1300, one.index));
    assert_eq!(
        inside.inspect(one.index, one.mac, &LinkConfig { up: false, ..new.clone() }).unwrap(),
        Vec::<String>::new()
    );
    let left = inside.inspect(one.index, one.mac, &LinkConfig { up: false, ..old.clone() }).unwrap();
    // 2 addresses, 2 routes, 1 neighbour, 1 rule: none of the old ones is there.
    assert_eq!(left.len(), 6, "{left:?}");
    let addresses = inside.addresses().unwrap();
    assert!(addresses.iter().any(|a| a.network == net("192.168.7.7/24")), "{addresses:?}");
}

#[test]
fn it_can_be_repeated_and_repairs() {
    let node = Node::new();
    let [one, _] = node.create(["nsm-1", "client-0"]);
    let [old, new] = configs();
    let mut inside = node.inside(0);
    inside.configure(one.index, &old).unwrap();
    inside.reconfigure(one.index, &old, &new).unwrap();
    let before = (inside.addresses().unwrap(), inside.routes().unwrap(), inside.rules().unwrap());
    inside.reconfigure(one.index, &old, &new).unwrap();
    inside.reconfigure(one.index, &new, &new).unwrap();
    assert_eq!((inside.addresses().unwrap(), inside.routes().unwrap(), inside.rules().unwrap()), before);

    // Somebody takes everything away; the same configuration brings it back.
    inside.reconfigure(one.index, &new, &LinkConfig::default()).unwrap();
    assert!(!inside.inspect(one.index, one.mac, &new).unwrap().is_empty());
    inside.reconfigure(one.index, &new, &new).unwrap();
    assert_eq!(inside.inspect(one.index, one.mac, &LinkConfig { up: false, ..new }).unwrap(), Vec::<String>::new());
}

#[test]
fn the_pods_own_is_not_replaced() {
    let node = Node::new();
    let [pods, _] = node.create(["eth0", "host-0"]);
    let [one, _] = node.create(["nsm-1", "client-0"]);
    let mut inside = node.inside(0);
    let own = LinkConfig { up: true, routes: vec![Route::on_link(net("0.0.0.0/0"))], ..LinkConfig::default() };
    inside.configure(pods.index, &own).unwrap();
    let old = point_to_point("172.16.0.1/32", "172.16.0.0/32");
    inside.configure(one.index, &old).unwrap();
    let mut new = old.clone();
    new.routes.push(Route::via(net("0.0.0.0/0"), ip("172.16.0.0")));
    let error = inside.reconfigure(one.index, &old, &new).unwrap_err();
    assert!(matches!(error, Error::RouteTaken(_)), "{error}");
}
