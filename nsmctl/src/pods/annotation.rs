//! The entries of a pod's annotations: added and taken away, the others' text kept as it is.

use std::collections::BTreeMap;

use nsm_cni_types::RESERVED_LABELS;
use nsm_sdk::{
    kernel::InterfaceName,
    settings::{ServiceUrl, Wire},
};
use serde_json::{Map, Value, json};

/// The annotation of NSM v1.
pub(super) const ANNOTATION: &str = "networkservicemesh.io";
/// The annotation of 2019.
pub(super) const ANNOTATION_2019: &str = "ns.networkservicemesh.io";

/// A network service that is asked for, as it is written and as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    text: String,
    pub(super) url: ServiceUrl,
}

/// Why an annotation cannot be changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It is no entry.
    #[error("{0}")]
    Entry(String),
    /// The interface is another service's.
    #[error(
        "interface {interface} is network service {service:?}'s already: name another one, or nsmctl detach POD {interface} first"
    )]
    Taken {
        /// The interface.
        interface: String,
        /// The service that has it.
        service: String,
    },
    /// More than one entry may be meant.
    #[error(
        "network service {0:?} has more than one interface: name the one to detach; kubectl describe pod shows their names"
    )]
    Ambiguous(String),
}

/// What it takes to take entries away.
#[derive(Debug)]
pub(super) struct Without<'n> {
    /// The change; none when there is nothing to take away.
    pub(super) change: Option<Map<String, Value>>,
    /// The names that mean nothing that is there.
    pub(super) nothing: Vec<&'n str>,
}

impl Entry {
    /// Reads one as the command line names it; `kernel://` may be left out.
    pub(super) fn of(argument: &str) -> Result<Self, Error> {
        let text = if argument.contains("://") { argument.to_owned() } else { format!("kernel://{argument}") };
        if text.contains(',') {
            return Err(Error::Entry(format!(
                "{argument:?}: expected one network service for each argument, without commas"
            )));
        }
        let url: ServiceUrl = text.parse().map_err(|error| Error::Entry(format!("{error}")))?;
        match url.wire {
            Wire::Kernel => {}
            Wire::Memif => {
                return Err(Error::Entry(format!(
                    "{argument:?}: expected kernel://, which is all that an annotation can have"
                )));
            }
        }
        if let Some(label) = RESERVED_LABELS.into_iter().find(|label| url.labels.contains_key(*label)) {
            return Err(Error::Entry(format!(
                "{argument:?} sets label {label}, which the agent gives: expected another label"
            )));
        }
        Ok(Self { text, url })
    }

    fn interface(&self) -> Option<&str> {
        self.url.interface.as_ref().map(InterfaceName::as_str)
    }
}

/// The annotations of a pod that ask for network services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Annotations<'a> {
    services: &'a str,
    services_2019: &'a str,
}

impl<'a> Annotations<'a> {
    /// Those among all of a pod.
    pub(super) fn of(all: Option<&'a BTreeMap<String, String>>) -> Self {
        let text = |key: &str| all.and_then(|all| all.get(key)).map_or("", String::as_str);
        Self { services: text(ANNOTATION), services_2019: text(ANNOTATION_2019) }
    }

    /// All entries, with what could be read of each.
    fn entries(&self) -> Vec<(&'a str, Option<Entry>)> {
        let v1 = entries(self.services).map(|text| (text, Entry::of(text).ok()));
        v1.chain(entries(self.services_2019).map(|text| (text, Entry::of(&format!("kernel://{text}")).ok()))).collect()
    }

    /// The change that adds an entry; none when it is there.
    pub(super) fn with(&self, added: &[Entry]) -> Result<Option<Map<String, Value>>, Error> {
        let mut known: Vec<Entry> = self.entries().into_iter().filter_map(|(_, entry)| entry).collect();
        let mut services = self.services.trim().trim_end_matches(',').to_owned();
        let before = services.clone();
        for entry in added {
            if known.iter().any(|known| known.url == entry.url) {
                continue;
            }
            let same = |known: &&Entry| known.interface().is_some() && known.interface() == entry.interface();
            if let (Some(other), Some(interface)) = (known.iter().find(same), entry.interface()) {
                return Err(Error::Taken { interface: interface.to_owned(), service: other.url.service.clone() });
            }
            if !services.is_empty() {
                services.push(',');
            }
            services.push_str(&entry.text);
            known.push(entry.clone());
        }
        Ok((services != before).then(|| Map::from_iter([(ANNOTATION.to_owned(), services.into())])))
    }

