//! Values with names: flags, and what of an enum has none.

/// A value of an enum that VPP sent and its definition does not have. Only reading makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Undeclared(i64);

impl Undeclared {
    pub(crate) fn new(value: i64) -> Self {
        Self(value)
    }

    /// On the wire.
    pub fn value(self) -> i64 {
        self.0
    }
}

/// A set of bits with names. Bits that VPP sent and that have none are kept, and not sent back.
macro_rules! flags {
    ($(#[$doc:meta])* $name:ident: $width:ty { $($(#[$about:meta])* $flag:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name($width);

        impl $name {
            $($(#[$about])* pub const $flag: Self = Self($value);)*

            /// No bit.
            pub const fn empty() -> Self {
                Self(0)
            }

            /// On the wire.
            pub const fn bits(self) -> $width {
                self.0
            }

            /// All of the other's bits are set.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) -> Result<(), crate::wire::EncodeError> {
                const NAMED: $width = 0 $(| $value)*;
                if self.0 & !NAMED != 0 {
                    let problem = crate::wire::EncodeProblem::Undeclared { name: stringify!($name), value: self.0.into() };
                    return Err(problem.into());
                }
                self.0.put(out)
            }

            fn take(input: &mut crate::wire::Input<'_>) -> Result<Self, crate::wire::DecodeError> {
                <$width>::take(input).map(Self)
            }

            fn initial() -> Self {
                Self(0)
            }
        }
    };
}

pub(crate) use flags;
