//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.
//!
//! Known: `K8S_POD_NAME`, `K8S_POD_NAMESPACE`, `K8S_POD_UID`, `K8S_POD_INFRA_CONTAINER_ID`, `IgnoreUnknown`, `MAC`, `IP` (one or several,
//! separated by commas) and `LABELS` (`name:value,name:value`; `=` separates too, but the CNI library, which other plugins of the
//! list use, refuses a second `=` in a pair). Other keys are an error unless `IgnoreUnknown=1`.

use std::collections::BTreeMap;

use crate::{Error, code};

/// What `CNI_ARGS` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// `K8S_POD_NAME`.
    pub pod_name: String,
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `K8S_POD_UID`.
    pub pod_uid: String,
    /// `MAC`.
    pub mac: Option<String>,
    /// `IP`.
    pub ips: Vec<String>,
    /// `LABELS`.
    pub labels: BTreeMap<String, String>,
}

impl Args {
    /// Reads `CNI_ARGS`.
    ///
    /// # Errors
    /// Code 4, with the library's words.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut args = Self::default();
        if text.is_empty() {
            return Ok(args);
        }
        let invalid = |msg: String| Error::new(code::INVALID_ENVIRONMENT, msg);
        let mut unknown = Vec::new();
        let mut ignore = false;
        for pair in text.split(';') {
            let (key, value) = pair.split_once('=').ok_or_else(|| invalid(format!("ARGS: invalid pair {pair:?}")))?;
            match key {
                "K8S_POD_NAME" => value.clone_into(&mut args.pod_name),
                "K8S_POD_NAMESPACE" => value.clone_into(&mut args.pod_namespace),
                "K8S_POD_UID" => value.clone_into(&mut args.pod_uid),
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IgnoreUnknown" => {
                    ignore = match value.to_ascii_lowercase().as_str() {
                        "1" | "true" => true,
                        "0" | "false" => false,
                        _ => {
                            return Err(invalid(format!(
                                "ARGS: error parsing value of pair {pair:?}: boolean unmarshal error: invalid input {value}"
                            )));
                        }
                    }
                }
                "MAC" => args.mac = Some(value.to_owned()).filter(|mac| !mac.is_empty()),
                "IP" => args.ips = value.split(',').filter(|ip| !ip.is_empty()).map(str::to_owned).collect(),
                "LABELS" => {
                    let expected = "expected LABELS=name:value,name:value";
                    args.labels = labels(value)
                        .ok_or_else(|| invalid(format!("ARGS: error parsing value of pair {pair:?}: {expected}")))?;
                }
                _ => unknown.push(pair),
            }
        }
        if unknown.is_empty() || ignore { Ok(args) } else { Err(invalid(format!("ARGS: unknown args {unknown:?}"))) }
    }
}

fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once([':', '=']).filter(|(key, _)| !key.is_empty()))
        .map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect()
}
