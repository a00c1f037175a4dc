//! Who may use and serve a network service, as its document says.

use crate::Wrong;

/// Key of the namespaces that may use a service.
pub(crate) const CLIENTS: &str = "allowed_client_namespaces";
/// Key of those that may serve it.
pub(crate) const ENDPOINTS: &str = "allowed_endpoint_namespaces";

/// The fields of a service that say it, in both spellings.
pub const ACCESS_FIELDS: [&str; 4] = [CLIENTS, "allowedClientNamespaces", ENDPOINTS, "allowedEndpointNamespaces"];

/// Stands for every namespace.
pub const ANY: &str = "*";

/// Most namespaces of one list.
const MOST: usize = 256;

/// The namespaces whose pods may use a network service, and those whose pods may serve it. `None`: the default of the agents; an
/// empty list: no pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// May use it.
    pub clients: Option<Vec<String>>,
    /// May serve it.
    pub endpoints: Option<Vec<String>>,
}

impl Access {
    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        self.clients.is_none() && self.endpoints.is_none()
    }

    /// Whether the lists are within their bounds.
    ///
    /// # Errors
    /// The key of the list that is not, what it has, and what was expected.
    pub fn check(&self) -> Result<(), Wrong> {
        for (key, names) in [(CLIENTS, &self.clients), (ENDPOINTS, &self.endpoints)] {
            let names = names.as_deref().unwrap_or_default();
            if names.len() > MOST {
                let have = format!("{} namespaces", names.len());
                return Err(Wrong::new(&format!("spec.{key}"), &have.into(), "at most 256 namespaces"));
            }
            if let Some(name) = names.iter().find(|name| *name != ANY && !is_namespace(name)) {
                let name = name.as_str().into();
                return Err(Wrong::new(&format!("spec.{key}"), &name, "names of namespaces, or * for all"));
            }
        }
        Ok(())
    }
}

/// RFC 1123's label, as Kubernetes wants namespaces.
fn is_namespace(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (1..=63).contains(&name.len()) && plain && !name.starts_with('-') && !name.ends_with('-')
}
