//! What a VPP says.

use serde_json::Value;
use std::sync::LazyLock;
use vpp_api_client::definition::{Definitions, Message};
use vpp_api_client::fuzzing::read_and_written;

static OURS: LazyLock<Definitions> = LazyLock::new(Definitions::ours);

/// A message's fields: the first two bytes choose which message. What can be read and sent again reads as the same; by type and by
/// definition the same is sent.
pub fn vpp_message(data: &[u8]) {
    let [high, low, body @ ..] = data else { return };
    let number = usize::from(u16::from_be_bytes([*high, *low])) % OURS.messages.len();
    let Some(message) = OURS.messages.values().nth(number) else { return };
    let read = OURS.decode(message, body);
    let Some(Ok(written)) = read_and_written(&message.name, body) else { return };
    assert_eq!(read_and_written(&message.name, &written), Some(Ok(written.clone())), "{}", message.name);
    let again = OURS.decode(message, &written).unwrap_or_else(|error| panic!("{}: {error}", message.name));
    assert!(read.is_ok(), "{}: read by type alone", message.name);
    if !holds_null(&again) {
        assert_eq!(OURS.encode(message, &again).ok(), Some(written), "{} {again}", message.name);
    }
}

/// A float that is no number has no JSON.
fn holds_null(json: &Value) -> bool {
    match json {
        Value::Null => true,
        Value::Object(fields) => fields.values().any(holds_null),
        _ => false,
    }
}

/// Definitions as a VPP tells them. Those that are taken can be read by, whatever is read.
pub fn vpp_definitions(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(definitions) = Definitions::from_json(text) else { return };
    for message in definitions.messages.values() {
        let _ = definitions.decode(message, data);
        let _ = definitions.computed_crc(message);
    }
}

/// The bytes of a seed: a message without a value in it, or of zeroes.
pub fn vpp_message_seed(name: &str, fields: &Value) -> Option<Vec<u8>> {
    let number = OURS.messages.keys().position(|known| known == name)?;
    let message: &Message = &OURS.messages[name];
    let mut seed = u16::try_from(number).ok()?.to_be_bytes().to_vec();
    seed.extend(OURS.encode(message, fields).ok()?);
    Some(seed)
}
