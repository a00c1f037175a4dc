//! What a passed file is called on the wire: `inode://DEV/INO`.

use std::{fmt, io, os::fd::AsFd, str::FromStr};

/// A file's identity: `st_dev` and `st_ino` of stat(2). Valid while a descriptor of the file is open: numbers are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// A URL that is no `inode://DEV/INO` with two decimal numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not name a passed file: expected inode://DEV/INO with two decimal numbers")]
pub struct NotAnInode(pub String);

impl InodeId {
    /// The identity of an open file, as stat(2) tells it.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        let (dev, ino) = crate::sys::identity(file)?;
        Ok(Self { dev, ino })
    }
}

impl fmt::Display for InodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode://{}/{}", self.dev, self.ino)
    }
}

impl FromStr for InodeId {
    type Err = NotAnInode;

    fn from_str(url: &str) -> Result<Self, NotAnInode> {
        let parse = || {
            let (dev, ino) = url.strip_prefix("inode://")?.split_once('/')?;
            Some(Self { dev: decimal(dev)?, ino: decimal(ino)? })
        };
        parse().ok_or_else(|| NotAnInode(url.to_owned()))
    }
}

/// Digits only: `u64::from_str` also takes a sign.
fn decimal(digits: &str) -> Option<u64> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_the_file_it_was_made_from() {
        let id = InodeId::of(std::io::stdin()).unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn it_is_what_stat_says() {
        let file = tempfile::tempfile().unwrap();
        let stat = nix::sys::stat::fstat(&file).unwrap();
        assert_eq!(InodeId::of(&file).unwrap(), InodeId { dev: stat.st_dev, ino: stat.st_ino });
    }

    proptest::proptest! {
        #[test]
        fn every_id_comes_back(dev: u64, ino: u64) {
            let id = InodeId { dev, ino };
            assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn any_text_is_a_name_of_digits_or_refused(url in "(inode://)?[0-9+/ -]{0,24}\\PC{0,4}") {
            if let Ok(id) = url.parse::<InodeId>() {
                let digits = url.strip_prefix("inode://").unwrap().split('/').collect::<Vec<_>>();
                assert_eq!(digits.iter().map(|part| part.parse().unwrap()).collect::<Vec<u64>>(), [id.dev, id.ino]);
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for url in ["", "inode://", "inode://4", "inode://4/", "inode://+4/5", "inode://4/5/6", "file:///4/5"] {
            assert_eq!(url.parse::<InodeId>(), Err(NotAnInode(url.into())), "{url}");
        }
    }
}
