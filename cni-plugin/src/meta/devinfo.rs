//! Files that describe devices (Device Information Specification 1.1.0): a device plugin's is copied to where the network's plugins and
//! the pod's status look for it.
//!
//! Guarantee: what cannot be read or written is told and fails nothing: the files are for information.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

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
    let copied = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::copy(&from, &to));
    match copied {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("nsm-cni: {}: the description of device {:?} is not copied: {error}", from.display(), device.id);
        }
        Ok(_) | Err(_) => {}
    }
}

/// What is said of the device, by device plugin or network plugin; empty: nothing.
pub(crate) fn read(network: &Network, container: &str) -> String {
    let path = path(&network.name, container, &network.ifname);
    let short = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= LONGEST);
    if short { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

/// Removes the file of an attachment that is gone.
pub(crate) fn remove(network: &Network, container: &str) {
    let _ = fs::remove_file(path(&network.name, container, &network.ifname));
}
