//! Vectors of NPWG section 5.2.

use nsm_cni_types::Version;
use serde_json::json;

use super::*;

fn told(result: &Value, is_default: bool) -> Value {
    let result = Answer::parse(result, Version::NEWEST).unwrap();
    json!(entries("ns/net", "net1", is_default, None, &result))
}

#[test]
fn one_interface_with_gateway() {
    let bridge = json!({"interfaces": [{"name": "br0"}, {"name": "veth1"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1400, "sandbox": "/n"}],
        "ips": [{"interface": 2, "address": "10.0.0.2/24", "gateway": "10.0.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.9.9.9"], "domain": "x"}});
    assert_eq!(
        told(&bridge, true),
        json!([{"name": "ns/net", "interface": "eth0", "ips": ["10.0.0.2"], "mac": "02:00:00:00:00:01", "mtu": 1400, "default": true,
            "dns": {"nameservers": ["10.9.9.9"], "domain": "x"}, "gateway": ["10.0.0.1"]}])
    );
}

#[test]
fn a_route_without_gateway_is_no_gateway() {
    let ptp = json!({"interfaces": [{"name": "net1", "sandbox": "/n"}], "ips": [{"interface": 0, "address": "10.0.0.2/24"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.1.0.0/16", "gw": "10.0.0.9"}]});
    assert_eq!(told(&ptp, false), json!([{"name": "ns/net", "interface": "net1", "ips": ["10.0.0.2"], "dns": {}}]));
}

#[test]
fn several_interfaces_each_have_their_own() {
    let result = json!({"interfaces": [{"name": "a", "sandbox": "/n"}, {"name": "h"}, {"name": "b", "sandbox": "/n"}],
        "ips": [{"interface": 0, "address": "10.0.0.2/24"}, {"interface": 2, "address": "10.1.0.2/24"}, {"address": "fd00::2/64"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0", "gw": "fd00::1"}]});
    assert_eq!(
        told(&result, true),
        json!([{"name": "ns/net", "interface": "a", "ips": ["10.0.0.2"], "dns": {}},
            {"name": "ns/net", "interface": "b", "ips": ["10.1.0.2", "fd00::2"], "default": true, "dns": {}, "gateway": ["10.1.0.1", "fd00::1"]}])
    );
}

#[test]
fn results_without_interfaces() {
    let old = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]}});
    assert_eq!(
        told(&old, false),
        json!([{"name": "ns/net", "interface": "net1", "ips": ["10.0.0.2"], "dns": {}, "gateway": ["10.0.0.1"]}])
    );
    assert_eq!(
        told(&json!({"cniVersion": "0.1.0"}), false),
        json!([{"name": "ns/net", "interface": "net1", "dns": {}}])
    );
}

#[test]
fn no_interface_is_invented() {
    for made in [json!({}), json!({"cniVersion": "0.3.0", "interfaces": []}), json!({"interfaces": [{"name": "br0"}]})]
    {
        for is_default in [false, true] {
            assert_eq!(told(&made, is_default), json!([]));
        }
    }
    let addresses = json!({"interfaces": [], "ips": [{"address": "10.0.0.2/24"}]});
    assert_eq!(told(&addresses, false), json!([{"name": "ns/net", "ips": ["10.0.0.2"], "dns": {}}]));
    let device = entries("ns/net", "net1", false, Some(json!({"type": "pci"})), &Answer::new(Version::NEWEST));
    assert_eq!(json!(device), json!([{"name": "ns/net", "dns": {}, "device-info": {"type": "pci"}}]));
}
