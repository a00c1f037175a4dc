//! Documents that an operator applies.

/// YAML of services and endpoints. What was read is shown as a document that says the same.
pub fn manifest(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        nsmctl::fuzzing::manifest(text);
    }
}
