//! Messages on the stream: 16 bytes of header, of which the length counts, then the message.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes before each message.
pub(crate) const HEADER: usize = 16;
/// Where the header has the length of what follows it.
const LENGTH_AT: usize = 8;
/// What a read asks for.
const CHUNK: usize = 64 << 10;

/// Writes header and message.
pub(crate) fn put(message: &[u8], out: &mut BytesMut) {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    out.reserve(HEADER + message.len());
    out.extend_from_slice(&[0; LENGTH_AT]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0; HEADER - LENGTH_AT - 4]);
    out.extend_from_slice(message);
}

/// What came in, cut into messages. It holds at most one message and one read.
#[derive(Debug)]
pub(crate) struct Incoming {
    buffer: BytesMut,
    most: usize,
}

/// A message longer than any that is taken, so that the stream cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong {
    pub(crate) length: usize,
}

impl Incoming {
    /// Messages of up to that many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(CHUNK), most }
    }

    /// Where the next read goes.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < CHUNK / 2 {
            let whole = self.announced().map_or(0, |length| (HEADER + length).saturating_sub(self.buffer.len()));
            self.buffer.reserve(CHUNK.max(whole.min(self.most)));
        }
        &mut self.buffer
    }

    fn announced(&self) -> Option<usize> {
        let bytes = self.buffer.get(LENGTH_AT..LENGTH_AT + 4)?;
        let length = u32::from_be_bytes(bytes.try_into().ok()?);
        usize::try_from(length).ok()
    }

    /// Whether there is one to take, or an error to find.
    pub(crate) fn has_whole(&self) -> bool {
        self.announced().is_some_and(|length| length > self.most || self.buffer.len() >= HEADER + length)
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        let Some(length) = self.announced() else { return Ok(None) };
        if length > self.most {
            return Err(TooLong { length });
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_the_stream_is_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            cut in 1..40_usize,
        ) {
            let mut stream = BytesMut::new();
            for message in &messages {
                put(message, &mut stream);
            }
            let mut incoming = Incoming::new(300);
            let mut read = Vec::new();
            for piece in stream.chunks(cut) {
                incoming.room().extend_from_slice(piece);
                while let Some(message) = incoming.next().unwrap() {
                    read.push(message.to_vec());
                }
            }
            prop_assert_eq!(read, messages);
        }
    }

    #[test]
    fn a_length_that_nobody_can_mean_ends_it() {
        let mut stream = BytesMut::new();
        put(&[1; 20], &mut stream);
        let mut incoming = Incoming::new(19);
        incoming.room().extend_from_slice(&stream);
        assert_eq!(incoming.next(), Err(TooLong { length: 20 }));
    }
}
