//! Vectors of the configuration reference.

use nsm_cni_types::Command;
use serde_json::json;

use super::*;

fn stdin(keys: &Value) -> Stdin {
    let mut all = json!({"cniVersion": "1.0.0", "name": "meta", "type": "multus"});
    for (key, value) in keys.as_object().unwrap() {
        all[key] = value.clone();
    }
    Stdin::parse(all.to_string().as_bytes(), &Command::Add).unwrap()
}

fn parsed(keys: &Value) -> Result<Meta, CniError> {
    Meta::parse(&stdin(keys))
}

#[test]
fn a_configuration_of_multus() {
    let meta = parsed(&json!({
        "clusterNetwork": "/etc/cni/net.d/10-flannel.conflist", "defaultNetworks": ["a", "b"], "systemNamespaces": ["kube-system", "s"],
        "multusNamespace": "nets", "namespaceIsolation": true, "globalNamespaces": "default, g", "confDir": "/c", "cniDir": "/d",
        "binDir": "/b", "readinessindicatorfile": "/run/ready", "auxiliaryCNIChainName": "vendor", "retryDeleteOnError": true,
        "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig", "logLevel": "verbose", "logToStderr": true,
        "logOptions": {"maxAge": 5}, "capabilities": {"portMappings": true}, "dns": {},
        "runtimeConfig": {"portMappings": [], "io.kubernetes.cri.pod-annotations": {"k8s.v1.cni.cncf.io/networks": "x", "networkservicemesh.io": "kernel://s"}},
    }))
    .unwrap();
    assert_eq!(meta.default, Chosen::ClusterNetwork("/etc/cni/net.d/10-flannel.conflist".into()));
    assert_eq!((meta.default_networks.len(), meta.system_namespaces.len()), (2, 2));
    assert_eq!(
        (&*meta.multus_namespace, &meta.global_namespaces[..]),
        ("nets", &["default".to_owned(), "g".into()][..])
    );
    assert!(meta.namespace_isolation && meta.auxiliary_chain.as_deref() == Some("vendor"));
    assert_eq!(meta.without_effect.len(), 5, "{:?}", meta.without_effect);
    let (networks, services) = meta.annotations().unwrap();
    assert_eq!((networks.networks.as_deref(), services.services.as_deref()), (Some("x"), Some("kernel://s")));
}

#[test]
fn keys_are_taken_in_any_case_as_by_multus() {
    let meta = parsed(&json!({
        "ClusterNetwork": "a", "LogLevel": "debug", "NAMESPACEISOLATION": true, "readinessIndicatorFile": "/ready", "CNIVersion": "9",
    }))
    .unwrap();
    assert_eq!(meta.default, Chosen::ClusterNetwork("a".into()));
    assert!(meta.namespace_isolation && meta.readiness_file.is_some() && meta.version == Version::V1_0_0);
    assert_eq!((meta.misspelled.len(), meta.without_effect.len()), (5, 1), "{meta:?}");
    assert!(meta.misspelled.contains(&"LogLevel is taken for logLevel: expected that spelling".to_owned()));
    assert!(meta.misspelled.iter().any(|told| told.starts_with("CNIVersion has no effect")));

    let twice = json!({"clusterNetwork": "a", "ClusterNetwork": "b", "binDir": "/b", "BINDIR": "/c"});
    let error = parsed(&twice).unwrap_err();
    assert_eq!(error.code, code::INVALID_CONFIG);
    assert!(
        error.msg.contains("BINDIR beside binDir: ") && error.msg.contains("ClusterNetwork beside"),
        "{}",
        error.msg
    );
    let (meta, mistakes) = Meta::lenient(&stdin(&twice));
    assert_eq!(
        (meta.bin_dir.to_str(), meta.default, mistakes.len()),
        (Some("/b"), Chosen::ClusterNetwork("a".into()), 2)
    );
    // Nobody but the agent writes these.
    let error = parsed(&json!({"clusterNetwork": "a", "Attach": {}})).unwrap_err();
    assert!(error.msg.contains("unknown key \"Attach\""), "{}", error.msg);
}

