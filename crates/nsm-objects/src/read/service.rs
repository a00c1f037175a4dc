//! `spec` of a NetworkService.

use nsm_proto::registry::{Destination, Match, Metadata, NetworkService};
use serde_json::Value;

use super::fields::{Fields, Wrong};
use crate::{Access, Service, access};

/// Reads a service. In the 2019 spelling `match` and `destination` are mere headings, or hold what stands beside them in v1.
pub(super) fn read(name: String, mut spec: Fields<'_>) -> Result<Service, Wrong> {
    let name = spec.name(name)?;
    let payload = spec.optional_text(&["payload"])?;
    if !["", nsm_proto::payload::IP, nsm_proto::payload::ETHERNET].contains(&payload.as_str()) {
        return Err(spec.wrong("payload", &payload.into(), "IP or ETHERNET"));
    }
    let payload = if payload.is_empty() { nsm_proto::payload::IP.to_owned() } else { payload };
    let matches = spec.list(&["matches", "match"])?.into_iter().map(|(item, place)| of_match(item, &place));
    let matches = matches.collect::<Result<_, _>>()?;
    let path_ids = spec.texts(&["path_ids", "pathIds"])?;
    let access = Access {
        clients: spec.optional_texts(&[access::CLIENTS, "allowedClientNamespaces"])?,
        endpoints: spec.optional_texts(&[access::ENDPOINTS, "allowedEndpointNamespaces"])?,
    };
    access.check()?;
    spec.end()?;
    Ok(Service { message: NetworkService { name, payload, matches, path_ids }, access })
}

fn of_match(item: &Value, place: &str) -> Result<Match, Wrong> {
    let mut outer = Fields::of(item, place)?;
    let nested = outer.optional_object(&["match"])?;
    let mut read = Match::default();
    for mut fields in nested.into_iter().chain([outer]) {
        let source = fields.labels(&["source_selector", "sourceSelector"])?;
        if !source.is_empty() && !read.source_selector.is_empty() {
            return Err(fields.wrong("sourceSelector", &Value::Null, "one selector only"));
        }
        read.source_selector.extend(source);
        for (route, place) in fields.list(&["routes", "route"])? {
            read.routes.push(destination(route, &place)?);
        }
        read.fallthrough |= fields.flag(&["fallthrough"])?;
        if let Some(mut metadata) = fields.optional_object(&["metadata"])? {
            read.metadata = Some(Metadata { labels: metadata.labels(&["labels"])? });
            metadata.end()?;
        }
        fields.end()?;
    }
    Ok(read)
}

fn destination(item: &Value, place: &str) -> Result<Destination, Wrong> {
    let mut outer = Fields::of(item, place)?;
    let nested = outer.optional_object(&["destination"])?;
    let mut read = Destination::default();
    for mut fields in nested.into_iter().chain([outer]) {
        let selector = fields.labels(&["destination_selector", "destinationSelector"])?;
        if !selector.is_empty() && !read.destination_selector.is_empty() {
            return Err(fields.wrong("destinationSelector", &Value::Null, "one selector only"));
        }
        read.destination_selector.extend(selector);
        let weight = fields.number(&["weight"], "a whole number from 0 to 4294967295")?;
        read.weight = read.weight.max(weight);
        fields.end()?;
    }
    Ok(read)
}
