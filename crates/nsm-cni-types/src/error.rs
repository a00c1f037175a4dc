//! The CNI error object.

use serde_json::json;

use crate::Version;

/// CNI error codes: below 100 the specification's, from 100 on this plugin's own.
pub mod code {
    /// The configuration's version is none of ours.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A key that is not known.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// A missing or invalid environment variable, which the text names.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// No JSON, or not the object that was expected.
    pub const DECODING: u32 = 6;
    /// A wrong value in the network configuration.
    pub const INVALID_CONFIG: u32 = 7;
    /// The plugin's own network namespace.
    pub const INVALID_NETNS: u32 = 8;
    /// Nothing is wrong with the call: try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: an ADD could not be served.
    pub const NOT_AVAILABLE: u32 = 50;
    /// The endpoint, or something on the way to it, said no.
    pub const REFUSED: u32 = 100;
    /// The caller may not do this.
    pub const DENIED: u32 = 101;
    /// The attachment, the interface name or the address is taken.
    pub const CONFLICT: u32 = 102;
    /// The agent, the kernel or the disk failed.
    pub const INTERNAL: u32 = 103;
    /// CHECK: the attachment is not as it was made.
    pub const CHANGED: u32 = 104;
    /// Called off, for example by a DEL of the same attachment.
    pub const CANCELLED: u32 = 105;
    /// GC: some attachments could not be freed; the others were.
    pub const PARTLY_FREED: u32 = 106;
    /// The agent is of another version and does not know the call.
    pub const UNKNOWN_CALL: u32 = 107;
}

/// What a plugin prints when it fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { "; " })]
pub struct Error {
    /// One of [`code`].
    pub code: u32,
    /// One line.
    pub msg: String,
    /// More, may be empty.
    pub details: String,
}

impl Error {
    /// Without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same with details.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The JSON object, in the configuration's version.
    pub fn to_json(&self, version: Version) -> String {
        let mut object = json!({"cniVersion": version.as_str(), "code": self.code, "msg": self.msg});
        if !self.details.is_empty() {
            object["details"] = json!(self.details);
        }
        object.to_string()
    }
}
