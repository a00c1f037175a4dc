//! What was asked of the API server, from its audit log.

use std::path::Path;

use serde_json::Value;

/// One answered call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Who.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// `pods`, `networkservices/status`.
    pub resource: String,
    /// Namespace of the object; empty: of none, or of all.
    pub namespace: String,
    /// HTTP status of the answer.
    pub code: u64,
}

/// Everything so far. A line that is being written is left out.
pub(crate) fn read(log: &Path) -> anyhow::Result<Vec<Asked>> {
    let text = std::fs::read_to_string(log)?;
    Ok(text.lines().filter_map(|line| asked(&serde_json::from_str(line).ok()?)).collect())
}

fn asked(event: &Value) -> Option<Asked> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = event.get("objectRef")?;
    let resource = match object["subresource"].as_str() {
        Some(sub) => format!("{}/{sub}", text(&object["resource"])),
        None => text(&object["resource"]),
    };
    Some(Asked {
        user: text(&event["user"]["username"]),
        verb: text(&event["verb"]),
        resource,
        namespace: text(&object["namespace"]),
        code: event["responseStatus"]["code"].as_u64()?,
    })
}
