//! The namespaces that ask for network services, as files beside the CNI socket: the plugin asks the agent about pods of these.
//!
//! Guarantees: a file is there or not, never half; once the namespaces have been read the folder has exactly those that ask. While
//! the API server is away nothing is removed.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::watch;

use super::seen::Asking;
use crate::state::blocking;

/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// Where the files are: `<cniSocket>.namespaces`.
pub(super) fn folder(cni_socket: &Path) -> PathBuf {
    let mut path = cni_socket.as_os_str().to_owned();
    path.push(".namespaces");
    path.into()
}

/// Keeps the folder as it is to be.
pub(super) async fn keep(folder: PathBuf, mut asking: watch::Receiver<Option<Asking>>) {
    let mut failed = false;
    loop {
        let wanted = asking.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            let path = folder.clone();
            match blocking(move || set(&path, &wanted)).await {
                Ok(()) => failed = false,
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::error!(
                            path = %folder.display(), %error,
                            "the plugin cannot be told which namespaces ask: their pods start without network services"
                        );
                    }
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
        }
        if asking.changed().await.is_err() {
            return;
        }
    }
}

/// Makes the folder hold these and no others. Blocking.
fn set(folder: &Path, wanted: &Asking) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_none_or(|name| !wanted.contains_key(name)) {
            fs::remove_file(entry.path())?;
        }
    }
    // Kubernetes gives namespaces names without dots and slashes, and no others become files.
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    for (name, annotations) in wanted.iter().filter(|(name, _)| plain(name)) {
        let fresh = folder.join(format!(".{name}.new"));
        fs::write(&fresh, serde_json::to_vec(annotations)?)?;
        fs::rename(fresh, folder.join(&**name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::Annotations;

    #[test]
    fn exactly_those_that_ask() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir.path().join("cni.sock"));
        let names = || {
            let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let asking = |names: &[&str]| -> Asking {
            let annotations = Annotations { services: Some("kernel://s".into()), services_2019: None };
            names.iter().map(|name| ((*name).into(), annotations.clone())).collect()
        };
        set(&folder, &asking(&["a", "b"])).unwrap();
        assert_eq!(names(), ["a", "b"]);
        fs::write(folder.join("stale.new"), "x").unwrap();
        set(&folder, &asking(&["b", "../c"])).unwrap();
        assert_eq!(names(), ["b"]);
        assert_eq!(fs::read_to_string(folder.join("b")).unwrap(), r#"{"networkservicemesh.io":"kernel://s"}"#);
    }
}
