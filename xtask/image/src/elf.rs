//! Whether a program can start in an image that has nothing but programs.

use anyhow::{Context, bail, ensure};

use crate::Architecture;

/// The segment that names a program's loader (elf(5)).
const PT_INTERP: u32 = 3;

/// Refuses what is no 64-bit little-endian ELF program of that processor, and what needs a loader.
pub(crate) fn check(program: &[u8], architecture: Architecture) -> anyhow::Result<()> {
    let number = |at: usize, length: usize| -> anyhow::Result<usize> {
        let bytes = program.get(at..at + length).context("a truncated ELF file")?;
        let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        Ok(usize::try_from(value)?)
    };
    ensure!(program.get(..6) == Some(b"\x7fELF\x02\x01"), "expected a 64-bit little-endian ELF program");
    let expected = match architecture {
        Architecture::Amd64 => 62,
        Architecture::Arm64 => 183,
    };
    let machine = number(18, 2)?;
    ensure!(machine == expected, "ELF machine {machine}: expected {expected}, {}", architecture.name());
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for segment in 0..count {
        let kind = number(table.checked_add(segment * size).context("a damaged ELF file")?, 4)?;
        if kind == PT_INTERP as usize {
            bail!("it needs a loader and shared libraries: link it with -C target-feature=+crt-static");
        }
    }
    Ok(())
}
