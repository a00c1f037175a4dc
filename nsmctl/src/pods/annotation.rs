//! The entries of a pod's annotations: added and taken away, the others' text kept as it is.

use std::collections::{BTreeMap, BTreeSet};

use nsm_cni_types::pods::{self, ANNOTATION, ANNOTATION_2019};
use nsm_sdk::{
    annotations::{self, Annotated, Asked, Form, Place, Wish, entries, not_taken},
    kernel::InterfaceName,
};
use serde_json::{Map, Value, json};

/// A network service that is asked for, as it is written and as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    text: String,
    pub(super) wish: Wish,
}

/// Why an annotation cannot be changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// More than one entry in one argument.
    #[error("{0:?}: expected one network service for each argument, without commas")]
    Comma(String),
    /// The agent would refuse it.
    #[error(transparent)]
    Refused(#[from] annotations::Error),
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
        if argument.contains(',') {
            return Err(Error::Comma(argument.to_owned()));
        }
        let text = if argument.contains("://") { argument.to_owned() } else { format!("kernel://{argument}") };
        let wish = Wish::of_entry(Place { of: Annotated::Pod, form: Form::V1 }, &text)?;
        Ok(Self { text, wish })
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
    fn entries(&self) -> Vec<(&'a str, Option<Wish>)> {
        let read = |form, text| Wish::of_entry(Place { of: Annotated::Pod, form }, text).ok();
        let v1 = entries(self.services).map(|text| (text, read(Form::V1, text)));
        v1.chain(entries(self.services_2019).map(|text| (text, read(Form::V2019, text)))).collect()
    }

    /// The change that adds entries; none when they are there. `taken`: interfaces of the pod that others made.
    pub(super) fn with(&self, added: &[Entry], taken: &BTreeSet<String>) -> Result<Option<Map<String, Value>>, Error> {
        let mut known: Vec<Wish> = self.entries().into_iter().filter_map(|(_, wish)| wish).collect();
        let mut services = self.services.trim().trim_end_matches(',').to_owned();
        let before = services.len();
        for entry in added {
            if known.contains(&entry.wish) {
                continue;
            }
            if !services.is_empty() {
                services.push(',');
            }
            services.push_str(&entry.text);
            known.push(entry.wish.clone());
        }
        if services.len() == before {
            return Ok(None);
        }
        let text = |key: &str| if key == ANNOTATION { Some(services.as_str()) } else { Some(self.services_2019) };
        let asked = Asked { pod: pods::Annotations::of(text), ..Asked::default() };
        not_taken(&asked.wishes()?, |name| taken.contains(name))?;
        Ok(Some(Map::from_iter([(ANNOTATION.to_owned(), services.into())])))
    }

    /// Without what the names mean: interfaces, network services or entries as they are written. `given`: the service of each interface,
    /// as the agent says in the pod's status.
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
fn meant(all: &[(&str, Option<Wish>)], name: &str, given: &BTreeMap<String, String>) -> Result<Option<usize>, Error> {
    let places = |is: &dyn Fn(&Wish) -> bool| -> Vec<usize> {
        let fits = all.iter().enumerate().filter(|(_, (_, wish))| wish.as_ref().is_some_and(is));
        fits.map(|(place, _)| place).collect()
    };
    let written = all.iter().position(|(text, _)| *text == name);
    if let Some(place) = written.or_else(|| places(&|wish| interface(wish) == Some(name)).first().copied()) {
        return Ok(Some(place));
    }
    // The agent named it.
    if let Some(service) = given.get(name) {
        let unnamed = places(&|wish| wish.interface.is_none() && wish.service == *service);
        return match unnamed[..] {
            [] => Ok(None),
            [place] => Ok(Some(place)),
            _ => Err(Error::Ambiguous(service.clone())),
        };
    }
    match places(&|wish| wish.service == name)[..] {
        [] => Ok(None),
        [place] => Ok(Some(place)),
        _ => Err(Error::Ambiguous(name.to_owned())),
    }
}

fn interface(wish: &Wish) -> Option<&str> {
    wish.interface.as_ref().map(InterfaceName::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(services: &'a str, services_2019: &'a str) -> Annotations<'a> {
        Annotations { services, services_2019 }
    }

    fn added(services: &str, arguments: &[&str]) -> Result<Option<String>, Error> {
        let entries: Result<Vec<Entry>, Error> = arguments.iter().map(|argument| Entry::of(argument)).collect();
        let change = of(services, "old/o?x=1").with(&entries?, &BTreeSet::from(["eth0".to_owned()]))?;
        Ok(change.map(|change| change[ANNOTATION].as_str().unwrap().to_owned()))
    }

    #[test]
    fn an_entry_is_added_once_and_the_others_keep_their_text() {
        let before = " kernel://a/x?l=%31 ,kernel://b,";
        assert_eq!(added(before, &["c/y"]).unwrap().unwrap(), "kernel://a/x?l=%31 ,kernel://b,kernel://c/y");
        assert_eq!(added(before, &["kernel://a/x?l=1", "b", "old/o?x=1"]).unwrap(), None);
        assert_eq!(added("", &["c", "kernel://c"]).unwrap().unwrap(), "kernel://c");
        for wrong in ["memif://a", "a,b", "a?podName=x", "a/an-interface-name-too-long", ""] {
            assert!(added("", &[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_the_agent_would_refuse_is_refused_in_its_words() {
        let many = "kernel://a,".repeat(31);
        let long = format!("kernel://a?l={}", "x".repeat(annotations::LONGEST));
        for (before, argument, refused) in [
            ("kernel://a/x", "c/x", "interface x is asked for twice, for \"a\" and for \"c\": name another one"),
            ("kernel://a/x", "c/o", "interface o is asked for twice, for \"c\" and for \"old\": name another one"),
            (
                "",
                "c/eth0",
                "interface eth0 of \"c\" is the pod's already, by another plugin or attachment: name another one",
            ),
            (&many, "c", "33 network services are asked for: expected at most 32"),
            ("", &long, "annotation networkservicemesh.io of the pod has 65549 bytes: expected at most 65536"),
            ("nonsense//", "c", "annotation networkservicemesh.io of the pod: \"nonsense//\" does not begin with"),
            ("", "memif://c", "annotation networkservicemesh.io of the pod: \"memif://c\" asks for a shared memory"),
        ] {
            let error = added(before, &[argument]).unwrap_err().to_string();
            assert!(error.starts_with(refused), "{error}");
        }
        // What is there already stays as it is, wrong or not.
        assert_eq!(added("nonsense//,kernel://c", &["c"]).unwrap(), None);
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
