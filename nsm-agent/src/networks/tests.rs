//! Plans without a cluster, refusals, and what is told.

use nsm_cni_types::pods;
use nsm_npwg::Error;
use nsm_proto::cni::{self, NetworkAnnotations, SettledNetwork};
use serde_json::json;
use tonic::Code;

use super::*;

struct Place {
    networks: Networks,
    _dir: tempfile::TempDir,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let (settled, _) = Records::open(dir.path(), "boot").unwrap();
    let devices = Devices::at(dir.path().join("kubelet.sock"));
    Place { networks: Networks::of_host(devices, settled), _dir: dir }
}

fn key() -> AttachmentKey {
    AttachmentKey { container_id: "c1".into(), ifname: "eth0".into() }
}

fn request(configuration: &serde_json::Value, networks: &str) -> PlanRequest {
    PlanRequest {
        pod: Some(cni::Pod { name: "p".into(), namespace: "default".into(), uid: "u".into() }),
        annotations: Some(NetworkAnnotations { networks: networks.into(), default_network: String::new() }),
        configuration: configuration.to_string(),
        timeout_ms: 1000,
        ..PlanRequest::default()
    }
}

fn conf() -> serde_json::Value {
    json!({"cniVersion": "1.0.0", "name": "meta", "type": "nsm-cni", "delegates": [{"name": "own", "type": "ptp"}]})
}

#[tokio::test]
async fn without_a_cluster_networks_are_files() {
    let place = place();
    let asked = r#"[{"name": "a", "mac": "02:00:00:00:00:01", "default-route": ["10.0.0.1"], "cni-args": {"k": 1}}]"#;
    let plan = place.networks.plan(&key(), request(&conf(), asked)).await.unwrap();
    let [own, a] = &plan.networks[..] else { panic!("{plan:?}") };
    assert_eq!((&*own.name, &*own.ifname, &*own.file), ("own", "eth0", ""));
    assert!(own.configuration.contains("\"ptp\"") && !own.takes_default_route && own.capability_args.is_empty());
    assert_eq!((&*a.name, &*a.ifname, &*a.file), ("default/a", "net1", "a"));
    assert_eq!((&*a.mac, &*a.cni_args, &*a.args), ("02:00:00:00:00:01", "MAC=02:00:00:00:00:01", r#"{"k":1}"#));
    assert_eq!((&a.default_route[..], a.takes_default_route), (&["10.0.0.1".to_owned()][..], true));
}

#[tokio::test]
async fn refusals_say_whether_to_try_again() {
    let place = place();
    let code = async |configuration, networks| {
        place.networks.plan(&key(), request(&configuration, networks)).await.unwrap_err().code()
    };
    assert_eq!(code(json!({"name": "n", "type": "nsm-cni"}), "").await, Code::InvalidArgument);
    assert_eq!(code(conf(), "A").await, Code::InvalidArgument);
    let isolated = json!({"name": "n", "clusterNetwork": "a", "namespaceIsolation": true});
    assert_eq!(code(isolated, "kube-system/a").await, Code::PermissionDenied);
    let missing = Error::NoDefinition { namespace: "n".into(), name: "a".into() };
    assert_eq!(Status::from(Refusal::from(missing)).code(), Code::NotFound);
    assert_eq!(Status::from(Refusal::NotNow("x".into())).code(), Code::Unavailable);
}

#[tokio::test]
async fn what_is_made_is_kept_while_its_sandbox_is() {
    let place = place();
    let result = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/n"}],
        "ips": [{"interface": 0, "address": "10.0.0.2/24"}]});
    let made = |container: &str, result: &str| {
        let key = AttachmentKey { container_id: container.into(), ..key() };
        let network = SettledNetwork {
            name: "own".into(),
            ifname: "eth0".into(),
            result: result.into(),
            default: true,
            device_info: String::new(),
            note: "of another version".into(),
        };
        let pod = Some(cni::Pod { name: "p".into(), namespace: "default".into(), uid: "u".into() });
        place.networks.settle(key, SettledRequest { pod, networks: vec![network], key: None })
    };
    made("c1", &result.to_string()).await.unwrap();
    // The sandbox of the same pod that was made anew.
    made("c2", &result.to_string()).await.unwrap();
    let all = place.networks.settled.all();
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&*one.key.container_id, &*one.told()), ("c2", "Add eth0 [10.0.0.2] from own"));
    let entries: Vec<_> = one.entries().map(|entry| json!(entry)).collect();
    assert_eq!(entries, [json!({"name": "own", "interface": "eth0", "ips": ["10.0.0.2"], "default": true, "dns": {}})]);
    assert!(made("c3", "{").await.unwrap_err().message().contains("expected JSON"));
    let cni_socket = tempfile::tempdir().unwrap();
    let sandboxes = Sandboxes::open(&cni_socket.path().join("cni.sock")).unwrap();
    let networks = Arc::new(place.networks);
    let keeping = tokio::spawn(networks.clone().keep(sandboxes));
    let mut changes = networks.settled.changes();
    changes.changed().await.unwrap();
    assert!(networks.settled.is_empty());
    keeping.abort();
    assert!(pods::folder(&cni_socket.path().join("cni.sock")).exists());
}

#[tokio::test]
async fn what_a_plan_knows_is_known_to_the_agent_after_it() {
    let plan = place().networks.plan(&key(), request(&conf(), "a@some, b")).await.unwrap();
    let result = json!({"cniVersion": "1.1.0"}).to_string();
    let settled = |one: cni::PlannedNetwork| {
        let default = one.ifname == "eth0";
        let (name, ifname, result, note) = (one.name, one.ifname, result.clone(), one.note);
        SettledNetwork { name, ifname, result, default, device_info: String::new(), note }
    };
    let networks = plan.networks.into_iter().map(settled).collect();
    let pod = Some(cni::Pod { name: "p".into(), namespace: "default".into(), uid: "u".into() });
    let next = place();
    next.networks.settle(key(), SettledRequest { pod, networks, key: None }).await.unwrap();
    let all = next.networks.settled.all();
    let asked: Vec<_> = all[0].networks.iter().map(|one| one.asked.as_ref().map(|asked| asked.name.as_str())).collect();
    assert_eq!(asked, [None, Some("a"), Some("b")]);
}

#[tokio::test]
async fn a_kubelet_that_is_away_is_named() {
    let place = place();
    let pod = Pod { name: "p".into(), namespace: "default".into(), uid: "u".into() };
    let why = place.networks.devices.of_pod(&pod, Instant::now() + Duration::from_secs(1)).await.unwrap_err();
    assert!(why.contains("kubelet.sock") && why.contains("--pod-resources"), "{why}");
}
