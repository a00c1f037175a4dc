//! The manifests of `deploy/` say what this version understands: services, annotations, flags and images.

use std::{collections::BTreeMap, fs, path::Path};

use nsm_agent::{annotations::Annotations, annotations::Asked, config::Settings};
use nsm_objects::Object;
use serde_json::Value;

fn documents(path: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

fn of_kind<'a>(documents: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    documents.iter().filter(move |document| document["kind"] == kind)
}

fn containers(documents: &[Value]) -> Vec<&Value> {
    let templates = documents.iter().map(|document| &document["spec"]["template"]["spec"]["containers"]);
    templates.filter_map(Value::as_array).flatten().collect()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn the_agent_takes_the_flags_of_its_manifest() {
    let manifest = documents("nsm.yaml");
    let set: Vec<&Value> = of_kind(&manifest, "DaemonSet").collect();
    let [container] = containers(&manifest)[..] else { panic!("expected one container in {set:?}") };
    let mut arguments = strings(&container["command"]);
    arguments.extend(strings(&container["args"]));
    let settings = Settings::read(arguments).unwrap();
    assert_eq!(settings.nsm_socket_mode, 0o666);
    assert!(settings.metrics.is_some());
    let mounted: Vec<&str> =
        container["volumeMounts"].as_array().unwrap().iter().filter_map(|mount| mount["mountPath"].as_str()).collect();
    let written = [
        settings.cni_socket.parent(),
        settings.nsm_socket.parent(),
        settings.run_dir.parent(),
        Some(settings.state_dir.as_path()),
        settings.install_plugin.as_deref(),
        settings.install_cni_conf.as_deref(),
    ];
    for path in written.map(Option::unwrap) {
        assert!(mounted.iter().any(|mount| path == Path::new(mount)), "{} is not mounted", path.display());
    }
    assert!(mounted.contains(&settings.proc_sys.join("net").to_str().unwrap()));
    assert_eq!(container["image"], format!("nsm:{}", env!("CARGO_PKG_VERSION")));
    assert_ne!(container["securityContext"]["privileged"], true);
}

#[test]
fn the_agent_sees_the_network_namespaces_of_pods_that_come_later() {
    let manifest = documents("nsm.yaml");
    let [container] = containers(&manifest)[..] else { panic!("expected one container") };
    let mut mounts = container["volumeMounts"].as_array().unwrap().iter();
    let netns = mounts.find(|mount| mount["mountPath"] == "/run/netns").unwrap();
    assert_eq!(netns["mountPropagation"], "HostToContainer");
}

#[test]
fn services_and_annotations_of_the_examples_are_understood() {
    let (mut services, mut wishes) = (BTreeMap::new(), Vec::new());
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")).unwrap() {
        let documents = documents(&format!("examples/{}", file.unwrap().file_name().to_str().unwrap()));
        for service in of_kind(&documents, "NetworkService") {
            let read = nsm_objects::parse(&serde_json::to_string(service).unwrap()).unwrap();
            let [Object::Service(service)] = read.as_slice() else { panic!("{read:?}") };
            services.insert(read[0].name().to_owned(), service.clone());
        }
        for document in &documents {
            let annotations = &document["spec"]["template"]["metadata"]["annotations"];
            let pod = Annotations::of(|key| annotations[key].as_str());
            wishes.extend(Asked { pod, ..Asked::default() }.wishes().unwrap());
        }
        for container in containers(&documents) {
            let image = container["image"].as_str().unwrap();
            let ours = format!("nsm:{}", env!("CARGO_PKG_VERSION"));
            assert!(image == ours || !image.starts_with("nsm:"), "{image}: expected {ours}");
            // What `restricted` asks of a container.
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"]);
        }
        for template in
            documents.iter().map(|document| &document["spec"]["template"]["spec"]).filter(|it| it.is_object())
        {
            assert_eq!(template["securityContext"]["runAsNonRoot"], true);
            assert_eq!(template["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        }
    }
    assert!(wishes.len() >= 3, "{wishes:?}");
    for wish in wishes {
        assert!(services.contains_key(&wish.service), "{} is in no example", wish.service);
    }
}

#[test]
fn the_uninstaller_takes_the_flags_of_its_manifest_and_sees_what_the_agent_left() {
    let (uninstall, agent) = (documents("uninstall.yaml"), documents("nsm.yaml"));
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../nsmctl/src/cli.rs")).unwrap();
    let template =
        |documents: &[Value]| of_kind(documents, "DaemonSet").next().unwrap()["spec"]["template"]["spec"].clone();
    let (uninstall, agent) = (template(&uninstall), template(&agent));
    for container in [&uninstall["initContainers"][0], &uninstall["containers"][0]] {
        for flag in strings(&container["command"]).iter().filter_map(|word| word.strip_prefix("--")) {
            let field = flag.split('=').next().unwrap().replace('-', "_");
            assert!(source.contains(&format!("pub(crate) {field}: ")), "nsmctl uninstall --{flag}");
        }
        assert_eq!(container["image"], format!("nsm:{}", env!("CARGO_PKG_VERSION")));
    }
    let paths = |spec: &Value| -> Vec<String> {
        let volumes = spec["volumes"].as_array().unwrap().iter();
        volumes.filter_map(|volume| volume["hostPath"]["path"].as_str()).map(str::to_owned).collect()
    };
    let seen = paths(&uninstall);
    // What the agent only reads has nothing of it.
    let read = ["/run/netns", "/proc/sys/net", "/var/lib/kubelet/pod-resources"];
    for path in paths(&agent).iter().filter(|path| !read.contains(&path.as_str())) {
        assert!(seen.contains(path), "{path}");
    }
}

#[test]
fn directories_of_the_documents_are_those_of_the_values() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/install.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|') && (line.contains("/net.d` |")));
    let mut seen = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [cluster, configurations, plugins, with] = cells[..] else { panic!("{row}") };
        let file = with.split(' ').find(|word| word.contains("values-")).unwrap_or("deploy/chart/values.yaml");
        let values =
            fs::read_to_string(root.join(file.trim_matches('`'))).unwrap_or_else(|error| panic!("{file}: {error}"));
        let values: Value = serde_saphyr::from_str(&values).unwrap();
        assert_eq!(
            [&values["cni"]["confDir"], &values["cni"]["binDir"]],
            [configurations, plugins],
            "{cluster}: {file}"
        );
        seen.push(cluster.to_owned());
    }
    let all = seen.join(", ");
    for cluster in ["kubeadm", "kind", "RKE2", "K3s", "OpenShift"] {
        assert!(all.contains(cluster), "{cluster} is not in the table: {all}");
    }
}

#[test]
fn files_that_documents_apply_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for document in ["README.md", "docs/install.md", "docs/kubernetes.md", "docs/agent.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let end = |c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c));
        for word in text.split(end).filter(|word| word.starts_with("deploy/")) {
            assert!(root.join(word.trim_end_matches('.')).exists(), "{document}: {word}");
        }
    }
}
