//! Files that describe devices (Device Information Specification 1.1.0): a device plugin's is copied to where the network's plugins and
//! the pod's status look for it.
//!
//! Guarantee: what cannot be read or written is told and fails nothing: the files are for information.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::libc;

use super::network::Network;

/// Where the specification has them.
const FOLDER: &str = "/var/run/k8s.cni.cncf.io/devinfo";
/// Longest description that is passed on, in bytes.
const LONGEST: u64 = 64 << 10;

/// The capability by which plugins are told the file.
pub(crate) const CAPABILITY: &str = "CNIDeviceInfoFile";

/// A device that the pod got of a device plugin.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) resource: String,
    pub(crate) id: String,
}

/// The file of one attachment.
pub(crate) fn path(network: &str, container: &str, ifname: &str) -> PathBuf {
    Path::new(FOLDER).join("cni").join(format!("{}-{container}_{ifname}", network.replace('/', "-")))
}

/// Copies what the device plugin says of the device.
pub(crate) fn offer(device: &Device, network: &Network, container: &str) {
    let from = format!("{}-{}-device.json", device.resource.replace('/', "-"), device.id.replace('/', "-"));
    let from = Path::new(FOLDER).join("dp").join(from);
    let to = path(&network.name, container, &network.ifname);
    let copied = described(&from).and_then(|text| {
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&to, text)
    });
    match copied {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("nsm-cni: {}: the description of device {:?} is not copied: {error}", from.display(), device.id);
        }
        Ok(()) | Err(_) => {}
    }
}

/// What is said of the device, by device plugin or network plugin; empty: nothing.
pub(crate) fn read(network: &Network, container: &str) -> String {
    let path = path(&network.name, container, &network.ifname);
    described(&path).unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            eprintln!("nsm-cni: {}: the description of a device is not told: {error}", path.display());
        }
        String::new()
    })
}

/// A description: whatever lies there, reading it ends.
fn described(path: &Path) -> io::Result<String> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is no file"));
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LONGEST) {
        return Err(io::Error::other(format!("is longer than {LONGEST} bytes")));
    }
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)
        .map_err(|error| io::Error::other(format!("is no JSON object: {error}")))?;
    Ok(text)
}

/// Removes the file of an attachment that is gone.
pub(crate) fn remove(network: &Network, container: &str) {
    let _ = fs::remove_file(path(&network.name, container, &network.ifname));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_object_in_a_plain_file_is_a_description() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("good"), r#"{"type":"pci"}"#).unwrap();
        assert_eq!(described(&path("good")).unwrap(), r#"{"type":"pci"}"#);
        fs::write(path("text"), "no JSON").unwrap();
        fs::write(path("long"), format!("{{\"a\":\"{}\"}}", "x".repeat(70_000))).unwrap();
        std::os::unix::fs::symlink(path("good"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["text", "long", "link", "pipe"] {
            assert!(described(&path(name)).is_err(), "{name}");
        }
        assert_eq!(described(&path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
