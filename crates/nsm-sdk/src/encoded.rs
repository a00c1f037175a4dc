//! [`Encoded`]: a message that is kept and rarely looked at.
//!
//! Guarantee: what comes out is what went in. A message's maps and texts take several times the memory of its wire form.

use std::marker::PhantomData;

use prost::Message;

/// A message in its wire form.
pub(crate) struct Encoded<M> {
    bytes: Box<[u8]>,
    of: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Encoded<M> {
    /// Of this message.
    pub(crate) fn new(message: &M) -> Self {
        Self { bytes: message.encode_to_vec().into_boxed_slice(), of: PhantomData }
    }

    /// The message.
    pub(crate) fn decoded(&self) -> M {
        // Encoded by this process, a moment ago or long.
        M::decode(&*self.bytes).unwrap_or_default()
    }
}
