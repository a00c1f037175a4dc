//! VPP's encoding: packed, big-endian but for `f64`, which has the host's order.
//!
//! Guarantees: reading never panics and allocates no more than the message is long; what does not fit its field is not written.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::BufMut;

pub use self::error::{DecodeError, DecodeProblem, EncodeError, EncodeProblem};

mod error;
mod primitive;
mod text;

pub use text::{no_longer, put_fixed_string, put_string, take_fixed_string, take_string};

/// Something with a place in a message.
pub trait Wire: Sized {
    /// Writes it.
    ///
    /// # Errors
    /// It has no encoding: too long, out of range, a value that must not be sent.
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Reads it.
    ///
    /// # Errors
    /// The message is too short, or holds a value that the type has no place for.
    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError>;

    /// What a field holds that nobody set.
    fn initial() -> Self;
}

/// The rest of a message that is being read.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Over these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next bytes.
    ///
    /// # Errors
    /// There are not that many.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(DecodeProblem::Short { wanted: count, left: self.rest.len() }.into());
        };
        self.rest = rest;
        Ok(taken)
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

/// Reads a list whose length was said before it. A length that the message cannot hold allocates nothing.
///
/// # Errors
/// The list is cut, or an element of it cannot be read.
pub fn take_list<T: Wire>(input: &mut Input<'_>, count: u64) -> Result<Vec<T>, DecodeError> {
    let mut list = Vec::new();
    for _ in 0..count {
        let before = input.left();
        list.push(T::take(input)?);
        if input.left() == before {
            return Err(DecodeProblem::Empty { count }.into());
        }
    }
    Ok(list)
}

/// Reads a list that takes up what is left.
///
/// # Errors
/// As [`take_list`].
pub fn take_rest<T: Wire>(input: &mut Input<'_>) -> Result<Vec<T>, DecodeError> {
    let mut list = Vec::new();
    while input.left() > 0 {
        let before = input.left();
        list.push(T::take(input)?);
        if input.left() == before {
            return Err(DecodeProblem::Empty { count: u64::MAX }.into());
        }
    }
    Ok(list)
}

/// Writes the elements one after another.
///
/// # Errors
/// One of them cannot be sent.
pub fn put_list<T: Wire>(list: &[T], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    list.iter().try_for_each(|item| item.put(out))
}

/// A list's length, as the field before it has it.
///
/// # Errors
/// The list is too long for that field.
pub fn count<T: TryFrom<usize>>(length: usize) -> Result<T, EncodeError> {
    T::try_from(length).map_err(|_| EncodeProblem::Many { length, bits: 8 * size_of::<T>() }.into())
}

/// Refuses a value that VPP takes without a check and should not.
///
/// # Errors
/// It is outside.
pub fn within(value: impl Into<u64>, low: u64, high: u64) -> Result<(), EncodeError> {
    let value = value.into();
    if (low..=high).contains(&value) { Ok(()) } else { Err(EncodeProblem::Range { value, low, high }.into()) }
}

impl<T: Wire, const N: usize> Wire for [T; N] {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_list(self, out)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let mut failed = None;
        let array = std::array::from_fn(|_| match (&failed, T::take(input)) {
            (None, Err(error)) => {
                failed = Some(error);
                T::initial()
            }
            (_, read) => read.unwrap_or_else(|_| T::initial()),
        });
        failed.map_or(Ok(array), Err)
    }

    fn initial() -> Self {
        std::array::from_fn(|_| T::initial())
    }
}

impl Wire for Ipv4Addr {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put_slice(&self.octets());
        Ok(())
    }

    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        Ok(<[u8; 4]>::take(input)?.into())
    }

    fn initial() -> Self {
        Self::UNSPECIFIED
    }
}

impl Wire for Ipv6Addr {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put_slice(&self.octets());
        Ok(())
    }

    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        Ok(<[u8; 16]>::take(input)?.into())
    }

    fn initial() -> Self {
        Self::UNSPECIFIED
    }
}