#[test]
fn defaults_are_those_of_multus() {
    let meta = parsed(&json!({"clusterNetwork": "a"})).unwrap();
    let paths = [&meta.conf_dir, &meta.cni_dir, &meta.bin_dir].map(|path| path.to_str().unwrap());
    assert_eq!(paths, ["/etc/cni/multus/net.d", "/var/lib/cni/multus", "/opt/cni/bin"]);
    assert_eq!((&*meta.multus_namespace, &*meta.system_namespaces), ("kube-system", &["kube-system".to_owned()][..]));
    assert!(!meta.namespace_isolation && meta.annotations().is_none());
}

#[test]
fn what_the_daemon_wrote_for_its_shim_names_files_of_the_host() {
    let of = |kind: &str| {
        let keys = json!({"type": kind, "clusterNetwork": "/host/etc/cni/net.d/10-a.conflist", "socketDir": "/host/run/multus/"});
        parsed(&keys).unwrap().default
    };
    assert_eq!(of("multus-shim"), Chosen::ClusterNetwork("/etc/cni/net.d/10-a.conflist".into()));
    assert_eq!(of("multus"), Chosen::ClusterNetwork("/host/etc/cni/net.d/10-a.conflist".into()));
}

#[test]
fn mistakes_are_told_at_once() {
    let error = parsed(&json!({
        "clusterNetwork": "../x", "confDir": "relative", "multusNamespace": "A", "globalNamespaces": "a,,b", "namespaceIsolation": 1,
        "defaultNetworks": [""], "systemNamespaces": "x", "auxiliaryCNIChainName": "a/b", "networkService": "s", "bin_dir": "/x",
    }))
    .unwrap_err();
    assert_eq!(error.code, code::UNSUPPORTED_FIELD);
    for word in [
        "clusterNetwork \"../x\"",
        "confDir \"relative\"",
        "multusNamespace \"A\"",
        "globalNamespaces",
        "namespaceIsolation 1",
        "defaultNetworks",
        "systemNamespaces",
        "auxiliaryCNIChainName",
        "networkService beside clusterNetwork",
        "unknown key \"bin_dir\"",
    ] {
        assert!(error.msg.contains(word), "{word}: {}", error.msg);
    }
    assert!(parsed(&json!({})).unwrap_err().msg.contains("clusterNetwork: expected it, or delegates"));
    assert!(parsed(&json!({"delegates": []})).unwrap_err().msg.contains("at least one configuration"));
    assert!(parsed(&json!({"delegates": [{"type": "multus"}]})).unwrap_err().msg.contains("delegates[0]"));
    assert!(parsed(&json!({"delegates": [{"plugins": []}]})).unwrap_err().msg.contains("plugins []"));
    let (meta, mistakes) = Meta::lenient(&stdin(&json!({"clusterNetwork": "a", "confDir": 1})));
    assert_eq!((meta.conf_dir.to_str(), mistakes.len()), (Some("/etc/cni/multus/net.d"), 1));
}

#[test]
fn which_configurations_are_meta() {
    for (keys, meta) in [
        (json!({"type": "nsm-cni", "networkService": "s"}), false),
        (json!({"type": "nsm-cni"}), false),
        (json!({"type": "nsm-cni", "clusterNetwork": "a"}), true),
        (json!({"type": "nsm-cni", "delegates": []}), true),
        (json!({"type": "nsm-cni", "delegates": null}), false),
        (json!({"type": "multus"}), true),
        (json!({"Type": "multus"}), true),
        (json!({"type": "nsm-cni", "Delegates": []}), true),
    ] {
        assert_eq!(Meta::is(keys.as_object().unwrap()), meta, "{keys}");
    }
}
