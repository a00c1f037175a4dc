use serde_json::json;

use super::*;

fn bytes(json: &Value) -> String {
    STANDARD.encode(json.to_string())
}

fn call(container: &str) -> Environment {
    Environment {
        command: nsm_cni_types::Command::Del,
        container_id: container.to_owned(),
        netns: String::new(),
        ifname: "eth0".to_owned(),
        args: "IgnoreUnknown=1".to_owned(),
        netns_override: false,
    }
}

#[test]
fn the_cache_is_believed_and_the_list_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let list = json!([
        {"Conf": {"name": "", "type": ""}, "ConfList": {"name": "a"}, "Name": "a",
         "Bytes": bytes(&json!({"name": "a", "plugins": [{"type": "ptp"}]}))},
        {"Conf": {"name": "b", "type": "bridge"}, "ConfList": {}, "Name": "team/b", "ifnameRequest": "x0",
         "Bytes": bytes(&json!({"cniVersion": "0.3.1", "name": "b", "type": "bridge"}))},
        {"Conf": {"name": "b", "type": "bridge"}, "Name": "team/b",
         "Bytes": bytes(&json!({"name": "b", "type": "bridge"}))},
    ]);
    fs::write(dir.path().join("c1"), list.to_string()).unwrap();
    fs::write(dir.path().join("other"), "no JSON").unwrap();
    fs::create_dir(dir.path().join("results")).unwrap();
    let whole =
        json!({"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "ptp", "ipam": {"type": "host-local"}}]});
    let cached = json!({"kind": KIND, "containerId": "c1", "config": bytes(&whole), "ifName": "eth0", "networkName": "a",
        "cniArgs": [["IgnoreUnknown", "true"], ["K8S_POD_NAME", "p"]], "capabilityArgs": {"mac": "x"}, "result": {"ips": []}});
    fs::write(dir.path().join("results/a-c1-eth0"), cached.to_string()).unwrap();
    let pod = pod(dir.path(), &call("c1"), Version::V0_4_0).unwrap();
    let told: Vec<_> = pod.networks.iter().map(|one| (one.name.as_str(), one.ifname.as_str())).collect();
    assert_eq!(told, [("a", "eth0"), ("team/b", "x0"), ("team/b", "net2")]);
    let versions: Vec<_> = pod.networks.iter().map(|one| one.list.cni_version.as_str()).collect();
    assert_eq!(versions, ["1.0.0", "0.3.1", "0.4.0"]);
    assert_eq!(pod.networks[0].list.plugins[0]["ipam"]["type"], "host-local");
    assert_eq!(pod.networks[0].args, "IgnoreUnknown=true;K8S_POD_NAME=p");
    assert_eq!(pod.results["eth0"], json!({"ips": []}));
    assert_eq!(known(dir.path()), ["c1"]);
    assert!(super::pod(dir.path(), &call("c2"), Version::V0_4_0).is_none());
    // The list is lost.
    fs::remove_file(dir.path().join("c1")).unwrap();
    let pod = super::pod(dir.path(), &call("c1"), Version::V0_4_0).unwrap();
    assert_eq!((pod.networks.len(), known(dir.path())), (1, vec!["c1".to_owned()]));
    pod.forget().unwrap();
    assert!(known(dir.path()).is_empty());
}

fn known(cni_dir: &Path) -> Vec<String> {
    pods(cni_dir, Version::V0_4_0).pods.into_iter().map(|pod| pod.container_id).collect()
}

#[test]
fn what_cannot_be_read_is_not_forgotten_and_what_would_call_itself_not_called() {
    let dir = tempfile::tempdir().unwrap();
    let list = json!([
        {"Conf": {"name": "a", "type": "ptp"}, "Bytes": bytes(&json!({"name": "a", "type": "ptp"}))},
        {"Conf": {"name": "m", "type": "multus"}, "Bytes": bytes(&json!({"name": "m", "type": "multus"}))},
        {"Conf": {"name": "b", "type": "bridge"}, "Bytes": "no base64"},
    ]);
    fs::write(dir.path().join("c1"), list.to_string()).unwrap();
    let pod = pod(dir.path(), &call("c1"), Version::V0_4_0).unwrap();
    assert_eq!(pod.networks.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a"]);
    let error = pod.forget().unwrap_err();
    assert!(error.msg.contains("network \"b\" cannot be read"), "{}", error.msg);
    assert_eq!(known(dir.path()), ["c1"]);
    assert!(!pod.has_lost_its_namespace(), "nothing says where it was");
}

#[test]
fn the_cache_says_which_interface_is_the_first_and_where_the_namespace_was() {
    let dir = tempfile::tempdir().unwrap();
    let conf = bytes(&json!({"name": "a", "type": "ptp"}));
    let list = json!([{"Conf": {"name": "a", "type": "ptp"}, "Bytes": conf}]);
    fs::write(dir.path().join("c1"), list.to_string()).unwrap();
    fs::create_dir(dir.path().join("results")).unwrap();
    let netns = dir.path().join("netns");
    let cached = json!({"kind": KIND, "containerId": "c1", "config": conf, "ifName": "ens3", "networkName": "a", "netns": netns});
    fs::write(dir.path().join("results/a-c1-ens3"), cached.to_string()).unwrap();
    let all = pods(dir.path(), Version::V0_4_0).pods;
    assert_eq!((all.len(), all[0].ifname.as_str()), (1, "ens3"));
    assert!(all[0].has_lost_its_namespace());
    fs::write(&netns, "").unwrap();
    assert!(!all[0].has_lost_its_namespace());
}

#[test]
fn what_may_be_about_a_pod_and_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let unread = || pods(dir.path(), Version::V0_4_0).unread;
    let conf = bytes(&json!({"name": "a", "type": "ptp"}));
    fs::write(dir.path().join("c1"), json!([{"Conf": {"name": "a", "type": "ptp"}, "Bytes": conf}]).to_string())
        .unwrap();
    fs::write(dir.path().join("readme"), "no list").unwrap();
    assert!(!unread() && !pods(&dir.path().join("nowhere"), Version::V0_4_0).unread);
    let list = dir.path().join("ab".repeat(32));
    fs::write(&list, "[{").unwrap();
    assert!(unread(), "the list of a container");
    fs::remove_file(&list).unwrap();
    fs::create_dir(dir.path().join("results")).unwrap();
    assert!(!unread());
    let entry = dir.path().join("results/a-c2-eth0");
    fs::write(&entry, r#"{"kind": "cniCacheV1", "conta"#).unwrap();
    assert!(unread(), "an entry of the cache");
    fs::remove_file(&entry).unwrap();
    fs::write(dir.path().join("c3"), json!([{"Conf": {"name": "b", "type": "ptp"}, "Bytes": "no base64"}]).to_string())
        .unwrap();
    assert!(unread(), "a delegate");
}

#[test]
fn of_a_list_without_cache_all_keys_and_what_was_asked_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let whole =
        json!({"type": "ptp", "mine": [1], "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/24"}]]}});
    let stripped =
        json!({"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "ptp", "ipam": {"type": "host-local"}}]});
    let list = json!([{
        "Conf": {}, "ConfList": stripped, "Name": "team/a", "Bytes": bytes(&stripped), "IsFilterV4Gateway": false,
        "macRequest": "0a:00:00:00:00:01", "ipRequest": ["10.0.0.7", "10.0.0.8"], "deviceID": "0000:01:00.1",
        "CNINetworkConfigList": {"Name": "a", "CNIVersion": "1.0.0", "DisableCheck": true, "DisableGC": false,
            "Plugins": [{"Network": {"type": "ptp"}, "Bytes": bytes(&whole)}], "Bytes": ""},
    }]);
    fs::write(dir.path().join("c1"), list.to_string()).unwrap();
    let pod = pod(dir.path(), &call("c1"), Version::V0_4_0).unwrap();
    let [one] = &pod.networks[..] else { panic!("{:?}", pod.networks) };
    assert_eq!((one.name.as_str(), one.list.name.as_str(), one.ifname.as_str()), ("team/a", "a", "eth0"));
    assert_eq!(Value::Object(one.list.plugins[0].clone()), whole);
    assert!(one.list.disable_check && one.list.cni_version == "1.0.0");
    assert_eq!(one.args, "IgnoreUnknown=1;MAC=0a:00:00:00:00:01;IP=10.0.0.7,10.0.0.8");
    assert_eq!(
        Value::Object(one.capability_args.clone()),
        json!({"mac": "0a:00:00:00:00:01", "ips": ["10.0.0.7", "10.0.0.8"], "deviceID": "0000:01:00.1"})
    );
}

#[test]
fn what_the_cache_alone_has_is_the_pods_too() {
    let dir = tempfile::tempdir().unwrap();
    let conf = |name: &str| bytes(&json!({"name": name, "type": "ptp"}));
    fs::write(dir.path().join("c1"), json!([{"Conf": {"name": "a", "type": "ptp"}, "Bytes": conf("a")}]).to_string())
        .unwrap();
    fs::create_dir(dir.path().join("results")).unwrap();
    let cached = json!({"kind": KIND, "containerId": "c1", "config": conf("b"), "ifName": "net5", "networkName": "b"});
    fs::write(dir.path().join("results/b-c1-net5"), cached.to_string()).unwrap();
    let pod = pod(dir.path(), &call("c1"), Version::V0_4_0).unwrap();
    let told: Vec<_> = pod.networks.iter().map(|one| (one.name.as_str(), one.ifname.as_str())).collect();
    assert_eq!(told, [("a", "eth0"), ("b", "net5")]);
    pod.forget().unwrap();
    assert!(known(dir.path()).is_empty() && !dir.path().join("results/b-c1-net5").exists());
}
