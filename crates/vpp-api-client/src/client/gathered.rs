//! What one call gathers, within bounds.

use crate::error::Error;

/// Answers of one call.
#[derive(Debug)]
pub(super) struct Gathered<'a, T> {
    items: Vec<T>,
    message: &'a str,
    most: usize,
    left: usize,
}

impl<'a, T> Gathered<'a, T> {
    pub(super) fn new(message: &'a str, most: usize) -> Self {
        Self { items: Vec::new(), message, most, left: most }
    }

    pub(super) fn message(&self) -> &'a str {
        self.message
    }

    /// How much more memory it may take.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// One more, that takes about so many bytes beside its own.
    pub(super) fn add(&mut self, item: T, bytes: usize) -> Result<(), Error> {
        let bytes = bytes.saturating_add(size_of::<T>());
        self.left = self.left.checked_sub(bytes).ok_or_else(|| self.too_large())?;
        self.items.push(item);
        Ok(())
    }

    pub(super) fn too_large(&self) -> Error {
        Error::TooLarge { message: self.message.into(), most: self.most }
    }

    pub(super) fn all(self) -> Vec<T> {
        self.items
    }
}
