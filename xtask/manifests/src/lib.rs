//! `deploy/nsm.yaml` and the Helm chart say the same, as one is made from the other: the chart's templates with its default values
//! are the manifest, and the rights, the admission policy and the definitions of `deploy/` are the chart's.
//!
//! Guarantee: a template that uses more of Helm's language than is rendered here is an error, not a wrong manifest. That Helm
//! renders the same is tested with Helm (`tests/helm.rs`).
#![forbid(unsafe_code)]

mod render;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

/// The namespace of the manifest; a release of the chart brings its own.
const NAMESPACE: &str = "nsm-system";
const RELEASED: &str = "{{ .Release.Namespace }}";
/// Templates that are written by hand, in the order in which they are in the manifest.
const TEMPLATES: [&str; 2] = ["daemonset.yaml", "openshift.yaml"];
/// Manifests of `deploy/` that are templates of the chart too, and the value that can leave one out.
const SHARED: [(&str, Option<&str>); 2] = [("rbac.yaml", None), ("admission.yaml", Some("admissionPolicy"))];

/// A file that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Where, below the repository's root.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Makes all of them from what is in `root`, the repository.
pub fn make(root: &Path) -> anyhow::Result<Vec<Made>> {
    let deploy = root.join("deploy");
    let read = |path: &str| fs::read_to_string(deploy.join(path)).with_context(|| format!("reading deploy/{path}"));
    let mut made = Vec::new();
    let mut manifest =
        "# Network Service Mesh in one cluster: apply it after crds.yaml. Made by `cargo xtask manifests`.\n"
            .to_owned();
    for (name, switch) in SHARED {
        let text = read(name)?;
        append(&mut manifest, &text);
        made.push(Made { path: format!("deploy/chart/templates/{name}").into(), text: template(name, &text, switch)? });
    }
    let scope = scope(&read("chart/values.yaml")?, &read("chart/Chart.yaml")?)?;
    for name in TEMPLATES {
        let rendered = render::render(&read(&format!("chart/templates/{name}"))?, &scope);
        append(&mut manifest, &rendered.with_context(|| format!("deploy/chart/templates/{name}"))?);
    }
    made.push(Made { path: "deploy/nsm.yaml".into(), text: manifest });
    // In this folder Helm installs them before all else and never removes them: objects of users are kept.
    made.push(Made { path: "deploy/chart/crds/crds.yaml".into(), text: read("crds.yaml")? });
    Ok(made)
}

fn append(manifest: &mut String, text: &str) {
    if !text.trim().is_empty() {
        manifest.push_str("---\n");
        manifest.push_str(text.trim());
        manifest.push('\n');
    }
}

/// A manifest as a template: in the release's namespace, which is the user's to make.
fn template(name: &str, text: &str, switch: Option<&str>) -> anyhow::Result<String> {
    ensure!(!text.contains("{{"), "deploy/{name} has {{{{, which is Helm's");
    let documents = text.split("\n---\n").filter(|document| !document.contains("kind: Namespace\n"));
    let documents: Vec<String> = documents.map(|document| document.replace(NAMESPACE, RELEASED)).collect();
    let text =
        format!("# Made by `cargo xtask manifests` from deploy/{name}.\n{}\n", documents.join("\n---\n").trim_end());
    Ok(match switch {
        Some(value) => format!("{{{{- if .Values.{value} }}}}\n{text}{{{{- end }}}}\n"),
        None => text,
    })
}

/// What templates refer to.
fn scope(values: &str, chart: &str) -> anyhow::Result<Value> {
    let values: Value = serde_saphyr::from_str(values).context("deploy/chart/values.yaml")?;
    let chart: Value = serde_saphyr::from_str(chart).context("deploy/chart/Chart.yaml")?;
    Ok(json!({
        "Values": values,
        "Chart": { "AppVersion": chart["appVersion"] },
        "Release": { "Namespace": NAMESPACE },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn what_is_there_is_what_would_be_made() {
        for Made { path, text } in make(&root()).unwrap() {
            let there = fs::read_to_string(root().join(&path)).unwrap_or_default();
            assert!(there == text, "{} is stale: cargo xtask manifests", path.display());
        }
    }

    #[test]
    fn the_chart_has_the_version_of_the_programs() {
        let chart = fs::read_to_string(root().join("deploy/chart/Chart.yaml")).unwrap();
        let chart: Value = serde_saphyr::from_str(&chart).unwrap();
        assert_eq!([&chart["version"], &chart["appVersion"]], [env!("CARGO_PKG_VERSION"); 2]);
    }

    #[test]
    fn files_of_values_name_values_that_there_are() {
        fn known(given: &Value, values: &Value, path: &str) {
            let (Value::Object(given), Value::Object(values)) = (given, values) else { return };
            for (key, value) in given {
                let known_value = values.get(key).unwrap_or_else(|| panic!("{path}.{key} is not in values.yaml"));
                known(value, known_value, &format!("{path}.{key}"));
            }
        }
        let chart = root().join("deploy/chart");
        let read = |path: &Path| -> Value { serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap() };
        let values = read(&chart.join("values.yaml"));
        let mut seen = 0;
        for entry in fs::read_dir(&chart).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("values-") {
                known(&read(&path), &values, &name);
                seen += 1;
            }
        }
        assert!(seen >= 2);
    }
}
