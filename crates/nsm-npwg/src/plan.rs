//! From configuration, annotations and definitions to the ordered networks of a pod.
//!
//! Guarantees: the default network is the first; the others are in the order of `defaultNetworks` and of the annotation. No name of
//! an interface is given twice. What a pod's namespace may not use is refused, also as default network. The plan does not depend on
//! what is attached already.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{Completion, Error, List, Meta, Selection, meta::Chosen, names::is_object, selection::Annotations};

/// What is kept of a NetworkAttachmentDefinition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definition {
    /// `spec.config`; empty: a file of the host has it.
    pub config: String,
    /// The resource whose devices it is made of, from the annotation.
    pub resource_name: Option<String>,
}

/// What a plan needs to know of the cluster.
pub trait Lookup {
    /// The definition of that name; none: there is none.
    fn definition(&mut self, namespace: &str, name: &str) -> Option<Definition>;

    /// A device of that resource that the pod got, another one at each call: the named one, or any.
    ///
    /// # Errors
    /// Why there is none.
    fn device(&mut self, resource: &str, named: Option<&str>) -> Result<String, String>;
}

/// Most bytes of all definitions of one plan: parsed they take many times that.
const MOST_BYTES: usize = 512 << 10;

/// Counts what a plan is made of.
struct Counted<'a, L> {
    lookup: &'a mut L,
    bytes: usize,
    /// How many there would be with the definition that was too much.
    too_many: Option<usize>,
}

impl<'a, L> Counted<'a, L> {
    fn of(lookup: &'a mut L) -> Self {
        Self { lookup, bytes: 0, too_many: None }
    }

    /// Refuses what was planned without the definition that was too much.
    fn within<T>(&mut self, planned: Result<T, Error>) -> Result<T, Error> {
        let Some(bytes) = self.too_many.take() else { return planned };
        let why = format!("{bytes} bytes of definitions: expected at most {MOST_BYTES} of all networks together");
        Err(Error::Annotation { key: crate::selection::NETWORKS, why })
    }
}

impl<L: Lookup> Lookup for Counted<'_, L> {
    fn definition(&mut self, namespace: &str, name: &str) -> Option<Definition> {
        let found = self.lookup.definition(namespace, name)?;
        let bytes = self.bytes + found.config.len();
        if bytes > MOST_BYTES {
            // It is not parsed.
            self.too_many = Some(bytes);
            return Some(Definition::default());
        }
        self.bytes = bytes;
        Some(found)
    }

    fn device(&mut self, resource: &str, named: Option<&str>) -> Result<String, String> {
        self.lookup.device(resource, named)
    }
}

/// One network of a pod, ready to be attached.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// As the status names it: `namespace/name`, or the configuration's own name.
    pub name: String,
    /// The interface's name.
    pub ifname: String,
    /// Its plugins, or where to find them.
    pub network: Network,
    /// What was asked of it, and, where the network is [`Network::File`], is yet to be applied.
    pub completion: Completion,
    /// Gateways of the pod's default route, which is then this network's; empty: none.
    pub default_route: Option<Vec<IpAddr>>,
    /// Addresses that the annotation asks for: the result must have them.
    pub ips: Vec<String>,
    /// The hardware address that the annotation asks for: the result must have it.
    pub mac: Option<String>,
    /// The resource that the device came of.
    pub resource_name: Option<String>,
}

/// Where a network's configuration is.
#[derive(Debug, Clone, PartialEq)]
pub enum Network {
    /// Here, with what was asked applied.
    List(List),
    /// In a file of the host: the name of a network, or a path, as Multus resolves them.
    File(String),
}

/// Plans the networks of a pod in `pod_namespace` whose first interface is `ifname`.
///
/// # Errors
/// Why the pod cannot have what its annotations, or the configuration, ask for.
pub fn plan(
    meta: &Meta,
    ifname: &str,
    pod_namespace: &str,
    asked: &Annotations,
    lookup: &mut impl Lookup,
) -> Result<Vec<Planned>, Error> {
    let mut counted = Counted::of(lookup);
    let planned = plan_counted(meta, ifname, pod_namespace, asked, &mut counted);
    counted.within(planned)
}

