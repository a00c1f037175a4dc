//! Memory that other processes write to while we look at it: the one place with `unsafe`.
//!
//! Invariants:
//!
//! - A [`Mapping`] is `len` bytes that this process may read and write for as long as the mapping lives. It is made of a file that
//!   cannot become shorter (its seals, or the user's word: [`crate::settings::Unsealed`]), of no file at all, and is unmapped once, by
//!   `Drop`.
//! - Mapped memory is only ever touched by atomic operations, through raw pointers: no reference to plain bytes of it exists. So
//!   whatever a peer writes at whatever moment is a value that is read, never a data race. (A client may lay rings and buffers over one another;
//!   then two of our threads have atomics of different sizes there, of which the language's memory model says nothing. The processors that
//!   Linux has give such a read bytes that somebody wrote.)
//! - Of a shared slice, which nobody writes, no atomic reference is made: it is read as what it is.
//! - Everything that leaves this module carries its bounds: a [`Ring`] has checked that it lies in its mapping and masks each slot,
//!   [`Bytes`] and [`BytesMut`] are checked when they are made and borrow their mapping.
//!
//! Besides there are two calls without a safe wrapper: who a peer is, and a descriptor that tokio watches.
#![expect(unsafe_code, reason = "memory shared with other processes, and calls without a safe wrapper")]
#![expect(clippy::cast_ptr_alignment, reason = "alignment is looked at before a pointer is used")]

mod bytes;
mod mapping;
mod peer;
mod ring;
#[cfg(feature = "tokio")]
mod watched;

pub use bytes::{Bytes, BytesMut};
pub(crate) use mapping::Mapping;
pub(crate) use peer::credentials;
pub(crate) use ring::{COOKIE, Descriptor, Ring};
#[cfg(feature = "tokio")]
pub(crate) use watched::watched;