    /// Without what the names mean: interfaces, network services or entries as they are written. `given`: the service of each interface, as the agent says in the pod's status.
    pub(super) fn without<'n>(
        &self,
        names: &'n [String],
        given: &BTreeMap<String, String>,
    ) -> Result<Without<'n>, Error> {
        let mut all = self.entries();
        let first_of_2019 = entries(self.services).count();
        let mut gone = vec![false; all.len()];
        let mut nothing = Vec::new();
        for name in names {
            let doomed = meant(&all, name, given)?;
            match doomed {
                Some(place) => {
                    gone[place] = true;
                    // Another name must not mean it again.
                    all[place].1 = None;
                }
                None => nothing.push(name.as_str()),
            }
        }
        let left = |from: usize, to: usize| {
            let texts: Vec<&str> = (from..to).filter(|place| !gone[*place]).map(|place| all[place].0).collect();
            if texts.is_empty() { Value::Null } else { json!(texts.join(",")) }
        };
        let mut change = Map::new();
        for (key, from, to) in [(ANNOTATION, 0, first_of_2019), (ANNOTATION_2019, first_of_2019, all.len())] {
            if gone[from..to].contains(&true) {
                change.insert(key.to_owned(), left(from, to));
            }
        }
        Ok(Without { change: (!change.is_empty()).then_some(change), nothing })
    }
}

/// The place of the entry that a name means.
fn meant(all: &[(&str, Option<Entry>)], name: &str, given: &BTreeMap<String, String>) -> Result<Option<usize>, Error> {
    let places = |is: &dyn Fn(&str, &Entry) -> bool| -> Vec<usize> {
        let fits =
            all.iter().enumerate().filter(|(_, (text, entry))| entry.as_ref().is_some_and(|entry| is(text, entry)));
        fits.map(|(place, _)| place).collect()
    };
    let written = all.iter().position(|(text, _)| *text == name);
    if let Some(place) = written.or_else(|| places(&|_, entry| entry.interface() == Some(name)).first().copied()) {
        return Ok(Some(place));
    }
    // The agent named it.
    if let Some(service) = given.get(name) {
        let unnamed = places(&|_, entry| entry.interface().is_none() && entry.url.service == *service);
        return match unnamed[..] {
            [] => Ok(None),
            [place] => Ok(Some(place)),
            _ => Err(Error::Ambiguous(service.clone())),
        };
    }
    match places(&|_, entry| entry.url.service == name)[..] {
        [] => Ok(None),
        [place] => Ok(Some(place)),
        _ => Err(Error::Ambiguous(name.to_owned())),
    }
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(services: &'a str, services_2019: &'a str) -> Annotations<'a> {
        Annotations { services, services_2019 }
    }

    fn added(services: &str, arguments: &[&str]) -> Result<Option<String>, Error> {
        let entries: Result<Vec<Entry>, Error> = arguments.iter().map(|argument| Entry::of(argument)).collect();
        let change = of(services, "old?x=1").with(&entries?)?;
        Ok(change.map(|change| change[ANNOTATION].as_str().unwrap().to_owned()))
    }

    #[test]
    fn an_entry_is_added_once_and_the_others_keep_their_text() {
        let before = " kernel://a/x?l=%31 ,kernel://b,";
        assert_eq!(added(before, &["c/y"]).unwrap().unwrap(), "kernel://a/x?l=%31 ,kernel://b,kernel://c/y");
        assert_eq!(added(before, &["kernel://a/x?l=1", "b", "old?x=1"]).unwrap(), None);
        assert_eq!(added("", &["c", "kernel://c"]).unwrap().unwrap(), "kernel://c");
        let taken = added(before, &["c/x"]).unwrap_err().to_string();
        assert!(taken.contains("interface x is network service \"a\"'s"), "{taken}");
        for wrong in ["memif://a", "a,b", "a?podName=x", "a/an-interface-name-too-long", ""] {
            assert!(matches!(added("", &[wrong]), Err(Error::Entry(_))), "{wrong}");
        }
    }

    fn removed(services: &str, names: &[&str]) -> Result<(Option<Value>, usize), Error> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let given = BTreeMap::from([("nsm-1".to_owned(), "b".to_owned()), ("nsm-2".to_owned(), "old".to_owned())]);
        let Without { change, nothing } = of(services, "old").without(&names, &given)?;
        Ok((change.map(Value::Object), nothing.len()))
    }

    #[test]
    fn an_entry_is_found_by_interface_service_and_text() {
        let before = "kernel://a/x?l=1, kernel://b,nonsense//";
        let left = |text: &str| Some(json!({ ANNOTATION: text }));
        assert_eq!(removed(before, &["x"]).unwrap(), (left("kernel://b,nonsense//"), 0));
        assert_eq!(removed(before, &["a", "b"]).unwrap(), (left("nonsense//"), 0));
        assert_eq!(removed(before, &["nsm-1"]).unwrap(), (left("kernel://a/x?l=1,nonsense//"), 0));
        assert_eq!(removed(before, &["nonsense//"]).unwrap(), (left("kernel://a/x?l=1,kernel://b"), 0));
        assert_eq!(removed(before, &["gone", "x", "x"]).unwrap().1, 2);
        assert_eq!(removed("", &["nsm-2"]).unwrap(), (Some(json!({ ANNOTATION_2019: null })), 0));
        assert_eq!(removed("", &["unknown"]).unwrap(), (None, 1));
        let twice = removed("kernel://b,kernel://b/y", &["b"]).unwrap_err();
        assert_eq!(twice, Error::Ambiguous("b".into()));
    }
}
