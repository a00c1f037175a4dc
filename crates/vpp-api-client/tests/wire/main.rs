//! The encoding: types and definitions say the same, for every message and any values.

#[path = "../random/mod.rs"]
mod random;

use proptest::prelude::*;
use random::Random;
use serde_json::{Value, json};
use vpp_api_client::definition::Definitions;
use vpp_api_client::fuzzing::read_and_written;
use vpp_api_client::message::Message;
use vpp_api_client::messages::{
    AclAddReplace, AclDel, AclDump, AclRule, AddressUnion, ControlPing, FibPath, IfStatusFlags, IpProto,
    IpRouteAddDelV2, IpRouteV2, MemifCreateV2, MemifDetails, MemifMode, SwInterfaceDetails, SwInterfaceDump,
    SwInterfaceEvent, SwInterfaceSetUnnumbered, TapCreateV3, VxlanAddDelTunnelV3, VxlanTunnelV2Dump,
    WireguardInterface, WireguardInterfaceCreate, WireguardInterfaceDetails, WireguardInterfaceDump, WireguardPeerV2,
};
use vpp_api_client::wire::{DecodeProblem, EncodeProblem, Input, Wire};
use vpp_api_client::{InterfaceIndex, Prefix};

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn types_and_definitions_agree_on_every_message(seed in any::<u64>()) {
        let ours = Definitions::ours();
        let mut random = Random::new(seed);
        for message in ours.messages.values() {
            let fields = random.fields(&ours, &message.fields);
            let body = ours.encode(message, &fields).map_err(|e| TestCaseError::fail(format!("{}: {e}", message.name)))?;
            let by_type = read_and_written(&message.name, &body).unwrap();
            prop_assert_eq!(by_type.as_ref(), Ok(&body), "{} {}", message.name, fields);
            let read = ours.decode(message, &body).unwrap();
            let again = ours.encode(message, &read).unwrap();
            prop_assert_eq!(again, body, "{} {}", message.name, read);
        }
    }

    #[test]
    fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in any::<u64>()) {
        let ours = Definitions::ours();
        let mut random = Random::new(cut);
        for message in ours.messages.values() {
            let mut body = ours.encode(message, &random.fields(&ours, &message.fields)).unwrap();
            let keep = usize::try_from(cut % (body.len() as u64 + 1)).unwrap();
            body.truncate(keep);
            body.extend_from_slice(&bytes);
            let _ = ours.decode(message, &body);
            let Some(Ok(written)) = read_and_written(&message.name, &body) else { continue };
            let fields = ours.decode(message, &written).unwrap();
            // A float that is no number has no JSON.
            if !fields.to_string().contains("null") {
                prop_assert_eq!(ours.encode(message, &fields), Ok(written), "{} {}", message.name, fields);
            }
        }
    }
}

fn encoded<M: Message>(message: &M) -> Vec<u8> {
    let mut out = vec![0; M::HEAD.bytes()];
    message.encode(&mut out).unwrap();
    out
}

/// Sizes that were seen on the wire, with the ten bytes of the head.
#[test]
fn requests_have_the_sizes_that_vpp_expects() {
    assert_eq!(encoded(&ControlPing).len(), 10);
    assert_eq!(encoded(&MemifCreateV2::default()).len(), 66);
    assert_eq!(encoded(&VxlanAddDelTunnelV3::default()).len(), 70);
    assert_eq!(encoded(&TapCreateV3 { tag: "four".into(), ..TapCreateV3::default() }).len(), 290 + 4);
    let route = IpRouteV2 { paths: vec![FibPath::default()], ..IpRouteV2::default() };
    assert_eq!(encoded(&IpRouteAddDelV2 { route, ..IpRouteAddDelV2::default() }).len(), 207);
    assert_eq!(encoded(&AclAddReplace { r: vec![AclRule::default()], ..AclAddReplace::default() }).len(), 130);
    assert_eq!(encoded(&SwInterfaceDetails::default()).len(), 295 - 4 + 4);
    assert_eq!(encoded(&SwInterfaceEvent::default()).len(), 19);
    assert_eq!(encoded(&MemifDetails::default()).len(), 107);
}

