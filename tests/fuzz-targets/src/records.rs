//! What the agent finds on its own disk.

use std::fmt::Debug;

use nsm_agent::state::{Attachment, Connected, Record};
use serde_json::{Value, json};

const BOOT: &str = "b";

/// A record's file. What is read is written as the same, and its file's name stays in its folder.
pub fn record(data: &[u8]) {
    one::<Attachment>(data);
    one::<Connected>(data);
}

fn one<R: Record>(data: &[u8])
where
    R::Key: Debug,
{
    let Some(record) = nsm_agent::fuzzing::record::<R>(data, BOOT) else { return };
    let name = R::file_name(&record.key());
    assert!(name.len() <= 200 && !name.contains('/') && !name.starts_with('.') && !name.is_empty(), "{name:?}");
    let written = serde_json::to_value(&record).expect("a record can be written");
    let file = json!({"format": 1, "boot_id": BOOT, "record": written}).to_string();
    let again = nsm_agent::fuzzing::record::<R>(file.as_bytes(), BOOT).expect("what was written can be read");
    assert_eq!(again.key(), record.key());
    assert_eq!(serde_json::to_value(&again).ok(), Some::<Value>(written));
}

/// An entry of the registry's database.
pub fn stored(data: &[u8]) {
    nsm_agent::fuzzing::registry::stored(data);
}
