//! The messages of a datagram, and what the kernel says in them.
//!
//! Whatever the bytes are, reading them ends, and a message that is cut is an error.

use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer,
    NlasIterator,
};
use nix::errno::Errno;

/// Attribute of an extended acknowledgement: the kernel's words.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Length of a message's header, which an acknowledgement repeats.
pub(crate) const HEADER_BYTES: usize = 16;

/// One message of a datagram.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// What a message says.
pub(crate) enum Content<'a> {
    Ack,
    Done,
    Nothing,
    Overrun,
    Refused(Refused),
    Body(&'a [u8]),
}

/// The kernel's no.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) errno: Errno,
    pub(crate) detail: Option<String>,
}

impl<'a> Frame<'a> {
    pub(crate) fn content(&self) -> Result<Content<'a>, &'static str> {
        Ok(match self.kind {
            NLMSG_NOOP => Content::Nothing,
            NLMSG_OVERRUN => Content::Overrun,
            NLMSG_DONE => match self.code() {
                // An empty one is allowed.
                None | Some(0) => Content::Done,
                Some(code) => Content::Refused(self.refused(code, self.payload.get(4..).unwrap_or_default())),
            },
            NLMSG_ERROR => match self.code().ok_or("an acknowledgement without a code")? {
                0 => Content::Ack,
                code => Content::Refused(self.refused(code, self.acknowledgement_attributes())),
            },
            _ => Content::Body(self.payload),
        })
    }

    fn code(&self) -> Option<i32> {
        self.payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
    }

    /// They follow the request as repeated by the kernel: its header, and its body unless capped.
    fn acknowledgement_attributes(&self) -> &'a [u8] {
        let repeated = self.payload.get(4..).unwrap_or_default();
        let len = match repeated.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as usize) {
            Some(len) if self.flags & NLM_F_CAPPED == 0 => len.next_multiple_of(NLMSG_ALIGNTO.into()),
            _ => HEADER_BYTES,
        };
        repeated.get(len..).unwrap_or_default()
    }

    fn refused(&self, code: i32, attributes: &[u8]) -> Refused {
        let detail = if self.flags & NLM_F_ACK_TLVS == 0 {
            None
        } else {
            NlasIterator::new(attributes)
                .map_while(Result::ok)
                .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
                .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned())
        };
        Refused { errno: Errno::from_raw(code.saturating_neg()), detail }
    }
}

/// The messages of a datagram. Ends after the first that is cut.
pub(crate) struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut self.0);
        let Ok(message) = NetlinkBuffer::new_checked(whole) else {
            return Some(Err("a message is cut"));
        };
        let len = message.length() as usize;
        self.0 = whole.get(len.next_multiple_of(NLMSG_ALIGNTO.into())..).unwrap_or_default();
        Some(Ok(Frame {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            payload: whole.get(HEADER_BYTES..len).unwrap_or_default(),
        }))
    }
}
