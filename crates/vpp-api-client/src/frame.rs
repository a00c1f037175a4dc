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

/// What waits to go out, and how much of it ends a message whose beginning has gone.
#[derive(Default)]
pub(crate) struct Unsent {
    bytes: BytesMut,
    begun: usize,
}

impl Unsent {
    pub(crate) fn put(&mut self, message: &[u8]) {
        put(message, &mut self.bytes);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// So many of the bytes have gone.
    pub(crate) fn written(&mut self, mut count: usize) {
        while count > 0 && !self.bytes.is_empty() {
            if self.begun == 0 {
                self.begun = length_at(&self.bytes).map_or(self.bytes.len(), |length| HEADER + length);
            }
            let gone = count.min(self.begun).min(self.bytes.len());
            self.bytes.advance(gone);
            self.begun -= gone;
            count -= gone;
        }
    }

    /// Gives up the messages of which nothing has gone.
    pub(crate) fn keep_begun(&mut self) {
        self.bytes.truncate(self.begun);
    }
}

fn length_at(frame: &[u8]) -> Option<usize> {
    let bytes = frame.get(LENGTH_AT..LENGTH_AT + 4)?;
    usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
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
        length_at(&self.buffer)
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

        #[test]
        fn what_has_begun_to_go_goes_whole_and_nothing_else(
            lengths in proptest::collection::vec(0..50_usize, 1..8),
            steps in proptest::collection::vec(1..60_usize, 0..8),
        ) {
            let (mut unsent, mut ends) = (Unsent::default(), vec![0]);
            for length in &lengths {
                unsent.put(&vec![1; *length]);
                ends.push(unsent.len());
            }
            let mut gone = 0;
            for step in steps {
                let step = step.min(unsent.len());
                unsent.written(step);
                gone += step;
            }
            unsent.keep_begun();
            let end = ends.iter().find(|end| **end >= gone).unwrap();
            prop_assert_eq!(unsent.len(), end - gone);
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