/// Plans the networks that every pod gets, without one: of devices, which are a pod's, nothing is known.
///
/// # Errors
/// Why no pod could have them.
pub fn plan_everybodys(meta: &Meta, ifname: &str, lookup: &mut impl Lookup) -> Result<Vec<Planned>, Error> {
    plan(meta, ifname, "", &Annotations::default(), &mut WithoutDevices(lookup))
}

/// Definitions as they are without a pod.
struct WithoutDevices<'a, L>(&'a mut L);

impl<L: Lookup> Lookup for WithoutDevices<'_, L> {
    fn definition(&mut self, namespace: &str, name: &str) -> Option<Definition> {
        let found = self.0.definition(namespace, name)?;
        Some(Definition { resource_name: None, ..found })
    }

    fn device(&mut self, resource: &str, named: Option<&str>) -> Result<String, String> {
        self.0.device(resource, named)
    }
}

fn plan_counted(
    meta: &Meta,
    ifname: &str,
    pod_namespace: &str,
    asked: &Annotations,
    lookup: &mut impl Lookup,
) -> Result<Vec<Planned>, Error> {
    let added = asked.added()?;
    let mut all = Vec::new();
    match asked.default_one()? {
        Some(mut one) => {
            let namespace = one.namespace.get_or_insert_with(|| meta.multus_namespace.clone()).clone();
            isolated(meta, &namespace, &one.name, pod_namespace)?;
            all.push(selected(&one, &namespace, lookup)?);
        }
        None => all.extend(of_configuration(meta, lookup)?),
    }
    if !meta.system_namespaces.iter().any(|system| system == pod_namespace) {
        for name in &meta.default_networks {
            all.push(named(meta, name, Title::Qualified, lookup)?);
        }
    }
    for one in &added {
        all.push(added_one(meta, pod_namespace, one, lookup)?);
    }
    name_interfaces(&mut all, ifname)?;
    Ok(all)
}

/// Plans more networks of a pod that runs, each as it can be; the selections name their interfaces. For each that cannot be, why.
pub fn plan_added<'a>(
    meta: &Meta,
    pod_namespace: &str,
    selections: impl IntoIterator<Item = &'a Selection>,
    lookup: &mut impl Lookup,
) -> Vec<Result<Planned, Error>> {
    let mut counted = Counted::of(lookup);
    let one = |one| {
        let planned = added_one(meta, pod_namespace, one, &mut counted);
        counted.within(planned)
    };
    selections.into_iter().map(one).collect()
}

fn added_one(meta: &Meta, pod_namespace: &str, one: &Selection, lookup: &mut impl Lookup) -> Result<Planned, Error> {
    let namespace = one.namespace.as_deref().unwrap_or(pod_namespace);
    isolated(meta, namespace, &one.name, pod_namespace)?;
    selected(one, namespace, lookup)
}

/// Interfaces' names for selections beside those that a pod has: the asked ones, else the first `net<n>` that is free. None where a
/// name that is asked for is taken.
pub fn names_for<'a>(
    selections: impl IntoIterator<Item = &'a Selection>,
    taken: &BTreeSet<String>,
) -> Vec<Option<String>> {
    let all: Vec<&Selection> = selections.into_iter().collect();
    let mut taken = taken.clone();
    let asked: Vec<Option<bool>> =
        all.iter().map(|one| one.interface.as_ref().map(|name| taken.insert(name.clone()))).collect();
    let mut free = 1;
    all.iter()
        .zip(asked)
        .map(|(one, free_name)| match free_name {
            Some(true) => one.interface.clone(),
            Some(false) => None,
            None => Some(next(&mut free, &mut taken)),
        })
        .collect()
}

fn next(place: &mut usize, taken: &mut BTreeSet<String>) -> String {
    loop {
        let name = format!("net{place}");
        *place += 1;
        if taken.insert(name.clone()) {
            return name;
        }
    }
}

/// How a network is named in the status.
#[derive(Clone, Copy)]
enum Title {
    /// As its plugins are told.
    Own,
    /// With its namespace.
    Qualified,
}

