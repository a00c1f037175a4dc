//! What VPP answers: a number with VPP's name, and what to do about it where that is known.

use std::fmt;

use crate::wire::{DecodeError, EncodeError, Input, Wire};

include!(concat!(env!("OUT_DIR"), "/retvals.rs"));

impl Retval {
    /// Whether VPP did what was asked. Anything but 0 says no, positive numbers too.
    pub fn is_ok(self) -> bool {
        self == Self::Ok
    }

    /// As VPP sends it.
    pub fn number(self) -> i32 {
        match self {
            Self::Ok => 0,
            Self::Other(number) => number,
            named => named.row().map_or(0, |(number, ..)| *number),
        }
    }

    /// VPP's name for it.
    pub fn name(self) -> Option<&'static str> {
        if self == Self::Ok { Some("OK") } else { self.row().map(|(_, _, name, _)| *name) }
    }

    /// What to do about it.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Self::Other(1) => Some("acl_interface_set_acl_list: the same ACL is in the list twice"),
            other => other.row().map(|(.., advice)| *advice).filter(|advice| !advice.is_empty()),
        }
    }

    fn row(self) -> Option<&'static (i32, Self, &'static str, &'static str)> {
        KNOWN.iter().find(|(_, value, ..)| *value == self)
    }
}

impl From<i32> for Retval {
    fn from(number: i32) -> Self {
        if number == 0 {
            return Self::Ok;
        }
        KNOWN.iter().find(|(known, ..)| *known == number).map_or(Self::Other(number), |(_, value, ..)| *value)
    }
}

impl fmt::Display for Retval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.number())?,
            None => write!(f, "{}", self.number())?,
        }
        self.advice().map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

impl Wire for Retval {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.number().put(out)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        i32::take(input).map(Self::from)
    }

    fn initial() -> Self {
        Self::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_values_belong_together() {
        for &(number, value, name, _) in KNOWN {
            assert_eq!((Retval::from(number), value.number(), value.name()), (value, number, Some(name)));
            assert!(number < 0 && !value.is_ok());
        }
        assert_eq!(Retval::from(0), Retval::Ok);
        assert_eq!(Retval::from(-30_000), Retval::Other(-30_000));
        assert!(Retval::from(1).advice().is_some() && !Retval::from(1).is_ok());
        assert_eq!(Retval::from(-165), Retval::Eagain);
    }
}
