//! What DEL and GC take from a configuration.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use super::{Mode, OfPod, read};
use crate::{Args, Error, Stdin, code, env};

/// What DEL and GC take from a configuration: mistakes are told, not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lenient {
    /// `cniSocket`, the default if it is no path.
    pub socket: PathBuf,
    /// `timeoutSeconds`, the default if it is no number in range.
    pub timeout: Duration,
    /// Without `networkService`: the pod's annotations, as they were when it was made.
    pub of_pod: Option<OfPod>,
    /// The mistakes.
    pub warnings: Vec<String>,
}

/// What names an attachment in `cni.dev/valid-attachments`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `containerID`.
    pub container_id: String,
    /// `ifname`.
    pub ifname: String,
}

impl Lenient {
    /// Reads a configuration as far as it can be read.
    pub fn parse(stdin: &Stdin) -> Self {
        let mut keys = stdin.keys.clone();
        // What it made is no business of a DEL.
        keys.remove("prevResult");
        let (conf, mistakes) = read(&keys, stdin.version, &Args::default());
        let of_pod = match conf.mode {
            Mode::Attach(_) => None,
            Mode::Pod(pod) => Some(pod),
        };
        Self { socket: conf.socket, timeout: conf.timeout, of_pod, warnings: mistakes.texts() }
    }

    /// `cni.dev/valid-attachments`: absent is not empty.
    ///
    /// # Errors
    /// Code 7: a list that is not understood must not free anything.
    pub fn valid_attachments(stdin: &Stdin) -> Result<Option<Vec<Attachment>>, Error> {
        const KEY: &str = "cni.dev/valid-attachments";
        let invalid = |value: &Value, expected: &str| {
            Err(Error::new(code::INVALID_CONFIG, format!("{KEY} {value}: expected {expected}")))
        };
        let list = match stdin.keys.get(KEY) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(other) => return invalid(other, "a list of {containerID, ifname}"),
        };
        let mut attachments = Vec::new();
        for entry in list {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
            match (text("containerID"), text("ifname")) {
                (Some(container), Some(ifname)) if env::container_id(container).is_ok() => {
                    attachments.push(Attachment { container_id: container.to_owned(), ifname: ifname.to_owned() });
                }
                _ => return invalid(entry, "an object with containerID and ifname"),
            }
        }
        Ok(Some(attachments))
    }
}
