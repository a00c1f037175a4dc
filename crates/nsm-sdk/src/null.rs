//! Does nothing: the template of an element.
//!
//! Guarantees: Requests, Closes and answers pass unchanged. Assumptions: none.

use crate::Element;

/// The element.
#[derive(Debug, Clone, Copy, Default)]
pub struct Null;

impl Element for Null {}