#[test]
fn defaults_are_those_of_vpp() {
    assert_eq!(SwInterfaceDump::default().sw_if_index, InterfaceIndex::NONE);
    let tap = TapCreateV3::default();
    assert_eq!((tap.id, tap.use_random_mac, tap.num_rx_queues, tap.tx_ring_sz), (u32::MAX, true, 1, 256));
    assert!(IpRouteAddDelV2::default().is_add);
    assert!(SwInterfaceSetUnnumbered::default().is_add);
}

/// 0 is the first ACL, the first peer, `local0`: nobody who leaves the field out means those.
#[test]
fn what_is_left_out_names_nothing_that_is_there() {
    assert_eq!((AclAddReplace::default().acl_index, AclDel::default().acl_index), (u32::MAX, u32::MAX));
    let tunnel = VxlanAddDelTunnelV3::default();
    assert_eq!((tunnel.mcast_sw_if_index, tunnel.decap_next_index), (InterfaceIndex::NONE, u32::MAX));
    assert_eq!(AclDump::default().acl_index, u32::MAX);
    assert_eq!(VxlanTunnelV2Dump::default().sw_if_index, InterfaceIndex::NONE);
    assert_eq!(WireguardInterfaceDump::default().sw_if_index, InterfaceIndex::NONE);
    // Also where the definitions are VPP's, which do not say so.
    let mut told = Definitions::ours().to_json("all");
    for message in told["messages"].as_array_mut().unwrap() {
        for field in message.as_array_mut().unwrap().iter_mut().filter_map(Value::as_array_mut) {
            field.retain(|part| part.get("default").is_none());
        }
    }
    let theirs = Definitions::from_json(&told.to_string()).unwrap();
    let body = theirs.encode(&theirs.messages["acl_add_replace"], &json!({})).unwrap();
    assert_eq!(body[..4], [0xff; 4]);
}

#[test]
fn secrets_are_not_shown() {
    let key = [0xab; 32];
    let interface = WireguardInterface { private_key: key, port: 51820, ..Default::default() };
    let shown = [
        format!("{:?}", WireguardInterfaceCreate { interface: interface.clone(), generate_key: false }),
        format!("{:#?}", WireguardInterfaceDetails { interface }),
        format!("{:?}", WireguardPeerV2 { preshared_key: key, port: 51820, ..Default::default() }),
        format!("{:?}", MemifCreateV2 { secret: "hidden".into(), id: 51820, ..Default::default() }),
    ];
    for text in shown {
        assert!(text.contains("51820") && text.contains('…'), "{text}");
        assert!(!text.contains("hidden") && !text.contains("171") && !text.contains("ab, ab"), "{text}");
    }
    // Nor in what is wrong with them.
    let ours = Definitions::ours();
    for definitions in [&ours, &Definitions::from_json(&ours.to_json("all").to_string()).unwrap()] {
        let error = |name: &str, fields: Value| {
            definitions.encode(&definitions.messages[name], &fields).unwrap_err().to_string()
        };
        assert_eq!(
            error("memif_create_v2", json!({ "secret": 424_242 })),
            "secret: expected a string; what was given is secret, and not shown"
        );
        assert_eq!(
            error("wireguard_interface_create", json!({ "interface": { "private_key": "hidden" } })),
            "interface.private_key: expected up to 32 bytes, in hexadecimal digits or an array; what was given is secret, and \
             not shown"
        );
    }
}

#[test]
fn what_ends_vpp_is_not_sent_back() {
    let ours = Definitions::ours();
    let details = &ours.messages["memif_details"];
    let mut body = ours.encode(details, &json!({})).unwrap();
    // mode: behind the index, a MAC address, an id and a role.
    body[4 + 6 + 4 + 4 + 3] = 2;
    let read = MemifDetails::decode(&mut Input::new(&body)).unwrap();
    assert!(matches!(read.mode, MemifMode::Undeclared(value) if value.value() == 2));
    let again = MemifCreateV2 { mode: read.mode, ..MemifCreateV2::default() };
    let error = again.encode(&mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "mode: 2 is no memif_mode: choose one that has a name");

    let create = &ours.messages["memif_create_v2"];
    let error = ours.encode(create, &json!({ "mode": "MEMIF_MODE_API_PUNT_INJECT" })).unwrap_err();
    assert!(error.to_string().starts_with("mode: \"MEMIF_MODE_API_PUNT_INJECT\" ends VPP's process"), "{error}");
    assert!(ours.encode(create, &json!({ "mode": 2 })).is_err());
    assert!(ours.encode(create, &json!({ "mode": 7 })).is_err());

    // The same holds for definitions that VPP told itself.
    let theirs = Definitions::from_json(&ours.to_json("all").to_string()).unwrap();
    assert!(theirs.encode(&theirs.messages["memif_create_v2"], &json!({ "mode": 2 })).is_err());
    let tunnel = &theirs.messages["vxlan_add_del_tunnel_v3"];
    assert!(theirs.encode(tunnel, &json!({ "vni": 1 << 24 })).is_err());
    assert!(theirs.encode(tunnel, &json!({ "vni": (1 << 24) - 1 })).is_ok());
}

