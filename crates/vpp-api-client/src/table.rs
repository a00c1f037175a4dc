//! The handshake: a name for us, an index and the table of messages from VPP.

use std::collections::HashMap;

use crate::wire::{DecodeError, EncodeError, Input, Wire, put_fixed_string, take_fixed_string};

/// These two ids are the same in every VPP.
const SOCKCLNT_CREATE: u16 = 15;
const SOCKCLNT_CREATE_REPLY: u16 = 16;
/// Begins a connection.
pub(crate) const CREATE: &str = "sockclnt_create";
/// Ends a connection, name and CRC. It is not in `api/*.txt`, as nobody is to call it.
pub(crate) const DELETE: (&str, u32) = ("sockclnt_delete", 0x8ac7_6db6);
pub(crate) const DELETE_REPLY: (&str, u32) = ("sockclnt_delete_reply", 0x8f38_b1ee);
/// Bytes of a name on the wire.
const NAME: usize = 64;

/// What VPP said of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// Ours, in each request.
    pub(crate) client_index: u32,
    by_name: HashMap<Box<str>, Entry>,
    by_id: HashMap<u16, Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: u16,
    pub(crate) crc: u32,
}

/// The request, if the name fits.
pub(crate) fn request(context: u32, name: &str) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(2 + 4 + NAME);
    out.extend_from_slice(&SOCKCLNT_CREATE.to_be_bytes());
    out.extend_from_slice(&context.to_be_bytes());
    put_fixed_string(name, NAME, &mut out).map_err(|error| error.inside("name"))?;
    Ok(out)
}

/// Reads the answer; says what is wrong with it.
pub(crate) fn answer(message: &[u8], context: u32) -> Result<Table, String> {
    let mut input = Input::new(message);
    let cut = |error: DecodeError| format!("its answer to sockclnt_create is cut: {error}");
    let id = u16::take(&mut input).map_err(cut)?;
    if id != SOCKCLNT_CREATE_REPLY {
        return Err(format!(
            "expected message {SOCKCLNT_CREATE_REPLY}, found {id}: no VPP API: is it the statistics socket or the CLI's?"
        ));
    }
    u32::take(&mut input).map_err(cut)?;
    let echoed = u32::take(&mut input).map_err(cut)?;
    if echoed != context {
        return Err(format!("expected the context {context}, found {echoed}"));
    }
    let response = i32::take(&mut input).map_err(cut)?;
    if response != 0 {
        return Err(format!("VPP refuses the connection with {response}"));
    }
    let client_index = u32::take(&mut input).map_err(cut)?;
    let count = u16::take(&mut input).map_err(cut)?;
    let mut table = Table { client_index, ..Table::default() };
    for _ in 0..count {
        let id = u16::take(&mut input).map_err(cut)?;
        let name = take_fixed_string(&mut input, NAME).map_err(cut)?;
        table.add(id, &name);
    }
    Ok(table)
}

impl Table {
    /// Names without a CRC at their end are none of those that can be called.
    fn add(&mut self, id: u16, name_crc: &str) {
        let Some((name, crc)) = name_crc.rsplit_once('_') else { return };
        let Some(crc) = u32::from_str_radix(crc, 16).ok().filter(|_| crc.len() == 8) else { return };
        self.by_id.insert(id, name.into());
        self.by_name.insert(name.into(), Entry { id, crc });
    }

    pub(crate) fn entry(&self, name: &str) -> Option<Entry> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name(&self, id: u16) -> Option<&str> {
        self.by_id.get(&id).map(AsRef::as_ref)
    }

    /// All names with their CRCs.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, u32)> {
        self.by_name.iter().map(|(name, entry)| (name.as_ref(), entry.crc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_size_that_vpp_expects() {
        assert_eq!(request(1, "me").unwrap().len(), 70);
        assert_eq!(request(1, &"a".repeat(63)).unwrap().len(), 70);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let wrong = |name: &str| request(1, name).unwrap_err().to_string();
        assert_eq!(wrong(&"ä".repeat(32)), "name: 64 bytes where 63 fit: shorten it");
        assert!(wrong("a\0b").starts_with("name: a NUL at byte 1"));
    }
}
