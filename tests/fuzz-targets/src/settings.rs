//! Settings and what is spelled like them: in the environment of programs, in messages, in headers.

use std::collections::BTreeSet;

use nsm_agent::{
    annotations::{Annotations, Asked, MOST, named},
    candidates::Template,
    processes::pod_of,
};
use nsm_cni_types::RESERVED_LABELS;
use nsm_fdpass::InodeId;
use nsm_netlink::IfName;
use nsm_sdk::{
    ipam::{Groups, Pool, Wish},
    kernel::InterfaceName,
    settings::{ServiceUrl, boolean, duration, labels, names, unix_socket},
    token_headers,
};

/// `NSM_CIDR_PREFIX`. What is read is shown as text that reads as the same, and gives addresses of the prefixes.
pub fn cidr_prefix(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(groups) = text.parse::<Groups>() else { return };
    assert_eq!(groups.to_string().parse::<Groups>().as_ref(), Ok(&groups));
    let all: Vec<_> = groups.iter().map(<[_]>::to_vec).collect();
    assert!(all.iter().flatten().count() <= Groups::MAX);
    let pool = Pool::new(groups);
    let Ok(lease) = pool.lease("id", &Wish::default()) else { return };
    for (pair, group) in lease.pairs().iter().zip(&all) {
        for address in [pair.client, pair.endpoint] {
            assert!(group.iter().any(|prefix| prefix.contains(address)), "{address} is not of {group:?}");
        }
        assert_ne!(pair.client, pair.endpoint);
    }
}

/// A pod's and its namespace's annotations, a line each. What is taken can be named, with names that are told apart.
pub fn annotations(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines().map(str::to_owned);
    let mut both = || Annotations { services: lines.next(), services_2019: lines.next() };
    let (pod, namespace) = (both(), both());
    let asked = Asked { pod, namespace };
    let wishes = match asked.wishes() {
        Ok(wishes) => wishes,
        Err(error) => return assert!(!error.to_string().contains('\n'), "{error}"),
    };
    assert!(wishes.len() <= MOST);
    for wish in &wishes {
        assert!((1..=253).contains(&wish.service.len()), "{wish:?}");
        assert!(RESERVED_LABELS.iter().all(|label| !wish.labels.contains_key(*label)), "{wish:?}");
    }
    let taken = BTreeSet::from_iter(IfName::new("eth0"));
    let Ok(all) = named(&wishes, [], &taken) else { return };
    assert_eq!(all.len(), wishes.len());
    let mut names = taken;
    assert!(all.iter().all(|one| names.insert(one.interface.clone())), "{all:?}");
    for (wish, one) in wishes.iter().zip(&all) {
        assert!(wish.interface.as_ref().is_none_or(|name| name.as_str() == one.interface.as_str()), "{wish:?} {one:?}");
    }
}

/// `/proc/PID/cgroup`, and another process's after a line of its own. Who is where the agent is, is of no pod; a pod is named as it reads.
pub fn control_groups(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (groups, own) = text.split_once("\n\n").unwrap_or((text, ""));
    for line in groups.lines() {
        assert_eq!(pod_of(line, line), Ok(None));
    }
    if let Ok(Some(pod)) = pod_of(groups, own) {
        assert_eq!(pod.to_string().parse(), Ok(pod));
        assert!(groups.contains("pod"), "{pod}");
    }
}

/// `NSM_NETWORK_SERVICES`, one entry.
pub fn network_services(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for entry in text.split(',') {
        let Ok(url) = entry.trim().parse::<ServiceUrl>() else { continue };
        assert!((1..=253).contains(&url.service.len()) && !url.service.contains(['/', '?', ' ']), "{url:?}");
        assert!(!url.labels.contains_key(""), "{url:?}");
        if let Some(interface) = &url.interface {
            assert_eq!(interface.as_str().parse::<InterfaceName>().as_ref(), Ok(interface));
        }
    }
}

/// All other texts that have a form.
pub fn setting(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (duration(text), boolean(text));
    if let Some(path) = unix_socket(text) {
        assert!(path.is_absolute() && path.as_os_str().len() < 108, "{}", path.display());
    }
    if let Some(labels) = labels(text) {
        assert!(!labels.is_empty() && !labels.contains_key(""), "{labels:?}");
    }
    if let Some(names) = names(text) {
        assert!(names.iter().all(|name| (1..=253).contains(&name.len())), "{names:?}");
    }
    if let Ok(name) = text.parse::<InterfaceName>() {
        nsm_netlink::IfName::new(name.as_str()).expect("the kernel takes it");
    }
    if let Ok(id) = text.parse::<InodeId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Some(time) = token_headers::parse(text) {
        assert_eq!(token_headers::parse(&token_headers::format(time)), Some(time));
    }
    if let Ok(template) = Template::parse(text)
        && !text.contains("{{")
    {
        assert_eq!(template.render(&[].into()).as_deref(), Ok(text));
    }
}
