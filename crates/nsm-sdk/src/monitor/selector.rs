//! Which connections a watcher asks for.
//!
//! Guarantees: no selector selects all. Assumptions: none.

use nsm_proto::connection::{Connection, MonitorScopeSelector, PathSegment};

/// Whether the path contains the selector's segments as a run (an empty name or id fits any), and the network service is one of
/// the selector's, if it names some.
pub fn selects(selector: &MonitorScopeSelector, connection: &Connection) -> bool {
    let services = &selector.network_services;
    if !services.is_empty() && !services.contains(&connection.network_service) {
        return false;
    }
    let wanted = &selector.path_segments;
    let path = connection.path.as_ref().map(|path| &*path.path_segments).unwrap_or_default();
    wanted.is_empty()
        || path.windows(wanted.len()).any(|run| run.iter().zip(wanted).all(|(segment, wanted)| fits(segment, wanted)))
}

fn fits(segment: &PathSegment, wanted: &PathSegment) -> bool {
    (wanted.name.is_empty() || wanted.name == segment.name) && (wanted.id.is_empty() || wanted.id == segment.id)
}
