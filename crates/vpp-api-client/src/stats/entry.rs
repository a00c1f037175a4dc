//! How the segment is laid out: a header, a vector of entries, and what they point at. Pointers are VPP's own addresses; the
//! header says where VPP has the segment. A vector's length is in the eight bytes before it.

use super::StatsError;
use super::memory::Memory;

const VERSION: u64 = 2;
/// Of an entry: kind, value, name.
const ENTRY: u64 = 144;
const ENTRY_BYTES: usize = 144;
const NAME_AT: usize = 16;
/// More entries, threads or counters than that are nobody's.
const MOST: u64 = 1 << 22;
const VECTOR_HEADER: u64 = 8;

/// A value of the directory.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// One number.
    Scalar(u64),
    /// Per thread and index.
    Simple(Vec<Vec<u64>>),
    /// Packets and bytes per thread and index.
    Combined(Vec<Vec<Combined>>),
    /// By index.
    Names(Vec<String>),
}

/// Packets and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Combined {
    /// How many.
    pub packets: u64,
    /// How long in all.
    pub bytes: u64,
}

impl Value {
    /// What all threads have counted at an index.
    pub fn sum(&self, index: usize) -> u64 {
        match self {
            Self::Scalar(value) => *value,
            Self::Simple(threads) => {
                threads.iter().filter_map(|of| of.get(index)).fold(0, |sum, next| sum.wrapping_add(*next))
            }
            Self::Combined(_) => self.combined(index).packets,
            Self::Names(_) => 0,
        }
    }

    /// As [`Value::sum`], with bytes.
    pub fn combined(&self, index: usize) -> Combined {
        let Self::Combined(threads) = self else { return Combined::default() };
        threads.iter().filter_map(|of| of.get(index)).fold(Combined::default(), |sum, next| Combined {
            packets: sum.packets.wrapping_add(next.packets),
            bytes: sum.bytes.wrapping_add(next.bytes),
        })
    }

    /// What all threads have counted at all indices.
    pub fn total(&self) -> u64 {
        match self {
            Self::Simple(threads) => threads.iter().flatten().fold(0, |sum, next| sum.wrapping_add(*next)),
            Self::Combined(threads) => threads.iter().flatten().fold(0, |sum, of| sum.wrapping_add(of.packets)),
            other => other.sum(0),
        }
    }
}

/// The segment's first bytes, as they were at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    version: u64,
    base: u64,
    pub(super) epoch: u64,
    pub(super) in_progress: bool,
    directory: u64,
}

impl Header {
    pub(super) fn read(memory: &Memory) -> Result<Self, StatsError> {
        let word = |at: u64| memory.word(at * 8).map_err(|()| damaged("the header", "the segment is too short"));
        Ok(Self { version: word(0)?, base: word(1)?, epoch: word(2)?, in_progress: word(3)? != 0, directory: word(4)? })
    }

    pub(super) fn check_version(&self) -> Result<(), StatsError> {
        if self.version == VERSION {
            Ok(())
        } else {
            Err(StatsError::Version { found: self.version, expected: VERSION })
        }
    }

    /// Where in the segment VPP's pointer leads.
    fn offset(&self, pointer: u64, what: &str) -> Result<u64, StatsError> {
        pointer.checked_sub(self.base).ok_or_else(|| damaged(what, "a pointer out of the segment"))
    }

    /// A vector's offset and its length; none for a null pointer.
    fn vector(
        &self,
        memory: &Memory,
        pointer: u64,
        element: u64,
        what: &str,
    ) -> Result<Option<(u64, u64)>, StatsError> {
        if pointer == 0 {
            return Ok(None);
        }
        let at = self.offset(pointer, what)?;
        let before = at.checked_sub(VECTOR_HEADER).ok_or_else(|| damaged(what, "a vector without a header"))?;
        let length = u64::from(memory.half(before).map_err(|()| damaged(what, "a pointer out of the segment"))?);
        let end = length.checked_mul(element).and_then(|bytes| at.checked_add(bytes));
        if length > MOST || end.is_none_or(|end| end > memory.len()) {
            return Err(damaged(what, "a vector longer than the segment"));
        }
        Ok(Some((at, length)))
    }

