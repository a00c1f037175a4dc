//! A door for fuzz targets: registrations and templates without a backend. No part of the API.

use std::{collections::BTreeMap, sync::Arc};

use nsm_fdpass::InodeId;
use nsm_objects::Access;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};

use super::{Directory, Entry, Owner, Party, Reach, Service, ServiceAccess, check, record};
use crate::candidates::{Wanted, candidates, explain};

/// The boot of all records.
const BOOT: &str = "boot";

/// Registers what would be registered of these. Each must be found by itself and come back from the database; for each service
/// one decision must choose and explain.
pub fn register(services: Vec<NetworkService>, endpoints: &[NetworkServiceEndpoint]) {
    let directory = Directory::new(ServiceAccess::default());
    for mut service in services {
        if check::service(&mut service).is_err() {
            continue;
        }
        let accepted = service.clone();
        assert_eq!(check::service(&mut service), Ok(()), "what was accepted is accepted again");
        assert_eq!(service, accepted);
        let service = Arc::new(open(service, Owner::Operator));
        let stored =
            record::to_service(&record::of_service(&service, BOOT), BOOT).expect("what was written can be read");
        assert_eq!(stored, *service);
        directory.put_service(&service);
        let found = directory.find_services(&accepted).expect("its name is of this domain");
        assert!(found.iter().any(|found| *found.message == accepted), "{accepted:?} is not found by itself");
    }
    for endpoint in endpoints.iter().filter(|endpoint| check::endpoint(endpoint).is_ok()) {
        let place = directory.state().next_place();
        let entry = entry(endpoint.clone(), Reach::Url, place);
        let stored =
            record::to_endpoint(&record::of_endpoint(&entry, BOOT), BOOT).expect("what was written can be read");
        assert_eq!(stored, (endpoint.clone(), Owner::Operator));
        directory.put_endpoint(&entry);
        let found = directory.find_endpoints(endpoint).expect("its names are of this domain");
        assert!(found.iter().any(|found| *found.message == *endpoint), "{endpoint:?} is not found by itself");
    }
    let all = directory.find_services(&NetworkService::default()).expect("no name");
    for service in &all {
        let (name, matches) = (&service.message.name, &service.message.matches);
        let labels = matches.iter().map(|found| found.source_selector.clone()).chain([BTreeMap::new()]);
        for labels in labels {
            choose(&directory, name, &labels);
        }
    }
    for service in &all {
        directory.take_service(&service.message.name);
    }
    for endpoint in endpoints {
        directory.take_endpoint(&endpoint.name);
    }
    assert_eq!(directory.counts(), (0, 0, 0), "nothing stays");
}

fn choose(directory: &Arc<Directory>, service: &str, labels: &BTreeMap<String, String>) {
    let client = &Party::Unknown;
    let chosen = candidates(directory, Wanted { service, labels, endpoint: "", client });
    let mut chosen: Vec<String> = chosen.into_iter().flatten().map(|entry| entry.message.name.clone()).collect();
    let explanation = explain(directory, service, labels, client).expect("the service is there");
    let candidates = explanation.endpoints.into_iter().filter(|endpoint| endpoint.candidate);
    let mut explained: Vec<String> = candidates.map(|endpoint| endpoint.name).collect();
    chosen.sort();
    explained.sort();
    assert_eq!(chosen, explained, "the explanation is not the decision");
}

fn entry(endpoint: NetworkServiceEndpoint, reach: Reach, place: u64) -> Arc<Entry> {
    let (message, owner, party) = (Arc::new(endpoint), Owner::Operator, Party::Operator);
    Arc::new(Entry { message, owner, reach, party, netns: None, process: None, place, deadline: None })
}

fn open(service: NetworkService, owner: Owner) -> Service {
    Service { message: service.into(), owner, access: Access::default(), namespace: None }
}

/// What stands in the database of a service and of a peer's endpoint.
pub fn store(service: NetworkService, endpoint: NetworkServiceEndpoint) -> [Vec<u8>; 2] {
    let owner = Owner::Peer { netns: InodeId { dev: 4, ino: 4_026_531_840 }, uid: 1000 };
    let access = Access { clients: Some(vec!["shop".into()]), endpoints: None };
    let service = Service { access, ..open(service, Owner::Operator) };
    let entry = Arc::into_inner(entry(endpoint, Reach::Lost, 1)).expect("one owner");
    [record::of_service(&service, BOOT), record::of_endpoint(&Entry { owner, ..entry }, BOOT)]
}

/// Whether these bytes are a service of the database, and stay it when they are written again.
pub fn is_service(bytes: &[u8], boot: &str) -> bool {
    let Ok(service) = record::to_service(bytes, boot) else { return false };
    record::to_service(&record::of_service(&service, boot), boot).is_ok_and(|again| again == service)
}

/// The same of an endpoint.
pub fn is_endpoint(bytes: &[u8], boot: &str) -> bool {
    let Ok((message, owner)) = record::to_endpoint(bytes, boot) else { return false };
    let Some(of_it) = Arc::into_inner(entry(message.clone(), Reach::Lost, 1)) else { return false };
    let again = record::to_endpoint(&record::of_endpoint(&Entry { owner, ..of_it }, boot), boot);
    again.is_ok_and(|again| again == (message, owner))
}

/// Reads what would stand in the database; what can be read is written as it was.
pub fn stored(bytes: &[u8]) {
    if let Ok(service) = record::to_service(bytes, BOOT) {
        let again = record::of_service(&service, BOOT);
        assert_eq!(record::to_service(&again, BOOT).expect("what was written can be read"), service);
    }
    if let Ok((message, owner)) = record::to_endpoint(bytes, BOOT) {
        let entry = Entry { owner, ..Arc::into_inner(entry(message.clone(), Reach::Lost, 1)).expect("one owner") };
        let again =
            record::to_endpoint(&record::of_endpoint(&entry, BOOT), BOOT).expect("what was written can be read");
        assert_eq!(again, (message, owner));
    }
}
