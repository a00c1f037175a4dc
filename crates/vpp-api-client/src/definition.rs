//! What an API consists of: ours, a running VPP's, or an installed one's.

mod check;
mod crc;
mod json;
mod model;
mod text;

pub use json::DefinitionError;
pub use model::{
    Base, Definitions, Enum, Field, Head, Message, Preset, Service, Shape, Standing, Type, Value, is_count,
};

impl Definitions {
    /// What the typed messages of this crate are made from.
    ///
    /// # Panics
    /// Never: the build has read the same text.
    pub fn ours() -> Self {
        let mut definitions = Self::default();
        for file in include!(concat!(env!("OUT_DIR"), "/files.rs")) {
            text::read(file, &mut definitions).expect("the build has read this text");
        }
        definitions
    }
}
