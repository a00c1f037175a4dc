//! What all messages have in common.

use crate::definition::Head;
use crate::retval::Retval;
use crate::wire::{DecodeError, EncodeError, Input};

/// A message with a definition of ours.
pub trait Message: Sized {
    /// VPP's name.
    const NAME: &'static str;
    /// Of the definition; VPP has the message under a name that ends in these eight digits.
    const CRC: u32;
    /// What comes before the fields.
    const HEAD: Head;

    /// Writes the fields.
    ///
    /// # Errors
    /// One of them cannot be sent.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Reads the fields. What is left over is ignored, as VPP does.
    ///
    /// # Errors
    /// The message is cut, or one of the fields cannot be read.
    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError>;
}

/// A message that is answered by one other.
pub trait Request: Message {
    /// By this.
    type Reply: Reply;
}

/// A message that is answered by any number of others, and a ping behind it tells the end.
pub trait Dump: Message {
    /// By these.
    type Details: Message;
}

/// A message that is answered by some of what there is and a cursor, from which to go on.
pub trait Cursor: Message {
    /// What there is.
    type Details: Message;
    /// How far that was.
    type Reply: CursorReply;
    /// Go on from there.
    fn set_cursor(&mut self, cursor: u32);
}

/// A request that makes VPP send events, until it is taken back or the connection ends.
pub trait Subscription: Request {
    /// Which events.
    type Event: Event;

    /// Whether it asks for them, not for no more of them, as a default with `enable_disable: 0` does.
    fn enables(&self) -> bool;
}

/// The answer to a request.
pub trait Reply: Message {
    /// What VPP says of it.
    fn retval(&self) -> Retval;
}

/// The last answer to a request with a cursor.
pub trait CursorReply: Reply {
    /// Where the next request goes on.
    fn cursor(&self) -> u32;
}

/// A message that comes when it comes.
pub trait Event: Message {}
