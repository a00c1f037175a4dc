//! Configurations: packets travel, nothing of the pod's is touched, findings name what differs.

use nsm_netlink::{Error, Family, IfIndex, LinkConfig, Mac, Mtu, Neighbour, Route, Rule};

use crate::{Node, ip, net, point_to_point};

#[test]
fn packets_travel_over_ipv4() {
    let node = Node::new();
    let [one, two] = node.create(["nsm-1", "client-0"]);
    let state = node.inside(0).configure(one.index, &point_to_point("172.16.0.1/32", "172.16.0.0/32")).unwrap();
    assert_eq!(state.alias.as_deref(), Some("nsm:test:172.16.0.1/32"));
    assert!(state.up && !state.running, "the other end is down");
    let state = node.inside(1).configure(two.index, &point_to_point("172.16.0.0/32", "172.16.0.1/32")).unwrap();
    assert!(state.up && state.running);
    node.exchange("172.16.0.1", "172.16.0.0");
}

#[test]
fn packets_travel_over_ipv6_at_once() {
    let node = Node::new();
    // As many clusters' pods have it.
    node.pods[0].run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")).unwrap().unwrap();
    let [one, two] = node.create(["nsm-1", "client-0"]);
    node.inside(0).configure(one.index, &point_to_point("fd00:aa::1/128", "fd00:aa::/128")).unwrap();
    node.inside(1).configure(two.index, &point_to_point("fd00:aa::/128", "fd00:aa::1/128")).unwrap();
    let addresses = node.inside(0).addresses().unwrap();
    assert!(addresses.iter().any(|a| a.network == net("fd00:aa::1/128") && !a.tentative), "{addresses:?}");
    node.exchange("fd00:aa::1", "fd00:aa::");
    let accept_ra = node.pods[0].run(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/nsm-1/accept_ra")).unwrap();
    assert_eq!(accept_ra.unwrap().trim(), "0");
    let elsewhere = node.pods[0].run(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/accept_ra")).unwrap();
    assert_eq!(elsewhere.unwrap().trim(), "1", "only the link's own setting");
}

#[test]
fn both_families_with_gateway_neighbours_and_mtu() {
    let node = Node::new();
    let [one, two] = node.create(["nsm-1", "client-0"]);
    let side = |own: [&str; 2], other: [&str; 2], beyond: [&str; 2], mac: Mac| LinkConfig {
        mtu: Some(Mtu::new(1350).unwrap()),
        up: true,
        addresses: vec![net(own[0]), net(own[1]), net(beyond[0]), net(beyond[1])],
        routes: own.iter().zip(other).map(|(_, other)| Route::on_link(net(other))).collect(),
        neighbours: other.iter().map(|other| Neighbour { ip: net(other).ip(), mac }).collect(),
        ..LinkConfig::default()
    };
    let (v4, v6) = (["172.16.0.1/32", "fd00::1/128"], ["172.16.0.0/32", "fd00::/128"]);
    let mut client = side(v4, v6, ["10.1.0.1/32", "fd01::1/128"], two.mac);
    client.routes.push(Route::via(net("10.2.0.0/16"), ip("172.16.0.0")));
    client.routes.push(Route::via(net("fd02::/64"), ip("fd00::")));
    let mut endpoint = side(v6, v4, ["10.2.0.1/32", "fd02::1/128"], one.mac);
    endpoint.routes.push(Route::via(net("0.0.0.0/0"), ip("172.16.0.1")));
    endpoint.routes.push(Route::via(net("::/0"), ip("fd00::1")));
    node.inside(0).configure(one.index, &client).unwrap();
    node.inside(1).configure(two.index, &endpoint).unwrap();

    node.exchange("10.1.0.1", "10.2.0.1");
    node.exchange("fd01::1", "fd02::1");
    assert_eq!(node.inside(0).inspect(one.index, one.mac, &client).unwrap(), Vec::<String>::new());
    assert_eq!(node.inside(1).inspect(two.index, two.mac, &endpoint).unwrap(), Vec::<String>::new());
    assert_eq!(node.inside(0).link(one.index).unwrap().unwrap().mtu, 1350);
    let permanent =
        node.inside(0).neighbours().unwrap().into_iter().filter(|n| n.permanent && n.mac == Some(two.mac)).count();
    assert_eq!(permanent, 2);
}

#[test]
fn the_pods_own_route_stays_and_is_named() {
    let node = Node::new();
    let [first, _] = node.create(["eth0", "host-0"]);
    let pods_own = LinkConfig {
        up: true,
        addresses: vec![net("10.0.0.2/24"), net("fd0a::2/64")],
        routes: vec![Route::via(net("0.0.0.0/0"), ip("10.0.0.1")), Route::via(net("::/0"), ip("fd0a::1"))],
        ..LinkConfig::default()
    };
    node.inside(0).configure(first.index, &pods_own).unwrap();
    let before = node.inside(0).routes().unwrap();

    let [second, _] = node.create(["nsm-1", "client-0"]);
    for (own, other, all) in [("172.16.0.1/32", "172.16.0.0/32", "0.0.0.0/0"), ("fd00::1/128", "fd00::/128", "::/0")] {
        let mut config = point_to_point(own, other);
        let default = Route::via(net(all), net(other).ip());
        config.routes.push(default.clone());
        config.rules = vec![rule(Family::of(net(own).ip()), 4711)];
        let error = node.inside(0).configure(second.index, &config).unwrap_err();
        assert!(matches!(&error, Error::RouteTaken(route) if *route == default), "{error}");
        assert!(error.is_conflict());
    }
    assert!(node.inside(0).rules().unwrap().iter().all(|rule| rule.table != 4711), "no rule is left");
    node.agent.delete_link(&second.identity(None)).unwrap();
    assert_eq!(node.inside(0).routes().unwrap(), before);
}

fn rule(family: Family, table: u32) -> Rule {
    let from = match family {
        Family::V4 => "172.16.0.1/32",
        Family::V6 => "fd00::1/128",
    };
    Rule {
        family,
        table,
        from: Some(net(from)),
        protocol: Some(17),
        source_ports: None,
        destination_ports: Some("5000-5010".parse().unwrap()),
        priority: None,
    }
}

#[test]
fn policy_tables_and_rules() {
    let node = Node::new();
    let [one, other] = node.create(["nsm-1", "client-0"]);
    node.inside(1).configure(other.index, &LinkConfig { up: true, ..LinkConfig::default() }).unwrap();
    let mut config = point_to_point("172.16.0.1/32", "172.16.0.0/32");
    config.addresses.push(net("fd00::1/128"));
    config.routes.push(Route::on_link(net("fd00::/128")));
    config.routes.push(Route::via(net("0.0.0.0/0"), ip("172.16.0.0")).in_table(100));
    config.routes.push(Route::via(net("::/0"), ip("fd00::")).in_table(100_000));
    config.rules = vec![
        rule(Family::V4, 100),
        Rule {
            source_ports: Some("1000".parse().unwrap()),
            protocol: Some(6),
            priority: Some(500),
            ..rule(Family::V6, 100_000)
        },
        Rule { from: None, protocol: None, destination_ports: None, ..rule(Family::V4, 101) },
    ];
    let before = node.inside(0).rules().unwrap();
    node.inside(0).configure(one.index, &config).unwrap();
    assert_eq!(node.inside(0).inspect(one.index, one.mac, &config).unwrap(), Vec::<String>::new());

    // The same rules again are in the way, and stay: they are not this configuration's.
    let [two, _] = node.create(["nsm-2", "client-2"]);
    let second =
        LinkConfig { up: true, rules: vec![rule(Family::V4, 4711), config.rules[1].clone()], ..LinkConfig::default() };
    let error = node.inside(0).configure(two.index, &second).unwrap_err();
    assert!(matches!(&error, Error::RuleTaken(taken) if *taken == config.rules[1]), "{error}");
    assert_eq!(node.inside(0).rules().unwrap().len(), before.len() + 3);

    node.agent.delete_link(&one.identity(config.alias.clone())).unwrap();
    node.inside(0).remove_rules(&config.rules).unwrap();
    node.inside(0).remove_rules(&config.rules).unwrap();
    assert_eq!(node.inside(0).rules().unwrap(), before);
}

#[test]
fn findings_name_what_differs() {
    let node = Node::new();
    let [one, _] = node.create(["nsm-1", "client-0"]);
    let mut config = point_to_point("172.16.0.1/32", "172.16.0.0/32");
    node.inside(0).configure(one.index, &config).unwrap();
    config.mtu = Some(Mtu::new(1500).unwrap());
    config.addresses.push(net("172.16.9.9/32"));
    config.routes.push(Route::on_link(net("10.9.0.0/16")));
    config.neighbours.push(Neighbour { ip: ip("172.16.0.0"), mac: Mac([2, 0, 0, 0, 0, 9]) });
    config.rules.push(rule(Family::V4, 9));
    config.alias = Some("other".into());
    let findings = node.inside(0).inspect(one.index, Mac([2, 0, 0, 0, 0, 1]), &config).unwrap();
    for part in
        ["02:00:00:00:00:01", "alias", "MTU 1400", "other end", "172.16.9.9/32", "10.9.0.0/16", "neighbour", "table 9"]
    {
        assert!(findings.iter().any(|finding| finding.contains(part)), "{part}: {findings:?}");
    }
    assert_eq!(findings.len(), 8, "{findings:?}");
    let missing = node.inside(0).inspect(IfIndex::new(999).unwrap(), one.mac, &config).unwrap();
    assert_eq!(missing, ["interface 999 does not exist"]);
}

#[test]
fn errors_say_what_and_why() {
    let node = Node::new();
    let [one, _] = node.create(["nsm-1", "client-0"]);
    let gone = node.inside(0).configure(IfIndex::new(999).unwrap(), &LinkConfig::default()).unwrap_err();
    assert!(gone.is_gone(), "{gone}");

    let multicast =
        LinkConfig { up: true, routes: vec![Route::via(net("10.0.0.0/8"), ip("224.0.0.1"))], ..LinkConfig::default() };
    let refused = node.inside(0).configure(one.index, &multicast).unwrap_err().to_string();
    assert!(refused.starts_with("cannot add route 10.0.0.0/8 via 224.0.0.1: "), "{refused}");
    assert!(refused.contains('('), "the kernel's own words: {refused}");

    let config = LinkConfig { addresses: vec![net("10.0.0.1/8"), net("10.0.0.1/8")], ..LinkConfig::default() };
    let taken = node.inside(0).configure(one.index, &config).unwrap_err();
    assert!(matches!(taken, Error::AddressTaken(address) if address == net("10.0.0.1/8")), "{taken}");
}

#[test]
fn a_thousand_routes() {
    let node = Node::new();
    let [one, _] = node.create(["nsm-1", "client-0"]);
    let routes = (0..1000_u32).map(|n| Route::on_link(net(&format!("10.{}.{}.0/24", n / 256, n % 256)))).collect();
    let config = LinkConfig { up: true, routes, ..LinkConfig::default() };
    node.inside(0).configure(one.index, &config).unwrap();
    assert_eq!(
        node.inside(0)
            .inspect(one.index, one.mac, &LinkConfig { routes: config.routes, ..LinkConfig::default() })
            .unwrap(),
        Vec::<String>::new()
    );
}
