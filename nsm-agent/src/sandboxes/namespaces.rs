//! The namespaces whose annotations ask for network services, on the host for the plugin: `<cniSocket>.namespaces/NAMESPACE`.
//!
//! Guarantees: a file appears whole; what is written is what is read, also by the next agent while the API server is away. A
//! namespace without a file asks for nothing once all have been read since the machine started, and is unknown before.

use std::{io, path::Path, sync::Arc};

use nsm_cni_types::pods::{self, Annotations};

use crate::{files, state::Medium};

/// The folder. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Namespaces {
    path: Arc<Path>,
    medium: Medium,
}

impl Namespaces {
    /// Makes the folder beside the CNI socket, for root only. Blocking.
    pub fn open(cni_socket: &Path) -> io::Result<Self> {
        let path = files::own_folder(pods::namespaces_folder(cni_socket))?;
        Ok(Self { medium: Medium::of(&path), path: path.into() })
    }

    /// The annotations of a namespace, as they were written last; none where nothing is known of it.
    pub async fn annotations(&self, namespace: String) -> io::Result<Option<Annotations>> {
        let namespaces = self.clone();
        self.medium.work(move || namespaces.annotations_blocking(&namespace)).await
    }

    /// The same. Blocking.
    pub fn annotations_blocking(&self, namespace: &str) -> io::Result<Option<Annotations>> {
        let Some(name) = pods::namespace_file(namespace) else { return Ok(Some(Annotations::default())) };
        match std::fs::read(self.path.join(name)) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(self.path.join(pods::COMPLETE).try_exists()?.then(Annotations::default))
            }
            Err(error) => Err(error),
        }
    }

    /// Says that those which ask are all there. It holds until the machine starts again. Blocking.
    pub fn complete(&self) -> io::Result<()> {
        std::fs::write(self.path.join(pods::COMPLETE), "")
    }

    /// Writes them down; those that ask for nothing leave no file. Blocking.
    pub fn put(&self, namespace: &str, annotations: &Annotations) -> io::Result<()> {
        let Some(name) = pods::namespace_file(namespace) else {
            return Err(io::Error::other(format!("{namespace:?} is no namespace's name")));
        };
        let path = self.path.join(name);
        if annotations.is_empty() {
            return match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        files::replace(&path, &serde_json::to_vec(annotations)?)
    }

    /// The namespaces that have a file. Blocking.
    pub fn all(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.path)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| pods::namespace_file(name).is_some()).collect())
    }
}
