//! Plans: configuration, annotations and definitions to ordered networks.

use std::collections::BTreeMap;

use nsm_cni_types::{Command, Stdin};
use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Cluster {
    definitions: BTreeMap<(String, String), Definition>,
    devices: Vec<String>,
}

impl Cluster {
    fn with(mut self, namespace: &str, name: &str, config: &Value) -> Self {
        let config = if config.is_null() { String::new() } else { config.to_string() };
        self.definitions.insert((namespace.into(), name.into()), Definition { config, resource_name: None });
        self
    }
}

impl Lookup for Cluster {
    fn definition(&mut self, namespace: &str, name: &str) -> Option<Definition> {
        self.definitions.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn device(&mut self, resource: &str, named: Option<&str>) -> Result<String, String> {
        let place = self.devices.iter().rposition(|device| named.is_none_or(|named| device == named));
        place.map(|place| self.devices.remove(place)).ok_or_else(|| format!("the pod has no {named:?} of {resource}"))
    }
}

fn meta(keys: &Value) -> Meta {
    let mut all = json!({"cniVersion": "1.0.0", "name": "meta", "type": "nsm-cni", "clusterNetwork": "cbr0"});
    for (key, value) in keys.as_object().unwrap() {
        all[key] = value.clone();
    }
    Meta::parse(&Stdin::parse(all.to_string().as_bytes(), &Command::Add).unwrap()).unwrap()
}

fn networks(text: &str) -> Annotations {
    Annotations { networks: Some(text.to_owned()), default_network: None }
}

fn planned(meta: &Meta, asked: &Annotations, mut cluster: Cluster) -> Result<Vec<Planned>, String> {
    plan(meta, "eth0", "default", asked, &mut cluster).map_err(|error| error.to_string())
}

fn names(all: &[Planned]) -> Vec<(&str, &str)> {
    all.iter().map(|one| (&*one.name, &*one.ifname)).collect()
}

fn two() -> Cluster {
    let bridge = json!({"type": "bridge"});
    Cluster::default().with("default", "a", &bridge).with("other", "b", &bridge)
}

#[test]
fn order_and_interfaces() {
    let conf = meta(&json!({"defaultNetworks": ["extra"]}));
    let cluster = two().with("kube-system", "cbr0", &json!({"name": "own", "type": "ptp"}));
    let all = planned(&conf, &networks("a,other/b@ext0,a"), cluster).unwrap();
    assert_eq!(
        names(&all),
        [("own", "eth0"), ("extra", "net1"), ("default/a", "net2"), ("other/b", "ext0"), ("default/a", "net4")]
    );
    assert_eq!(all[1].network, Network::File("extra".into()));
    // A name that is asked for is not given to another.
    let all = planned(&meta(&json!({})), &networks("a,a@net1"), two()).unwrap();
    assert_eq!(names(&all), [("cbr0", "eth0"), ("default/a", "net2"), ("default/a", "net1")]);
    let why = planned(&conf, &networks("a@eth0"), two()).unwrap_err();
    assert!(why.contains("interface \"eth0\" is the pod's first one"), "{why}");
}

#[test]
fn system_namespaces_have_no_default_networks() {
    let conf = meta(&json!({"defaultNetworks": ["extra"], "systemNamespaces": ["default"]}));
    assert_eq!(names(&planned(&conf, &networks("a"), two()).unwrap()), [("cbr0", "eth0"), ("default/a", "net1")]);
}

#[test]
fn what_every_pod_gets_needs_no_device() {
    let conf = meta(&json!({"defaultNetworks": ["fast"]}));
    let mut cluster = two().with("kube-system", "cbr0", &json!({"name": "own", "type": "ptp"})).with(
        "kube-system",
        "fast",
        &json!({"type": "sriov"}),
    );
    let fast = cluster.definitions.get_mut(&("kube-system".to_owned(), "fast".to_owned())).unwrap();
    fast.resource_name = Some("example.com/vf".to_owned());
    assert!(plan(&conf, "eth0", "", &Annotations::default(), &mut cluster).is_err());
    let all = plan_everybodys(&conf, "eth0", &mut cluster).unwrap();
    assert_eq!(names(&all), [("own", "eth0"), ("kube-system/fast", "net1")]);
    let Network::List(list) = &all[1].network else { panic!("{all:?}") };
    assert_eq!(list.to_json(), json!({"name": "fast", "plugins": [{"type": "sriov"}]}));
}

#[test]
fn delegates_in_the_configuration() {
    let conf =
        meta(&json!({"clusterNetwork": null, "delegates": [{"type": "ptp"}, {"name": "second", "type": "bridge"}]}));
    let all = planned(&conf, &networks("a"), two()).unwrap();
    assert_eq!(names(&all), [("meta", "eth0"), ("second", "net1"), ("default/a", "net2")]);
}

#[test]
fn isolation_counts_for_the_default_network_too() {
    let conf = meta(&json!({"namespaceIsolation": true}));
    assert!(planned(&conf, &networks("a"), two()).is_ok());
    let why = planned(&conf, &networks("other/b"), two()).unwrap_err();
    assert!(why.contains("\"other/b\" is not for pods of namespace \"default\"") && why.contains("(default)"), "{why}");
    let instead = |text: &str| Annotations { networks: None, default_network: Some(text.into()) };
    assert!(planned(&conf, &instead("other/b"), two()).unwrap_err().contains("namespaceIsolation"));
    let open = meta(&json!({"namespaceIsolation": true, "globalNamespaces": "default, other"}));
    assert_eq!(names(&planned(&open, &instead("other/b"), two()).unwrap()), [("other/b", "eth0")]);
    // A name without a namespace is looked for where the administrator's networks are, which is no exception.
    let cluster = || two().with("kube-system", "c", &json!({"type": "ptp"}));
    assert!(planned(&conf, &instead("c"), cluster()).unwrap_err().contains("namespaceIsolation"));
    let open = meta(&json!({"namespaceIsolation": true, "globalNamespaces": "kube-system"}));
    assert_eq!(names(&planned(&open, &instead("c"), cluster()).unwrap()), [("kube-system/c", "eth0")]);
}

#[test]
fn what_is_not_there_is_said_by_name() {
    let why = planned(&meta(&json!({})), &networks("x"), two()).unwrap_err();
    assert!(why.contains("no NetworkAttachmentDefinition \"x\" in namespace \"default\""), "{why}");
    // Section 3.4.1: an object without a configuration is a file's.
    let all = planned(&meta(&json!({})), &networks("f"), two().with("default", "f", &Value::Null)).unwrap();
    assert_eq!((&*all[1].name, &all[1].network), ("default/f", &Network::File("f".into())));
}

#[test]
fn what_is_asked_reaches_the_plugins_4_1_2_1() {
    let config = json!({"args": {"cni": {"k": 1, "l": 2}}, "plugins": [
        {"type": "macvlan", "args": {"cni": {"k": 1, "l": 2}}, "capabilities": {"ips": true}},
        {"type": "tuning", "args": null}]});
    let cluster = || Cluster::default().with("default", "a", &config);
    let asked =
        json!([{"name": "a", "ips": ["10.0.0.2/24"], "mac": "02:00:00:00:00:01", "cni-args": {"k": 3}}]).to_string();
    let all = planned(&meta(&json!({})), &networks(&asked), cluster()).unwrap();
    let one = &all[1];
    assert_eq!(one.completion.cni_args, "MAC=02:00:00:00:00:01;IP=10.0.0.2/24");
    assert_eq!(
        Value::from(one.completion.capability_args.clone()),
        json!({"ips": ["10.0.0.2/24"], "mac": "02:00:00:00:00:01"})
    );
    assert_eq!((&one.ips[..], one.mac.as_deref()), (&["10.0.0.2/24".to_owned()][..], Some("02:00:00:00:00:01")));
    let Network::List(list) = &one.network else { panic!("{one:?}") };
    assert_eq!(list.plugins()[0]["args"]["cni"], json!({"k": 3, "l": 2}));
    assert_eq!(list.plugins()[1]["args"]["cni"], json!({"k": 3}));
    // One argument cannot say two addresses.
    let asked = json!([{"name": "a", "ips": ["10.0.0.2", "fd00::2"]}]).to_string();
    assert_eq!(planned(&meta(&json!({})), &networks(&asked), cluster()).unwrap()[1].completion.cni_args, "");
}

#[test]
fn what_no_plugin_declares_is_refused() {
    for (ask, capability) in [
        (json!({"portMappings": [{"hostPort": 1, "containerPort": 1}]}), "portMappings"),
        (json!({"bandwidth": {"ingressRate": 1}}), "bandwidth"),
        (json!({"infiniband-guid": "24:8a:07:03:00:8d:ae:2e"}), "infinibandGUID"),
        (json!({"ips": ["10.0.0.2", "fd00::2"]}), "ips"),
    ] {
        let mut ask = ask;
        ask["name"] = "a".into();
        let asked = networks(&json!([ask]).to_string());
        let why = planned(&meta(&json!({})), &asked, two()).expect_err(capability);
        assert!(why.contains(&format!("asks for {capability}, and no plugin")), "{why}");
        let declares = json!({"plugins": [{"type": "a"}, {"type": "b", "capabilities": {capability: true}}]});
        assert!(planned(&meta(&json!({})), &asked, Cluster::default().with("default", "a", &declares)).is_ok());
        let says_no = json!({"type": "a", "capabilities": {capability: false}});
        assert!(planned(&meta(&json!({})), &asked, Cluster::default().with("default", "a", &says_no)).is_err());
    }
}

#[test]
fn devices_are_given_one_after_another() {
    let mut cluster = two();
    cluster.definitions.get_mut(&("default".into(), "a".into())).unwrap().resource_name = Some("x.com/sriov".into());
    cluster.devices = vec!["0000:02".into(), "0000:01".into()];
    let all = planned(&meta(&json!({})), &networks("a,a"), cluster).unwrap();
    let devices: Vec<_> = all[1..].iter().map(|one| one.completion.device_id.clone().unwrap()).collect();
    assert_eq!(devices, ["0000:01", "0000:02"]);
    let Network::List(list) = &all[1].network else { panic!("{all:?}") };
    assert_eq!(
        (&list.plugins()[0]["deviceID"], &list.plugins()[0]["pciBusID"]),
        (&json!("0000:01"), &json!("0000:01"))
    );
    let mut none = two();
    none.definitions.get_mut(&("default".into(), "a".into())).unwrap().resource_name = Some("x.com/sriov".into());
    let why = planned(&meta(&json!({})), &networks("a"), none).unwrap_err();
    assert!(why.contains("network \"default/a\" needs a device of \"x.com/sriov\""), "{why}");
}

#[test]
fn nobody_names_a_device_that_is_not_the_pods() {
    let asked = |id: &str| networks(&json!([{"name": "a", "deviceID": id}]).to_string());
    let with = || {
        let mut cluster = two();
        cluster.definitions.get_mut(&("default".into(), "a".into())).unwrap().resource_name =
            Some("x.com/sriov".into());
        cluster.devices = vec!["0000:02".into(), "0000:01".into()];
        cluster
    };
    let all = planned(&meta(&json!({})), &asked("0000:02"), with()).unwrap();
    assert_eq!(all[1].completion.device_id.as_deref(), Some("0000:02"));
    let why = planned(&meta(&json!({})), &asked("0000:3b"), with()).unwrap_err();
    assert!(why.contains("needs a device of \"x.com/sriov\"") && why.contains("0000:3b"), "{why}");
    // Without a resource it is told to plugins that declare it, and put into no configuration.
    assert!(planned(&meta(&json!({})), &asked("0000:3b"), two()).unwrap_err().contains("asks for deviceID"));
    let declares = Cluster::default().with("default", "a", &json!({"type": "a", "capabilities": {"deviceID": true}}));
    let all = planned(&meta(&json!({})), &asked("0000:3b"), declares).unwrap();
    let Network::List(list) = &all[1].network else { panic!("{all:?}") };
    assert_eq!((all[1].completion.device_id.as_ref(), list.plugins()[0].get("deviceID")), (None, None));
}

#[test]
fn what_a_plan_is_made_of_is_bounded() {
    let long = json!({"type": "a", "x": "x".repeat(60 << 10)});
    let asked = |times: usize| networks(&vec!["a"; times].join(","));
    assert!(planned(&meta(&json!({})), &asked(8), Cluster::default().with("default", "a", &long)).is_ok());
    let why = planned(&meta(&json!({})), &asked(9), Cluster::default().with("default", "a", &long)).unwrap_err();
    assert!(why.contains("expected at most 524288 of all networks together"), "{why}");
    // Of networks that a running pod gets, those that are not too much are planned.
    let mut cluster = Cluster::default().with("default", "a", &long).with("default", "b", &json!({"type": "b"}));
    let selections = Selection::parse(crate::NETWORKS, "a,a,a,a,a,a,a,a,a,b").unwrap();
    let all = plan_added(&meta(&json!({})), "default", &selections, &mut cluster);
    let refused: Vec<usize> = (0..all.len()).filter(|place| all[*place].is_err()).collect();
    assert_eq!(refused, [8]);
    assert!(all[8].as_ref().unwrap_err().to_string().contains("of all networks together"), "{:?}", all[8]);
}

#[test]
fn names_beside_those_that_a_pod_has() {
    let asked = Selection::parse(crate::NETWORKS, "a,b@x,c,d@net1").unwrap();
    let taken = ["eth0", "net1", "net2"].map(str::to_owned).into();
    let names = names_for(&asked, &taken);
    assert_eq!(names, [Some("net3".to_owned()), Some("x".into()), Some("net4".into()), None]);
}
