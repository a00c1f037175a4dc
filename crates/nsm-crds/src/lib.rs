//! The custom resource definitions, generated from Rust types: `cargo xtask crds` writes `deploy/crds.yaml`.
//!
//! Guarantees: every object that the Go registry writes is accepted (`spec` is the registry's message under its snake_case
//! names), and so are the spellings of the 2019 manifests, which `nsm-objects` reads. Bounds are those of the agent's registry.
//! `v1` is stored, `v1alpha1` is served with the same schema. What kubectl does not know it refuses by name, as it validates
//! strictly; an API client that does not has it dropped.
#![forbid(unsafe_code)]

mod endpoint;
mod service;
mod status;

pub use endpoint::{NetworkServiceEndpoint, NetworkServiceEndpointSpec, ServiceLabels, Time};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
pub use service::{Destination, DestinationFields, Match, MatchFields, Metadata, NetworkService, NetworkServiceSpec};
pub use status::Status;

/// Group, kind and version of what `kubectl apply` takes first.
const HEAD: &str = "\
# Network services and their endpoints as Kubernetes objects.
# Written by `cargo xtask crds` from crates/nsm-crds; a test compares.
";

/// Both definitions.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [NetworkService::crd(), NetworkServiceEndpoint::crd()].map(with_the_version_of_2019)
}

/// The text of `deploy/crds.yaml`.
///
/// # Errors
/// None that a build which passes its tests can have: the types are fixed.
pub fn yaml() -> Result<String, Box<dyn std::error::Error>> {
    let mut text = HEAD.to_owned();
    for definition in definitions() {
        text += "---\n";
        text += serde_saphyr::to_string(&serde_json::to_value(definition)?)?.trim_end();
        text += "\n";
    }
    Ok(text)
}

fn with_the_version_of_2019(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let versions = &mut definition.spec.versions;
    if let Some(mut old) = versions.first().cloned() {
        old.name = "v1alpha1".into();
        old.storage = false;
        old.deprecated = Some(true);
        old.deprecation_warning = Some("networkservicemesh.io/v1alpha1 is the version of 2019: write v1".into());
        versions.push(old);
    }
    definition
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_file_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds.yaml");
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert!(file == super::yaml().unwrap(), "deploy/crds.yaml is stale: cargo xtask crds");
    }

    #[test]
    fn both_versions_have_one_schema() {
        for definition in super::definitions() {
            let [v1, old] = &definition.spec.versions[..] else { panic!("{:?}", definition.spec.versions) };
            assert_eq!((v1.name.as_str(), v1.storage), ("v1", true));
            assert_eq!((old.name.as_str(), old.storage, old.served), ("v1alpha1", false, true));
            assert_eq!(v1.schema, old.schema);
        }
    }
}
