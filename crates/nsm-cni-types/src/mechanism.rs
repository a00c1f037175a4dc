//! How the pod's end of a connection looks, as a configuration says it.

use std::fmt;

/// What a configuration can ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mechanism {
    /// A kernel interface.
    #[default]
    Kernel,
}

/// Not a mechanism of this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownMechanism(String);

impl Mechanism {
    /// What a text asks for; nothing asks for the default.
    ///
    /// # Errors
    /// [`UnknownMechanism`], with the text and what was expected.
    pub fn parse(text: &str) -> Result<Self, UnknownMechanism> {
        match text {
            "" | "kernel" => Ok(Self::Kernel),
            other => Err(UnknownMechanism(other.to_owned())),
        }
    }

    /// As a configuration writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl UnknownMechanism {
    /// What would do.
    pub const EXPECTED: &'static str = "\"kernel\", the only mechanism that is supported";
}

impl fmt::Display for UnknownMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mechanism {:?}: expected {}", self.0, Self::EXPECTED)
    }
}

impl std::error::Error for UnknownMechanism {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Mechanism::parse(Mechanism::Kernel.as_str()), Ok(Mechanism::Kernel));
        assert_eq!(Mechanism::parse(""), Ok(Mechanism::default()));
        let unknown = Mechanism::parse("memif").unwrap_err().to_string();
        assert_eq!(unknown, "mechanism \"memif\": expected \"kernel\", the only mechanism that is supported");
    }
}
