//! Whether a program is the one that users get.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

/// Program headers of an ELF file for 64 bits, little-endian (elf(5)): where they begin, how long one is, how many there are.
const HEADERS: (usize, usize, usize) = (32, 54, 56);
/// The kind of the one that names who loads the program.
const PT_INTERP: [u8; 4] = 3u32.to_le_bytes();

/// The plugin is shipped static and small; what `cargo build --release` makes starts in twice the time.
pub(crate) fn is_static(program: &Path) -> anyhow::Result<()> {
    let file = fs::read(program).with_context(|| program.display().to_string())?;
    let loaded = is_loaded_by_another(&file).with_context(|| format!("{}: no program", program.display()))?;
    ensure!(!loaded, "{} is not the plugin that is shipped: `cargo xtask bench kube` makes it", program.display());
    Ok(())
}

fn is_loaded_by_another(elf: &[u8]) -> Option<bool> {
    let number = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?).into());
    let begin = usize::try_from(u64::from_le_bytes(elf.get(HEADERS.0..HEADERS.0 + 8)?.try_into().ok()?)).ok()?;
    let (size, count): (usize, usize) = (number(HEADERS.1)?, number(HEADERS.2)?);
    let mut headers = elf.get(begin..)?.chunks_exact(size.max(4)).take(count);
    Some(headers.any(|header| header[..4] == PT_INTERP))
}
