use proptest::{collection::vec as many, prelude::*};

use super::*;

fn made() -> Answer {
    let mut answer = Answer::new(Version::NEWEST);
    answer.interfaces.push(Interface {
        name: "net1".into(),
        mac: Some("02:00:00:00:00:01".into()),
        mtu: Some(1400),
        sandbox: Some("/run/netns/x".into()),
        ..Interface::default()
    });
    answer.ips.push(Ip {
        interface: Some(0),
        address: "10.0.0.1/32".parse().unwrap(),
        gateway: None,
        other: Map::new(),
    });
    let dst = "10.0.0.0/24".parse().unwrap();
    let gw = Some("10.0.0.0".parse().unwrap());
    answer.routes.push(Route { dst, gw, mtu: None, table: None, other: Map::new() });
    answer
}

#[test]
fn a_previous_result_of_the_same_version_keeps_what_nobody_knows() {
    let before = json!({
        "cniVersion": "1.0.0", "foo": {"bar": 1},
        "interfaces": [{"name": "cni0", "x": 1}, {"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1, "y": [2]}],
        "routes": [{"dst": "0.0.0.0/0", "z": null}],
        "dns": {"nameservers": ["10.1.0.53"], "domain": "d", "w": 3}
    });
    let mut answer = Answer::parse(&before, Version::V1_0_0).unwrap();
    assert_eq!(answer.to_json().unwrap(), before);
    answer.extend(made());
    let after = answer.to_json().unwrap();
    assert_eq!(after["ips"][1]["interface"], 2, "shifted");
    assert_eq!(after["interfaces"][2].get("mtu"), None, "1.0.0 has no mtu");
    assert_eq!((&after["foo"], &after["interfaces"][0]["x"]), (&before["foo"], &json!(1)));
    let part = answer.part_of("net1");
    assert_eq!((part.ips.len(), part.routes.len(), part.ips[0].interface), (1, 0, Some(0)), "10.0.0.0 is not in a /32");
}

#[test]
fn every_version_says_the_first_address() {
    for version in Version::ALL {
        let json = made().convert(version).to_json().unwrap();
        assert_eq!(json["cniVersion"], version.as_str());
        let again = Answer::parse(&json, version).unwrap();
        assert_eq!(again.ips[0].address.to_string(), "10.0.0.1/32");
        assert_eq!(again.to_json().unwrap(), json);
    }
    assert_eq!(made().convert(Version::V0_2_0).to_json().unwrap()["ip4"]["routes"][0]["dst"], "10.0.0.0/24");
    assert_eq!(made().convert(Version::V0_4_0).to_json().unwrap()["ips"][0]["version"], "4");
}

#[test]
fn the_oldest_versions_need_an_address() {
    let mut answer = made();
    answer.ips.clear();
    assert!(answer.clone().convert(Version::V0_3_0).to_json().is_ok());
    let error = answer.convert(Version::V0_2_0).to_json().unwrap_err();
    assert!(error.msg.contains("no valid IP addresses"), "{error}");
}

/// JSON of any shape, with keys that results and configurations know among the others.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9./:]{0,12}".prop_map(Value::from),
        prop_oneof![Just("1.1.0"), Just("0.2.0"), Just("10.0.0.1/24"), Just("fd00::1/64"), Just("kernel")]
            .prop_map(Value::from),
    ];
    let key = prop_oneof![
        "[a-z]{1,6}",
        prop::sample::select(vec![
            "cniVersion",
            "name",
            "interfaces",
            "ips",
            "routes",
            "dns",
            "ip4",
            "ip6",
            "ip",
            "address",
            "interface",
            "dst",
            "gw",
            "labels",
            "args",
            "cni",
            "runtimeConfig",
            "capabilities",
            "mac",
            "mtu",
            "prevResult",
            "networkService",
            "timeoutSeconds",
            "mechanism",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let interface = ("[a-z]{1,8}", any::<Option<u32>>(), any::<bool>()).prop_map(|(name, mtu, pod)| Interface {
        name,
        mtu,
        sandbox: pod.then(|| "/run/netns/x".to_owned()),
        ..Interface::default()
    });
    let network = (any::<std::net::IpAddr>(), 0_u8..=32).prop_map(|(ip, prefix)| IpNetwork::new(ip, prefix).unwrap());
    let route = (network.clone(), any::<Option<std::net::IpAddr>>()).prop_map(|(dst, gw)| Route {
        dst,
        gw,
        mtu: None,
        table: None,
        other: Map::new(),
    });
    (many(interface, 1..4), many((network, any::<prop::sample::Index>()), 0..5), many(route, 0..5)).prop_map(
        |(interfaces, ips, routes)| {
            let mut answer = Answer::new(Version::NEWEST);
            let place = |index: prop::sample::Index| Some(index.index(interfaces.len()));
            answer.ips = ips
                .into_iter()
                .map(|(address, index)| Ip { interface: place(index), address, gateway: None, other: Map::new() })
                .collect();
            answer.interfaces = interfaces;
            answer.routes = routes;
            answer
        },
    )
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(json in any_json()) {
        for version in Version::ALL {
            if let Ok(answer) = Answer::parse(&json, version) {
                for to in Version::ALL {
                    let _ = answer.clone().convert(to).to_json();
                }
            }
        }
    }

    #[test]
    fn conversions_round_trip(answer in any_answer(), at in 0_usize..7) {
        let version = Version::ALL[at];
        let converted = answer.clone().convert(version);
        match converted.to_json() {
            Err(_) => prop_assert!(answer.ips.is_empty() && version <= Version::V0_2_0),
            Ok(json) => {
                let again = Answer::parse(&json, Version::NEWEST).unwrap();
                prop_assert_eq!(again.to_json().unwrap(), json);
                if version >= Version::V0_3_0 {
                    prop_assert_eq!(&again, &converted);
                    prop_assert_eq!(again.convert(Version::NEWEST).ips, answer.ips);
                }
            }
        }
    }

    #[test]
    fn extending_loses_nothing(mut first in any_answer(), second in any_answer()) {
        let before = first.clone();
        first.extend(second.clone());
        prop_assert_eq!(&first.ips[..before.ips.len()], &before.ips[..]);
        for (ip, was) in first.ips[before.ips.len()..].iter().zip(&second.ips) {
            prop_assert_eq!(&first.interfaces[ip.interface.unwrap()], &second.interfaces[was.interface.unwrap()]);
        }
    }
}

#[test]
fn a_version_without_tables_has_no_routes_of_policy_tables() {
    let mut answer = made();
    let route = |table| Route {
        dst: "0.0.0.0/0".parse().unwrap(),
        gw: Some("10.0.0.0".parse().unwrap()),
        mtu: None,
        table,
        other: Map::new(),
    };
    answer.routes.extend([route(Some(0x4e53_0000)), route(Some(MAIN_TABLE))]);
    let newest = answer.clone().convert(Version::V1_1_0).to_json().unwrap();
    assert_eq!(newest["routes"].as_array().unwrap().len(), 3, "{newest}");
    for version in Version::ALL.into_iter().filter(|version| *version < Version::V1_1_0) {
        let older = answer.clone().convert(version);
        let destinations: Vec<String> = older.routes.iter().map(|route| route.dst.to_string()).collect();
        assert_eq!(destinations, ["10.0.0.0/24", "0.0.0.0/0"], "{version:?}: the default of the main table stays");
    }
}
