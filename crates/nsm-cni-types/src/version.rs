//! The versions of the CNI specification.

use crate::{Error, code};

/// A version of the CNI specification that this crate reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the variants are called what they are")]
pub enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// All, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that `text` names; an empty text is 0.1.0.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::V0_1_0);
        }
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// What VERSION answers.
    pub fn supported_json() -> String {
        let all: Vec<String> = Self::ALL.iter().map(|version| format!("\"{}\"", version.as_str())).collect();
        format!("{{\"cniVersion\":\"{}\",\"supportedVersions\":[{}]}}", Self::NEWEST.as_str(), all.join(","))
    }

    /// The version of a configuration for an operation that exists since `since`, checked in the library's order.
    pub(crate) fn negotiate(text: &str, since: Option<(Self, &str)>) -> Result<Self, Error> {
        if let Some((since, operation)) = since {
            let asked = numbers(text)?;
            let not_allowed =
                |who: &str| Error::new(code::INCOMPATIBLE_VERSION, format!("{who} version does not allow {operation}"));
            if asked < numbers(since.as_str())? {
                return Err(not_allowed("config"));
            }
            if asked > numbers(Self::NEWEST.as_str())? {
                return Err(not_allowed("plugin"));
            }
        }
        Self::parse(text).ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(|version| format!("{:?}", version.as_str())).collect();
            let details = format!("config is {text:?}, plugin supports [{}]", all.join(" "));
            Error::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions").details(details)
        })
    }
}

fn numbers(text: &str) -> Result<[i64; 3], Error> {
    let mut numbers = [0; 3];
    if text.is_empty() {
        return Ok([0, 1, 0]);
    }
    let invalid = |why: String| Error::new(code::DECODING, why);
    for (place, part) in text.split('.').enumerate() {
        let number =
            numbers.get_mut(place).ok_or_else(|| invalid(format!("invalid version {text:?}: too many parts")))?;
        *number = part.parse().map_err(|_| invalid(format!("invalid version {text:?}: {part:?} is no number")))?;
    }
    Ok(numbers)
}
