//! A door for tests that go over all messages. No part of the API.

use crate::messages;

/// A body of the message of that name, read and written again as its type does; `None` if there is no such message.
pub fn read_and_written(name: &str, body: &[u8]) -> Option<Result<Vec<u8>, String>> {
    messages::read_and_written(name, body)
}