    /// All of the directory, or only the entry of that number.
    pub(super) fn entries(&self, memory: &Memory, only: Option<u64>) -> Result<Vec<Entry>, StatsError> {
        let what = "the directory";
        let (at, length) = self.vector(memory, self.directory, ENTRY, what)?.unwrap_or((0, 0));
        let (from, count) = match only {
            None => (0, length),
            Some(number) if number < length => (number, 1),
            Some(_) => (0, 0),
        };
        let bytes = usize::try_from(count * ENTRY).map_err(|_| damaged(what, "a vector longer than memory"))?;
        let bytes = memory.bytes(at + from * ENTRY, bytes).map_err(|()| damaged(what, "entries out of the segment"))?;
        Ok(bytes.as_chunks().0.iter().map(Entry::parse).collect())
    }
}

/// An entry of the directory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    kind: u32,
    value: u64,
}

impl Entry {
    fn parse(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let name = &bytes[NAME_AT..];
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        let words = words(&bytes[..NAME_AT]);
        Self {
            name: String::from_utf8_lossy(&name[..end]).into_owned(),
            // The kind has four bytes; those behind it are nobody's.
            kind: u32::try_from(words[0] & 0xffff_ffff).unwrap_or(0),
            value: words[1],
        }
    }

    pub(super) fn value(&self, header: &Header, memory: &Memory) -> Result<Option<Value>, StatsError> {
        self.value_at(header, memory, None, true)
    }

    /// `column`: only this index, of all threads.
    fn value_at(
        &self,
        header: &Header,
        memory: &Memory,
        column: Option<u64>,
        follow: bool,
    ) -> Result<Option<Value>, StatsError> {
        let what = self.name.as_str();
        let short = |()| damaged(what, "a value out of the segment");
        let of_threads = |element: u64| self.of_threads(header, memory, element, column);
        Ok(Some(match self.kind {
            // Scalars and gauges.
            1 | 9 => Value::Scalar(self.value),
            2 => Value::Simple(of_threads(8)?.iter().map(|bytes| words(bytes)).collect()),
            3 => {
                let combined = |bytes: &Vec<u8>| {
                    let pairs = words(bytes);
                    pairs.chunks_exact(2).map(|pair| Combined { packets: pair[0], bytes: pair[1] }).collect()
                };
                Value::Combined(of_threads(16)?.iter().map(combined).collect())
            }
            4 => {
                let (at, length) = header.vector(memory, self.value, 8, what)?.unwrap_or((0, 0));
                let name = |number: u64| {
                    let pointer = memory.word(at + number * 8).map_err(short)?;
                    let Some((at, length)) = header.vector(memory, pointer, 1, what)? else { return Ok(String::new()) };
                    let bytes = memory.bytes(at, usize::try_from(length).unwrap_or(usize::MAX)).map_err(short)?;
                    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
                    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
                };
                Value::Names((0..length).map(name).collect::<Result<_, StatsError>>()?)
            }
            // A symlink: an index of the directory, and one of its vector. One that leads to another leads nowhere.
            6 if follow => {
                let (entry, column) = (self.value & 0xffff_ffff, self.value >> 32);
                let target = header.entries(memory, Some(entry))?.pop();
                let target = target.ok_or_else(|| damaged(what, "a link to no entry"))?;
                return target.value_at(header, memory, Some(column), false);
            }
            _ => return Ok(None),
        }))
    }

    /// The bytes of each thread's vector.
    fn of_threads(
        &self,
        header: &Header,
        memory: &Memory,
        element: u64,
        column: Option<u64>,
    ) -> Result<Vec<Vec<u8>>, StatsError> {
        let what = self.name.as_str();
        let short = |()| damaged(what, "a value out of the segment");
        let (at, threads) = header.vector(memory, self.value, 8, what)?.unwrap_or((0, 0));
        let mut all = Vec::new();
        for thread in 0..threads {
            let pointer = memory.word(at + thread * 8).map_err(short)?;
            let (at, length) = header.vector(memory, pointer, element, what)?.unwrap_or((0, 0));
            let (from, count) = match column {
                None => (0, length),
                Some(column) if column < length => (column, 1),
                Some(_) => (0, 0),
            };
            let bytes = usize::try_from(count * element).unwrap_or(usize::MAX);
            all.push(memory.bytes(at + from * element, bytes).map_err(short)?);
        }
        Ok(all)
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect()
}

fn damaged(at: &str, problem: &'static str) -> StatsError {
    StatsError::Damaged { at: at.into(), problem }
}
