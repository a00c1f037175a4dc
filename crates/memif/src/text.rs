//! Names and secrets as they travel: in fields of a fixed size, padded with NUL.

use std::fmt;

/// A name of at most `SIZE` bytes, as a peer gave it or as it is told to one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const SIZE: usize>([u8; SIZE]);

/// The name of a program or of an interface.
pub type Name = Text<32>;

impl<const SIZE: usize> Text<SIZE> {
    /// As much of `text` as fits with a NUL behind it, cut between characters and at a NUL.
    pub fn cut(text: &str) -> Self {
        let text = text.split('\0').next().unwrap_or_default();
        let mut end = text.len().min(SIZE.saturating_sub(1));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut field = [0; SIZE];
        field[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self(field)
    }

    /// The field as it came.
    pub const fn from_field(field: [u8; SIZE]) -> Self {
        Self(field)
    }

    /// The field as it goes.
    pub const fn field(&self) -> &[u8; SIZE] {
        &self.0
    }

    /// What stands before the first NUL.
    pub fn bytes(&self) -> &[u8] {
        self.0.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// What a peer wrote may be anything: nothing of it reaches a terminal or a log as a control character.
impl<const SIZE: usize> fmt::Display for Text<SIZE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self.bytes())
            .chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
    }
}

impl<const SIZE: usize> fmt::Debug for Text<SIZE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What client and server both know. It is never printed.
#[derive(Clone, Copy)]
pub struct Secret([u8; 24]);

/// A secret that does not fit its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSecret {
    /// Too few bytes, or too many.
    #[error("a secret of {length} bytes: expected 1 to {most}", most = Secret::MOST)]
    Length {
        /// How many there are.
        length: usize,
    },
    /// A NUL, which would end it.
    #[error("a secret with a NUL in it: expected 1 to {most} bytes without NUL", most = Secret::MOST)]
    Nul,
}

impl Secret {
    /// Other implementations keep the last byte for a NUL.
    pub const MOST: usize = 23;

    /// A secret of 1 to 23 bytes.
    ///
    /// # Errors
    /// Another length, or a NUL in it.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, InvalidSecret> {
        let secret = secret.as_ref();
        if !(1..=Self::MOST).contains(&secret.len()) {
            return Err(InvalidSecret::Length { length: secret.len() });
        }
        if secret.contains(&0) {
            return Err(InvalidSecret::Nul);
        }
        let mut field = [0; 24];
        field[..secret.len()].copy_from_slice(secret);
        Ok(Self(field))
    }

    pub(crate) const fn from_field(field: [u8; 24]) -> Self {
        Self(field)
    }

    pub(crate) const fn field(&self) -> &[u8; 24] {
        &self.0
    }

    pub(crate) const NONE: Self = Self([0; 24]);

    pub(crate) fn is_none(&self) -> bool {
        self.0[0] == 0
    }
}

/// Takes the same time wherever the two differ. What stands behind the first NUL of a field counts too: padding is NUL.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "no secret" } else { "a secret" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(Text::<4>::cut("äöü").to_string(), "ä");
        assert_eq!(Name::cut("eth0\0rest").to_string(), "eth0");
        assert_eq!(Name::from_field([b'x'; 32]).bytes().len(), 32);
        assert_eq!(Name::cut("a\x1b[2Jb").to_string(), "a\\u{1b}[2Jb");
    }

    #[test]
    fn secrets_are_bounded_and_not_printed() {
        assert_eq!(Secret::new(""), Err(InvalidSecret::Length { length: 0 }));
        assert_eq!(Secret::new([b'x'; 24]), Err(InvalidSecret::Length { length: 24 }));
        assert_eq!(Secret::new("a\0b"), Err(InvalidSecret::Nul));
        let secret = Secret::new("abc").unwrap();
        assert_eq!(format!("{secret:?}"), "a secret");
        assert_eq!(secret, Secret::new("abc").unwrap());
        assert_ne!(secret, Secret::new("abd").unwrap());
        assert_ne!(secret, Secret::NONE);
    }
}
