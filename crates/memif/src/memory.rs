//! A connection's regions: made by a client, judged and mapped by a server.
//!
//! Guarantees: what is mapped cannot become shorter, so no access ends this process with SIGBUS, unless the user said that the peer is
//! trusted. What could become shorter is read and written by the kernel on our behalf, which fails instead; on hugetlbfs it cannot write.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::FileExt,
    sync::Arc,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate, memfd_create};

use crate::{handshake::Refusal, settings::Unsealed, sys::Mapping};

/// statfs(2)'s type of hugetlbfs, where a seal does not help: a hole in the file needs a huge page to be filled, and there may be none left.
const HUGETLBFS: u64 = 0x9584_58f6;

/// Memory that packets and rings lie in.
#[derive(Debug)]
pub(crate) enum Region {
    Mapped {
        mapping: Arc<Mapping>,
        size: u64,
    },
    /// It could become shorter: never mapped.
    Guarded {
        file: File,
        size: u64,
    },
}

impl Region {
    /// Whether all of a part lies inside.
    #[inline]
    pub(crate) fn contains(&self, offset: u32, length: u32) -> bool {
        let (Self::Mapped { size, .. } | Self::Guarded { size, .. }) = self;
        u64::from(offset) + u64::from(length) <= *size
    }

    /// A client's memory: sealed, zeroed. The file is for the server.
    pub(crate) fn make(size: u64) -> io::Result<(Self, OwnedFd)> {
        let file = memfd_create("memif", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, size)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mapping = Arc::new(Mapping::of_file(&file, size)?);
        Ok((Self::Mapped { mapping, size }, file))
    }

    /// A region that a client announced.
    pub(crate) fn accept(index: u16, size: u64, file: OwnedFd, unsealed: Unsealed) -> Result<Self, Refusal> {
        let refused = |why: String| Refusal::Region { index, why };
        let failed = |doing: &str, error: io::Error| refused(format!("{doing}: {error}"));
        // Asked first: of other files the kernel answers that they have no seals, and their file systems are not asked anything.
        let seals = fcntl_get_seals(&file).map_err(|_| refused("expected a memory file (memfd)".into()))?;
        let hugetlb = fstatfs(&file).map_err(|error| failed("fstatfs", error.into()))?.f_type;
        let hugetlb = u64::try_from(hugetlb).is_ok_and(|kind| kind & 0xffff_ffff == HUGETLBFS);
        let mut sealed = seals.contains(SealFlags::SHRINK);
        if !sealed && !hugetlb && !seals.contains(SealFlags::SEAL) {
            // Whoever has a memory file may seal it.
            sealed = fcntl_add_seals(&file, SealFlags::SHRINK).is_ok();
        }
        let there = u64::try_from(fstat(&file).map_err(|error| failed("fstat", error.into()))?.st_size).unwrap_or(0);
        if there < size {
            return Err(refused(format!("{size} bytes announced: expected at most the file's {there}")));
        }
        match (sealed && !hugetlb, unsealed) {
            (true, _) | (false, Unsealed::Trusted) => {
                let mapping = Mapping::of_file(&file, size).map_err(|error| failed("mmap", error))?;
                Ok(Self::Mapped { mapping: Arc::new(mapping), size })
            }
            (false, Unsealed::Guarded | Unsealed::Refused) if hugetlb => {
                Err(refused("on hugetlbfs: expected no hugepages, or a server that trusts them".into()))
            }
            (false, Unsealed::Guarded) => Ok(Self::Guarded { file: file.into(), size }),
            (false, Unsealed::Refused) => Err(refused("expected the seal F_SEAL_SHRINK".into())),
        }
    }

    /// The memory, where it is mapped.
    #[inline]
    pub(crate) fn mapping(&self) -> Option<&Arc<Mapping>> {
        match self {
            Self::Mapped { mapping, .. } => Some(mapping),
            Self::Guarded { .. } => None,
        }
    }
}

/// Reads a part of a guarded region into `to`.
pub(crate) fn read_guarded(file: &File, offset: u32, to: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(to, offset.into())
}

