//! Numbers and truth.

use super::{DecodeError, EncodeError, Input, Wire};

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                out.extend_from_slice(&self.to_be_bytes());
                Ok(())
            }

            fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
                let mut bytes = [0; size_of::<Self>()];
                bytes.copy_from_slice(input.bytes(size_of::<Self>())?);
                Ok(Self::from_be_bytes(bytes))
            }

            fn initial() -> Self {
                0
            }
        }
    )*};
}

integers! { u8 u16 u32 u64 i8 i16 i32 i64 }

impl Wire for f64 {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.to_ne_bytes());
        Ok(())
    }

    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(input.bytes(8)?);
        Ok(Self::from_ne_bytes(bytes))
    }

    fn initial() -> Self {
        0.0
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        u8::from(*self).put(out)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        Ok(u8::take(input)? != 0)
    }

    fn initial() -> Self {
        false
    }
}