fn of_configuration(meta: &Meta, lookup: &mut impl Lookup) -> Result<Vec<Planned>, Error> {
    match &meta.default {
        Chosen::ClusterNetwork(name) => Ok(vec![named(meta, name, Title::Own, lookup)?]),
        Chosen::Delegates(lists) => {
            let planned = |list: &List| bare(list.name(), Network::List(list.clone()));
            Ok(lists.iter().map(planned).collect())
        }
    }
}

/// A network that the configuration names: a definition in `multusNamespace`, else whatever the host has under that name.
fn named(meta: &Meta, name: &str, title: Title, lookup: &mut impl Lookup) -> Result<Planned, Error> {
    let namespace = &meta.multus_namespace;
    let found = if is_object(name) { lookup.definition(namespace, name) } else { None };
    let Some(found) = found else { return Ok(bare(name, Network::File(name.to_owned()))) };
    let selection = Selection { name: name.to_owned(), ..Selection::default() };
    let mut planned = defined(&selection, namespace, found, lookup)?;
    if let (Title::Own, Network::List(list)) = (title, &planned.network) {
        list.name().clone_into(&mut planned.name);
    }
    Ok(planned)
}

/// A network that an annotation names.
fn selected(one: &Selection, namespace: &str, lookup: &mut impl Lookup) -> Result<Planned, Error> {
    let found = lookup.definition(namespace, &one.name);
    let found = found.ok_or_else(|| Error::NoDefinition { namespace: namespace.to_owned(), name: one.name.clone() })?;
    defined(one, namespace, found, lookup)
}

fn defined(one: &Selection, namespace: &str, found: Definition, lookup: &mut impl Lookup) -> Result<Planned, Error> {
    let network = format!("{namespace}/{}", one.name);
    let device = match &found.resource_name {
        Some(resource) => {
            let refused = |why| Error::NoDevice { network: network.clone(), resource: resource.clone(), why };
            Some(lookup.device(resource, one.device_id.as_deref()).map_err(refused)?)
        }
        None => None,
    };
    let completion = Completion::of(one, device);
    // Section 3.4.1: the object's configuration, else a file whose network has that name.
    let of_file = found.config.trim().is_empty();
    let of_list = |config: &str| completion.apply(&network, List::of_definition(&network, &one.name, config)?);
    Ok(Planned {
        ifname: one.interface.clone().unwrap_or_default(),
        network: if of_file { Network::File(one.name.clone()) } else { Network::List(of_list(&found.config)?) },
        completion,
        default_route: one.default_route.clone(),
        ips: one.ips.clone(),
        mac: one.mac.clone(),
        resource_name: found.resource_name,
        name: network,
    })
}

/// A network of which nothing is asked.
fn bare(name: &str, network: Network) -> Planned {
    Planned {
        name: name.to_owned(),
        ifname: String::new(),
        network,
        completion: Completion::default(),
        default_route: None,
        ips: Vec::new(),
        mac: None,
        resource_name: None,
    }
}

fn isolated(meta: &Meta, namespace: &str, name: &str, pod: &str) -> Result<(), Error> {
    let open = |known: &String| known == namespace;
    if !meta.namespace_isolation || namespace == pod || meta.global_namespaces.iter().any(open) {
        return Ok(());
    }
    Err(Error::Isolated {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        pod: pod.to_owned(),
        global: meta.global_namespaces.join(","),
    })
}

/// The first gets the runtime's name, the others what they ask for, else `net` and their place (section 4.1.1).
fn name_interfaces(all: &mut [Planned], ifname: &str) -> Result<(), Error> {
    let mut taken = BTreeSet::from([ifname.to_owned()]);
    for one in all.iter().filter(|one| !one.ifname.is_empty()) {
        if !taken.insert(one.ifname.clone()) {
            let why =
                format!("interface {:?} is the pod's first one, or another network's: name another one", one.ifname);
            return Err(Error::refused(&one.name, why));
        }
    }
    for (place, one) in all.iter_mut().enumerate() {
        if place == 0 {
            ifname.clone_into(&mut one.ifname);
        } else if one.ifname.is_empty() {
            one.ifname = next(&mut { place }, &mut taken);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