/// VPP takes these indices and lengths unchecked: it reads and writes behind what there is, or asks for all memory.
#[test]
fn paths_that_end_vpp_cannot_be_said() {
    let ours = Definitions::ours();
    let theirs = Definitions::from_json(&ours.to_json("all").to_string()).unwrap();
    for definitions in [&ours, &theirs] {
        let with = |path: Value| {
            let route = json!({ "route": { "paths": [path] } });
            definitions.encode(&definitions.messages["ip_route_add_del_v2"], &route)
        };
        with(json!({ "n_labels": 16 })).unwrap();
        let labels = with(json!({ "n_labels": 17 })).unwrap_err();
        assert_eq!(
            labels.to_string(),
            "route.paths.0.n_labels: 17, expected 0 to 16: VPP takes others and does something else"
        );
        for number in [0, 1, 2, 5, 6, 7, 10] {
            with(json!({ "type": number })).unwrap();
        }
        for number in [3, 4, 8, 9] {
            let kind = with(json!({ "type": number })).unwrap_err().to_string();
            assert!(kind.starts_with(&format!("route.paths.0.type: {number} ends VPP's process")), "{kind}");
        }
        let tap = &definitions.messages["tap_create_v3"];
        let long = |field: &str, length: u8| definitions.encode(tap, &json!({ field: { "len": length } }));
        assert!(long("host_ip4_prefix", 32).is_ok() && long("host_ip6_prefix", 128).is_ok());
        assert!(long("host_ip4_prefix", 200).is_err() && long("host_ip6_prefix", 200).is_err());
    }
    let labels = FibPath { n_labels: 17, ..FibPath::default() };
    let route = IpRouteV2 { paths: vec![labels], ..IpRouteV2::default() };
    let error = IpRouteAddDelV2 { route, ..IpRouteAddDelV2::default() }.encode(&mut Vec::new()).unwrap_err();
    assert_eq!(error.field(), "route.paths.n_labels");
}

/// There are more IP protocols than VPP has names for.
#[test]
fn a_rule_may_be_for_any_protocol() {
    let rule = AclRule { proto: IpProto(103), ..AclRule::default() };
    let request =
        AclAddReplace { r: vec![rule, AclRule { proto: IpProto::TCP, ..AclRule::default() }], ..Default::default() };
    let mut body = Vec::new();
    request.encode(&mut body).unwrap();
    assert_eq!(AclAddReplace::decode(&mut Input::new(&body)).unwrap(), request);
    let ours = Definitions::ours();
    for definitions in [&ours, &Definitions::from_json(&ours.to_json("all").to_string()).unwrap()] {
        let message = &definitions.messages["acl_add_replace"];
        let read = definitions.decode(message, &body).unwrap();
        assert_eq!((&read["r"][0]["proto"], &read["r"][1]["proto"]), (&json!(103), &json!("IP_API_PROTO_TCP")));
        assert_eq!(definitions.encode(message, &read).unwrap(), body);
        let large = definitions.encode(message, &json!({ "r": [{ "proto": 256 }] })).unwrap_err();
        assert_eq!(large.to_string(), "r.0.proto: expected a number from 0 to 255, found 256");
    }
}

