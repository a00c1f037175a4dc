//! What cannot be written or read, and in which field.

use std::fmt;

/// A value cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError {
    field: String,
    problem: EncodeProblem,
}

/// Why it cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeProblem {
    /// A string does not fit.
    #[error("{length} bytes where {most} fit: shorten it")]
    Long {
        /// Of the string.
        length: usize,
        /// That would fit.
        most: usize,
    },
    /// A string would end early.
    #[error("a NUL at byte {at}, where VPP would take it to end: remove it")]
    Nul {
        /// Where.
        at: usize,
    },
    /// A list does not fit.
    #[error("{length} elements, more than a count of {bits} bits can say: send fewer")]
    Many {
        /// Of the list.
        length: usize,
        /// Of the field before it.
        bits: usize,
    },
    /// VPP would take the value, and not do what it says.
    #[error("{value}, expected {low} to {high}: VPP takes others and does something else")]
    Range {
        /// As given.
        value: u64,
        /// The least that makes sense.
        low: u64,
        /// The most that makes sense.
        high: u64,
    },
    /// A value came from VPP that its definition does not have; it is not sent back, as some of these end the process.
    #[error("{value} is no {name}: choose one that has a name")]
    Undeclared {
        /// The enum's name.
        name: &'static str,
        /// What VPP had sent.
        value: i64,
    },
    /// A request for events that asks for no more of them.
    #[error("it asks for no more events: set `enable_disable: 1`; to take back an earlier request, `Client::call` it")]
    Disables,
    /// In dynamic mode: what was given is not what the field holds.
    #[error("{0}")]
    Unfit(String),
}

impl EncodeError {
    /// The field, with those that it is in: `route.paths`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &EncodeProblem {
        &self.problem
    }

    /// The same, of a field in this one.
    #[must_use]
    pub fn inside(mut self, outer: &str) -> Self {
        self.field = path(outer, &self.field);
        self
    }
}

impl From<EncodeProblem> for EncodeError {
    fn from(problem: EncodeProblem) -> Self {
        Self { field: String::new(), problem }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.field, &self.problem)
    }
}

impl std::error::Error for EncodeError {}

/// A message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    field: String,
    problem: DecodeProblem,
}

/// Why it cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeProblem {
    /// The message ends too early.
    #[error("{wanted} bytes wanted, {left} left")]
    Short {
        /// By the field.
        wanted: usize,
        /// In the message.
        left: usize,
    },
    /// A value that its type has no place for.
    #[error("{value} is no {expected}")]
    Value {
        /// As read.
        value: i64,
        /// What there would have to be.
        expected: &'static str,
    },
    /// A list of elements without bytes.
    #[error("{count} elements without a byte")]
    Empty {
        /// As the message says.
        count: u64,
    },
    /// In dynamic mode: as JSON it would take more memory than it may.
    #[error("as JSON it takes more than {most} bytes of memory")]
    Large {
        /// It may.
        most: usize,
    },
    /// In dynamic mode: the definition does not say how to read it.
    #[error("{0}")]
    Unknown(String),
}

impl DecodeError {
    /// The field, with those that it is in.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &DecodeProblem {
        &self.problem
    }

    /// The same, of a field in this one.
    #[must_use]
    pub fn inside(mut self, outer: &str) -> Self {
        self.field = path(outer, &self.field);
        self
    }
}

impl From<DecodeProblem> for DecodeError {
    fn from(problem: DecodeProblem) -> Self {
        Self { field: String::new(), problem }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.field, &self.problem)
    }
}

impl std::error::Error for DecodeError {}

fn show(f: &mut fmt::Formatter<'_>, field: &str, problem: &dyn fmt::Display) -> fmt::Result {
    if field.is_empty() { problem.fmt(f) } else { write!(f, "{field}: {problem}") }
}

fn path(outer: &str, inner: &str) -> String {
    if inner.is_empty() { outer.into() } else { format!("{outer}.{inner}") }
}
