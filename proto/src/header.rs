//! gRPC metadata keys of NSM v1.

/// The caller's token (a JWT), on every call.
pub const CLIENT_TOKEN: &str = "nsm-client-token";
/// When the caller's token expires, RFC 3339 with nanoseconds.
pub const CLIENT_TOKEN_EXPIRES: &str = "nsm-client-token-expires";
/// Registry Register and Unregister: the path as JSON.
pub const PATH: &str = "path";