#[test]
fn what_does_not_fit_says_where_and_what_would() {
    let error = |tunnel: VxlanAddDelTunnelV3| tunnel.encode(&mut Vec::new()).unwrap_err();
    let wide = error(VxlanAddDelTunnelV3 { vni: 1 << 24, ..VxlanAddDelTunnelV3::default() });
    assert_eq!(wide.to_string(), "vni: 16777216, expected 0 to 16777215: VPP takes others and does something else");
    let long =
        MemifCreateV2 { secret: "x".repeat(24), ..MemifCreateV2::default() }.encode(&mut Vec::new()).unwrap_err();
    assert_eq!((long.field(), long.problem()), ("secret", &EncodeProblem::Long { length: 24, most: 23 }));
    let paths = vec![FibPath::default(); 256];
    let route = IpRouteAddDelV2 { route: IpRouteV2 { paths, ..IpRouteV2::default() }, ..IpRouteAddDelV2::default() };
    let many = route.encode(&mut Vec::new()).unwrap_err();
    assert_eq!(many.to_string(), "route.paths: 256 elements, more than a count of 8 bits can say: send fewer");
    assert!(Prefix::new([10, 0, 0, 0], 33).is_err());
}

#[test]
fn an_address_union_is_what_it_was_made_of() {
    let four: std::net::IpAddr = "10.1.2.3".parse().unwrap();
    assert_eq!(AddressUnion::from(four), AddressUnion::from_ip4(&"10.1.2.3".parse().unwrap()).unwrap());
    assert_eq!(AddressUnion::from(four).ip4().unwrap().to_string(), "10.1.2.3");
}

#[test]
fn definitions_of_others_come_back_as_they_were_told() {
    let ours = Definitions::ours();
    let told = Definitions::from_json(&ours.to_json("all").to_string()).unwrap();
    assert_eq!(told.services, ours.services);
    for (name, message) in &ours.messages {
        assert_eq!((told.messages[name].crc, told.messages[name].head), (message.crc, message.head), "{name}");
    }
    let mut random = Random::new(7);
    for (name, message) in &ours.messages {
        let fields = random.fields(&ours, &message.fields);
        assert_eq!(told.encode(&told.messages[name], &fields), ours.encode(message, &fields), "{name}");
    }
}

#[test]
fn an_installed_directory_is_read_with_those_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let none = Definitions::from_directory(dir.path()).unwrap_err().to_string();
    assert!(none.contains("no *.api.json there"), "{none}");
    let ours = Definitions::ours();
    let plugins = dir.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::write(dir.path().join("README"), "not this").unwrap();
    std::fs::write(plugins.join("all.api.json"), ours.to_json("all").to_string()).unwrap();
    let read = Definitions::from_directory(dir.path()).unwrap();
    assert_eq!((read.messages.len(), read.services == ours.services), (ours.messages.len(), true));
    std::fs::write(plugins.join("cut.api.json"), "{\"messages\": [").unwrap();
    let cut = Definitions::from_directory(dir.path()).unwrap_err().to_string();
    assert!(cut.contains("cut.api.json"), "{cut}");
}

#[test]
fn definitions_that_make_no_sense_are_refused() {
    let refused = |json: Value| Definitions::from_json(&json.to_string()).unwrap_err().to_string();
    let circle = json!({ "types": [["a", ["vl_api_b_t", "b"]], ["b", ["vl_api_a_t", "a"]]] });
    assert!(refused(circle).ends_with("contains itself"));
    assert_eq!(refused(json!({ "types": [["a", ["vl_api_b_t", "b"]]] })), "type b is not defined");
    assert!(refused(json!({ "messages": [["a", ["u16", "_vl_msg_id"]]] })).starts_with("a: expected a crc"));
    assert!(refused(json!({ "messages": 7 })).starts_with("messages: expected an array"));
    let counted = json!({ "messages": [["a", ["u16", "_vl_msg_id"], ["u8", "x", 0, "n"], { "crc": "0x1" }]] });
    assert!(refused(counted).contains("no number before it"));
    let huge = json!({ "types": [["a", ["u8", "x", 1 << 20]], ["b", ["vl_api_a_t", "y", 1 << 20]]] });
    assert!(refused(huge).contains("expected at most"));
    let width = json!({ "enums": [["a", ["A", 0], { "enumtype": "vl_api_a_t" }]] });
    assert_eq!(refused(width), "a has the width a, expected an integer");
    let many: Vec<Value> = (0..2000).map(|at| json!(["u8", format!("f{at}")])).collect();
    let many = [json!("a")].into_iter().chain(many).collect::<Value>();
    assert_eq!(refused(json!({ "types": [many] })), "2000 fields, expected at most 1024");
}

