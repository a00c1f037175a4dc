//! VPP's two strings. Bytes that are no UTF-8 read as U+FFFD: a name that somebody else gave must not spoil a dump.

use super::{DecodeError, EncodeError, EncodeProblem, Input, Wire};

/// Writes a string into its fixed room, the last byte of which is a NUL.
///
/// # Errors
/// It is too long, or has a NUL in it, where VPP would take it to end.
pub fn put_fixed_string(text: &str, room: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if text.len() >= room {
        return Err(EncodeProblem::Long { length: text.len(), most: room.saturating_sub(1) }.into());
    }
    no_nul(text)?;
    out.extend_from_slice(text.as_bytes());
    out.resize(out.len() + room - text.len(), 0);
    Ok(())
}

/// For a string of which VPP takes less than its room is.
///
/// # Errors
/// It is longer.
pub fn no_longer(text: &str, most: u64) -> Result<(), EncodeError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if text.len() > most { Err(EncodeProblem::Long { length: text.len(), most }.into()) } else { Ok(()) }
}

/// Reads a string up to its first NUL, or its room's end.
///
/// # Errors
/// The message ends before the room does.
pub fn take_fixed_string(input: &mut Input<'_>, room: usize) -> Result<String, DecodeError> {
    let bytes = input.bytes(room)?;
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(room);
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// Writes a string behind its length.
///
/// # Errors
/// It has a NUL in it, or 4 GiB.
pub fn put_string(text: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    no_nul(text)?;
    super::count::<u32>(text.len())?.put(out)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Reads a string behind its length. NULs at its end, which some of VPP's senders add, are no part of it.
///
/// # Errors
/// The message is shorter than that.
pub fn take_string(input: &mut Input<'_>) -> Result<String, DecodeError> {
    let length = usize::try_from(u32::take(input)?).unwrap_or(usize::MAX);
    let bytes = input.bytes(length)?;
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

fn no_nul(text: &str) -> Result<(), EncodeError> {
    text.find('\0').map_or(Ok(()), |at| Err(EncodeProblem::Nul { at }.into()))
}
