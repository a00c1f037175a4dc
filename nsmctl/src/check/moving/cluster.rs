//! What the cluster has, as kubectl writes it: definitions that pods could not select any more, and pods whose annotations would be
//! refused.

use std::{collections::BTreeMap, fs, path::Path};

use nsm_npwg::{Annotations, Definition, List, Lookup, Meta, RESOURCE_NAME, plan};
use nsm_proto::admin::Finding;
use serde_json::Value;

use super::super::{bad, good};

const DEFINITIONS: &str = "moving: definitions";
const PODS: &str = "moving: pods";

/// How the files are made.
const READ_DEFINITIONS: &str = "kubectl get network-attachment-definitions -A -o json >FILE";
const READ_PODS: &str = "kubectl get pods -A -o json >FILE";
/// Most names of pods in one finding.
const NAMED: usize = 5;

/// Definitions by namespace and name. Devices are whatever is asked for: which a pod would get nobody knows.
#[derive(Debug, Default)]
struct Cluster(BTreeMap<(String, String), Definition>);

impl Lookup for Cluster {
    fn definition(&mut self, namespace: &str, name: &str) -> Option<Definition> {
        self.0.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn device(&mut self, resource: &str, named: Option<&str>) -> Result<String, String> {
        Ok(named.unwrap_or(resource).to_owned())
    }
}

/// All findings. `meta` is the configuration under which pods would start; without one they are not judged.
pub(super) fn findings(definitions: &Path, pods: Option<&Path>, meta: Option<&Meta>) -> Vec<Finding> {
    let items = match items(definitions) {
        Ok(items) => items,
        Err(why) => return vec![bad(DEFINITIONS, &why, READ_DEFINITIONS)],
    };
    let mut findings: Vec<Finding> = items.iter().filter_map(refused).collect();
    if findings.is_empty() {
        findings.push(good(DEFINITIONS, &format!("{}: all {} are taken", definitions.display(), items.len())));
    }
    if let (Some(pods), Some(meta)) = (pods, meta) {
        let cluster = Cluster(items.iter().map(defined).collect());
        findings.extend(of_pods(pods, meta, cluster));
    }
    findings
}

fn items(path: &Path) -> Result<Vec<Value>, String> {
    let shown = path.display();
    let text = fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
    let mut list: Value = serde_json::from_slice(&text).map_err(|error| format!("{shown}: {error}"))?;
    match list["items"].take() {
        Value::Array(items) => Ok(items),
        _ => Err(format!("{shown} is no list")),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Namespace and name.
fn name(item: &Value) -> (String, String) {
    (text(&item["metadata"]["namespace"]), text(&item["metadata"]["name"]))
}

fn defined(item: &Value) -> ((String, String), Definition) {
    let resource = item["metadata"]["annotations"][RESOURCE_NAME].as_str().map(str::to_owned);
    (name(item), Definition { config: text(&item["spec"]["config"]), resource_name: resource })
}

/// Why a definition is not taken.
fn refused(item: &Value) -> Option<Finding> {
    let (namespace, name) = name(item);
    let config = item["spec"]["config"].as_str().filter(|config| !config.trim().is_empty())?;
    let why = List::of_definition(&format!("{namespace}/{name}"), &name, config).err()?;
    let reaching = List::reaching(config);
    if reaching.is_empty() {
        let fix = "change the definition: pods that select it would not start";
        return Some(bad(DEFINITIONS, &why.to_string(), fix));
    }
    let keys = reaching.join(", ");
    let detail = format!("network \"{namespace}/{name}\" would be refused, as it reaches into the host: {keys}");
    let fix = format!(
        "write {keys} into the plugin's own file on each node (whereabouts: whereabouts.d/whereabouts.conf beside the runtime's \
         configurations), and take them out of the definition: pods that select it would not start"
    );
    Some(bad(DEFINITIONS, &detail, &fix))
}

/// Pods that would not start again, by the reason.
fn of_pods(path: &Path, meta: &Meta, mut cluster: Cluster) -> Vec<Finding> {
    let pods = match items(path) {
        Ok(pods) => pods,
        Err(why) => return vec![bad(PODS, &why, READ_PODS)],
    };
    let has_network = |pod: &&Value| {
        pod["spec"]["hostNetwork"] != true && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
    };
    let mut asking = 0;
    let mut refused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in pods.iter().filter(has_network) {
        let asked = Annotations::of(|key| pod["metadata"]["annotations"][key].as_str());
        asking += usize::from(!asked.is_empty());
        let (namespace, name) = name(pod);
        if let Err(why) = plan(meta, "eth0", &namespace, &asked, &mut cluster) {
            refused.entry(why.to_string()).or_default().push(format!("{namespace}/{name}"));
        }
    }
    if refused.is_empty() {
        return vec![good(PODS, &format!("{}: all {asking} that ask for networks would get them", path.display()))];
    }
    let told = |(why, names): (String, Vec<String>)| {
        let more = names.len().saturating_sub(NAMED);
        let mut shown = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
        if more > 0 {
            shown = format!("{shown} and {more} more");
        }
        let fix = "change the pods' annotation, or what it names: they run on, and would not start again";
        bad(PODS, &format!("{shown}: {why}"), fix)
    };
    refused.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use nsm_cni_types::{Command, Stdin};
    use nsm_proto::admin::finding::Level;
    use serde_json::json;

    use super::*;

    fn meta() -> Meta {
        let keys = json!({"cniVersion": "1.0.0", "name": "m", "type": "multus", "clusterNetwork": "/x.conflist"});
        Meta::lenient(&Stdin::parse(keys.to_string().as_bytes(), &Command::Add).unwrap()).0
    }

    fn definition(name: &str, config: &Value) -> Value {
        json!({"metadata": {"namespace": "n", "name": name}, "spec": {"config": config.to_string()}})
    }

    #[test]
    fn definitions_are_judged_with_every_key() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("definitions.json");
        let whereabouts = json!({"type": "macvlan", "ipam": {"type": "whereabouts", "log_file": "/x",
            "kubernetes": {"kubeconfig": "/y"}}});
        let all = [
            definition("a", &json!({"type": "macvlan"})),
            definition("b", &json!({"type": "multus"})),
            definition("c", &whereabouts),
        ];
        fs::write(&file, json!({"items": all}).to_string()).unwrap();
        let found = findings(&file, None, None);
        assert!(found.len() == 2 && found[0].detail.contains("network \"n/b\""), "{found:?}");
        let both = "ipam.kubernetes.kubeconfig, ipam.log_file";
        assert!(found[1].detail.ends_with(both) && found[1].fix.contains("whereabouts.conf"), "{found:?}");
        assert_eq!(findings(&dir.path().join("none"), None, None)[0].level(), Level::Error);
        fs::write(&file, json!({"items": all[..1]}).to_string()).unwrap();
        assert_eq!(findings(&file, None, None)[0].level(), Level::Ok);
    }

    #[test]
    fn pods_are_judged_by_what_they_ask_for() {
        let dir = tempfile::TempDir::new().unwrap();
        let [definitions, pods] = ["d", "p"].map(|name| dir.path().join(name));
        fs::write(&definitions, json!({"items": [definition("a", &json!({"type": "macvlan"}))]}).to_string()).unwrap();
        let pod = |name: &str, networks: &str| json!({"metadata": {"namespace": "n", "name": name, "annotations": {"k8s.v1.cni.cncf.io/networks": networks}}});
        let written = |all: &[Value]| {
            fs::write(&pods, json!({"items": all}).to_string()).unwrap();
            findings(&definitions, Some(&pods), Some(&meta())).split_off(1)
        };
        let ports = r#"[{"name": "a", "portMappings": [{"hostPort": 1, "containerPort": 1}]}]"#;
        let mut of_host = pod("host", "none");
        of_host["spec"]["hostNetwork"] = true.into();
        let mut all: Vec<Value> = (0..7).map(|number| pod(&format!("p{number}"), ports)).collect();
        all.extend([pod("good", "a"), of_host, pod("none", "b")]);
        let found = written(&all);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found.iter().any(|one| one.detail.contains("n/p4 and 2 more: ") && one.detail.contains("portMappings"))
        );
        assert!(found.iter().any(|one| one.detail.starts_with("n/none: there is no NetworkAttachmentDefinition")));
        let found = written(&[pod("good", "a"), pod("blank", "")]);
        assert!(found.len() == 1 && found[0].detail.contains("all 1 that ask"), "{found:?}");
    }
}