/// A byte of a message may be hundreds of JSON.
#[test]
fn json_takes_no_more_memory_than_allowed() {
    let told = json!({
        "types": [["one", ["u8", "x"]]],
        "messages": [["m", ["u16", "_vl_msg_id"], ["vl_api_one_t", "all", 0], { "crc": "0x1" }]],
    });
    let told = Definitions::from_json(&told.to_string()).unwrap();
    let message = &told.messages["m"];
    let error = told.decode(message, &vec![0; 1 << 20]).unwrap_err();
    assert!(matches!(error.problem(), DecodeProblem::Large { .. }), "{error}");
    let (few, memory) = told.decode_within(message, &[0; 100], 1 << 20).unwrap();
    assert_eq!(few["all"].as_array().unwrap().len(), 100);
    assert!(told.decode_within(message, &[0; 100], memory).is_ok());
    assert!(told.decode_within(message, &[0; 100], memory - 1).is_err());
}

/// Whatever reads by them would end the process with its stack.
#[test]
fn definitions_that_are_nested_too_deep_are_refused_in_whatever_order_they_come() {
    let chain = |length: usize, next: fn(usize) -> usize| {
        let name = |at: usize| format!("t{at:06}");
        let types = (1..length).map(|at| {
            let inner = if at + 1 == length { json!("u8") } else { json!(format!("vl_api_{}_t", name(next(at + 1)))) };
            json!([name(next(at)), [inner, "x"]])
        });
        let outer = format!("vl_api_{}_t", name(next(1)));
        let message = json!(["m", ["u16", "_vl_msg_id"], [outer, "x"], { "crc": "0x1" }]);
        Definitions::from_json(&json!({ "types": types.collect::<Value>(), "messages": [message] }).to_string())
    };
    for order in [|at| at, |at| 200_000 - at] {
        let deep = chain(100_000, order).unwrap_err().to_string();
        assert!(deep.ends_with("expected at most 64 types in one another"), "{deep}");
        assert!(chain(66, order).is_err());
        let most = chain(65, order).unwrap();
        let body = most.encode(&most.messages["m"], &json!({})).unwrap();
        most.decode(&most.messages["m"], &body).unwrap();
    }
}

/// Measured once for each type, not for each way to it.
#[test]
fn definitions_that_double_are_measured_at_once() {
    let struct_of = |at: usize| {
        let inner = if at == 0 { json!("u8") } else { json!(format!("vl_api_t{:02}_t", at - 1)) };
        json!([format!("t{at:02}"), [inner, "x"], [inner, "y"]])
    };
    let unions = (0..1000).map(|at| json!([format!("u{at}"), ["vl_api_t22_t", "x"]])).collect::<Value>();
    let types = (0..23).map(struct_of).collect::<Value>();
    Definitions::from_json(&json!({ "types": types, "unions": unions }).to_string()).unwrap();
}

#[test]
fn a_key_that_no_field_has_is_refused_by_name() {
    let ours = Definitions::ours();
    let message = &ours.messages["sw_interface_set_flags"];
    let error = ours.encode(message, &json!({ "flag": 1 })).unwrap_err();
    assert_eq!(error.to_string(), "there is no flag; the fields are: sw_if_index, flags");
}

#[test]
fn flags_are_names_or_bits_that_have_one() {
    let ours = Definitions::ours();
    let message = &ours.messages["sw_interface_set_flags"];
    let flags = |flags: Value| ours.encode(message, &json!({ "flags": flags }));
    let up = flags(json!(["IF_STATUS_API_FLAG_ADMIN_UP"])).unwrap();
    assert_eq!(up, [0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!((flags(json!("IF_STATUS_API_FLAG_ADMIN_UP")).unwrap(), flags(json!(1)).unwrap()), (up.clone(), up));
    for wrong in [json!("up"), json!(["up"]), json!(4), json!(-1), json!(true), json!("~0")] {
        let error = flags(wrong).unwrap_err().to_string();
        let expected = "flags: expected an array of names out of IF_STATUS_API_FLAG_ADMIN_UP, \
                        IF_STATUS_API_FLAG_LINK_UP, or a number of their bits, found ";
        assert!(error.starts_with(expected), "{error}");
    }
    let mut unnamed = Input::new(&[0, 0, 0, 4]);
    let error = IfStatusFlags::take(&mut unnamed).unwrap().put(&mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "4 is no IfStatusFlags: choose one that has a name");
}
