//! What the plugin tells of records of its own that are lost: a file for each in `<cniSocket>.lost/`, which the agent reads, counts and
//! removes.
//!
//! Guarantee: the same attachment has the same name, so that a repeated DEL replaces what it said before.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::owed;

/// What is lost of an attachment of the meta-plugin's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LostRecord {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// `name` of the network configuration.
    pub network: String,
    /// How it was found.
    pub cause: Cause,
    /// Where what cannot be read is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathBuf>,
    /// Networks that could be ended without it.
    #[serde(default)]
    pub ended: Vec<String>,
}

/// How a record was found to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// It cannot be read.
    Damaged,
    /// It is not there, though the container has, or had, its first network.
    Missing,
    /// Nor is one to be expected: the container is older than the folder of records, as the meta-plugin came later, or the folder was removed.
    Older,
}

impl LostRecord {
    /// Its file's name.
    pub fn file_name(&self) -> String {
        owed::file_name(&self.container_id, &self.ifname)
    }

    /// Reads a file; none: nothing that this version understands.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// As it is written.
    pub fn to_json(&self) -> String {
        // Strings and a list of them: nothing that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Where these files are.
pub fn folder(socket: &Path) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".lost");
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let lost = LostRecord {
            container_id: "c".into(),
            ifname: "eth0".into(),
            network: "n".into(),
            cause: Cause::Damaged,
            kept: Some("/x/c@eth0.json.damaged".into()),
            ended: vec!["ptp".into()],
        };
        assert_eq!(LostRecord::parse(lost.to_json().as_bytes()), Some(lost.clone()));
        assert_eq!(lost.file_name(), "c@eth0.json");
        assert_eq!(LostRecord::parse(b"{}"), None);
        assert_eq!(folder(Path::new("/run/nsm/cni.sock")), Path::new("/run/nsm/cni.sock.lost"));
    }
}