/// Writes a part of a guarded region. A file that has become shorter would grow again by this: it is as if nobody had taken it away.
pub(crate) fn write_guarded(file: &File, offset: u32, from: &[u8]) -> io::Result<()> {
    file.write_all_at(from, offset.into())
}

/// Whether a file is an eventfd, asked of the kernel alone.
///
/// # Errors
/// There is no /proc to ask.
pub(crate) fn is_eventfd(file: impl AsFd) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let target = std::fs::read_link(&link).map_err(|error| io::Error::other(format!("{link}: {error}")))?;
    Ok(target.as_os_str() == "anon_inode:[eventfd]")
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn memory(flags: MemfdFlags, size: u64) -> OwnedFd {
        let file = memfd_create("test", flags | MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, size).unwrap();
        file
    }

    #[test]
    fn a_client_s_memory_cannot_shrink() {
        let (_, file) = Region::make(8192).unwrap();
        assert!(ftruncate(&file, 4096).is_err());
        assert!(matches!(Region::accept(0, 8192, file, Unsealed::Refused), Ok(Region::Mapped { .. })));
    }

    #[test]
    fn what_can_be_sealed_is_sealed_here() {
        let file = memory(MemfdFlags::ALLOW_SEALING, 8192);
        let same = file.try_clone().unwrap();
        assert!(matches!(Region::accept(0, 8192, file, Unsealed::Refused), Ok(Region::Mapped { .. })));
        assert!(ftruncate(&same, 4096).is_err());
    }

    #[test]
    fn what_cannot_be_sealed_is_never_mapped() {
        let file = memory(MemfdFlags::empty(), 8192);
        let same = file.try_clone().unwrap();
        let refused = Region::accept(3, 8192, file.try_clone().unwrap(), Unsealed::Refused).unwrap_err();
        assert_eq!(refused.to_string(), "region 3: expected the seal F_SEAL_SHRINK");
        let Ok(Region::Guarded { file, .. }) = Region::accept(0, 8192, file, Unsealed::Guarded) else { panic!() };
        let mut read = [1; 16];
        write_guarded(&file, 8000, &[7; 16]).unwrap();
        read_guarded(&file, 8000, &mut read).unwrap();
        assert_eq!(read, [7; 16]);
        ftruncate(&same, 4096).unwrap();
        assert!(read_guarded(&file, 8000, &mut read).is_err());
        let file = memory(MemfdFlags::empty(), 8192);
        assert!(matches!(Region::accept(0, 8192, file, Unsealed::Trusted), Ok(Region::Mapped { .. })));
    }

    #[test]
    fn hugepages_are_mapped_for_who_is_trusted_and_refused_from_others() {
        const HUGE: u64 = 2 << 20;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let file = match memfd_create("test", flags) {
            Ok(file) => file,
            Err(error) => return eprintln!("SKIPPED: memory of hugepages: {error}"),
        };
        // None need be there: nothing is touched.
        ftruncate(&file, HUGE).unwrap();
        for unsealed in [Unsealed::Guarded, Unsealed::Refused] {
            let refused = Region::accept(1, HUGE, file.try_clone().unwrap(), unsealed).unwrap_err();
            assert!(
                refused.text().to_string().ends_with("expected no hugepages, or a server that trusts them"),
                "{refused}"
            );
        }
        let trusted = Region::accept(1, HUGE, file, Unsealed::Trusted);
        assert!(match &trusted {
            Ok(region) => region.mapping().is_some(),
            Err(refused) => refused.to_string().starts_with("region 1: mmap: "),
        });
    }

    #[test]
    fn what_is_no_memory_or_too_little_is_refused() {
        let file = memory(MemfdFlags::ALLOW_SEALING, 4096);
        let short = Region::accept(0, 4097, file, Unsealed::Trusted).unwrap_err().to_string();
        assert_eq!(short, "region 0: 4097 bytes announced: expected at most the file's 4096");
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        assert!(is_eventfd(&event).unwrap());
        let error = Region::accept(0, 1, event, Unsealed::Trusted).unwrap_err().to_string();
        assert_eq!(error, "region 0: expected a memory file (memfd)");
        assert!(!is_eventfd(memory(MemfdFlags::empty(), 1)).unwrap());
    }
}
