//! What an endpoint allocates from, as `NSM_CIDR_PREFIX` spells it.

use std::{fmt, str::FromStr};

use ipnetwork::IpNetwork;

/// Groups of prefixes. A connection gets one pair of addresses from each group: from the group's first prefix that has a
/// pair left. `10.0.0.0/24,fd00::/64` are two groups (dual stack), `[10.0.0.0/24,10.9.0.0/24],fd00::/64` are two as well, with a
/// reserve for IPv4.
///
/// ```
/// use nsm_sdk::ipam::Groups;
/// let groups: Groups = "[10.0.0.0/24, 10.9.0.0/24], fd00::/64".parse().unwrap();
/// assert_eq!(groups.to_string(), "[10.0.0.0/24,10.9.0.0/24],fd00::/64");
/// assert!("[10.0.0.0/24".parse::<Groups>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups(Vec<Vec<IpNetwork>>);

/// Why a text is no list of groups.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGroups {
    /// A group without prefixes.
    #[error("a group is empty: expected prefixes, e.g. 10.0.0.0/24,fd00::/64 or [10.0.0.0/24,10.1.0.0/24]")]
    Empty,
    /// Neither an IPv4 nor an IPv6 prefix.
    #[error("{0:?} is no prefix: expected e.g. 10.0.0.0/24 or fd00::/64")]
    Prefix(String),
    /// A bracket without its other half, inside another pair, or glued to a neighbour.
    #[error("brackets do not match near {0:?}: expected e.g. [10.0.0.0/24,10.1.0.0/24],fd00::/64")]
    Brackets(String),
    /// A prefix with a single address.
    #[error("{0} has no room for a pair of addresses: expected at most /31 (IPv4) or /127 (IPv6)")]
    TooLong(IpNetwork),
    /// More than [`Groups::MAX`] prefixes.
    #[error("more than {} prefixes", Groups::MAX)]
    TooMany,
}

impl Groups {
    /// Most prefixes that a list may have.
    pub const MAX: usize = 256;

    /// Groups of these prefixes; bits behind a prefix's length are cleared.
    ///
    /// # Errors
    /// [`InvalidGroups`] when there is no group, one is empty, or a prefix is too long.
    pub fn new(groups: Vec<Vec<IpNetwork>>) -> Result<Self, InvalidGroups> {
        if groups.is_empty() || groups.iter().any(Vec::is_empty) {
            return Err(InvalidGroups::Empty);
        }
        if groups.iter().flatten().count() > Self::MAX {
            return Err(InvalidGroups::TooMany);
        }
        let trimmed = |prefix: IpNetwork| {
            let most = if prefix.is_ipv4() { 31 } else { 127 };
            if prefix.prefix() > most {
                return Err(InvalidGroups::TooLong(prefix));
            }
            IpNetwork::new(prefix.network(), prefix.prefix()).map_err(|_| InvalidGroups::Prefix(prefix.to_string()))
        };
        let groups = groups.into_iter().map(|group| group.into_iter().map(trimmed).collect());
        Ok(Self(groups.collect::<Result<_, _>>()?))
    }

    /// The groups, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[IpNetwork]> {
        self.0.iter().map(Vec::as_slice)
    }
}

impl FromStr for Groups {
    type Err = InvalidGroups;

    fn from_str(text: &str) -> Result<Self, InvalidGroups> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let mut groups = Vec::new();
        let mut rest = text.as_str();
        loop {
            let (group, after) = match rest.strip_prefix('[') {
                Some(inside) => inside.split_once(']').ok_or_else(|| InvalidGroups::Brackets(rest.to_owned()))?,
                None => rest.split_at(rest.find(',').unwrap_or(rest.len())),
            };
            if group.contains(['[', ']']) {
                return Err(InvalidGroups::Brackets(group.to_owned()));
            }
            groups.push(group.split(',').map(prefix).collect::<Result<_, _>>()?);
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None if after.is_empty() => return Self::new(groups),
                None => return Err(InvalidGroups::Brackets(after.to_owned())),
            }
        }
    }
}

/// A slash is asked for: an address alone would be a prefix without room.
fn prefix(text: &str) -> Result<IpNetwork, InvalidGroups> {
    match text {
        "" => Err(InvalidGroups::Empty),
        _ if !text.contains('/') => Err(InvalidGroups::Prefix(text.to_owned())),
        _ => text.parse().map_err(|_| InvalidGroups::Prefix(text.to_owned())),
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, group) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let prefixes = group.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            if group.len() == 1 {
                write!(f, "{comma}{prefixes}")?;
            } else {
                write!(f, "{comma}[{prefixes}]")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_prefixes_are_groups_of_one() {
        let groups: Groups =
            "[10.0.0.7/24], [10.0.0.0/24, fd00::/64], 10.1.0.0/16 ,[fd01::/64,fd02::/64,fd03::/64]".parse().unwrap();
        assert_eq!(groups.iter().map(<[_]>::len).collect::<Vec<_>>(), [1, 2, 1, 3]);
        assert_eq!(
            groups.to_string(),
            "10.0.0.0/24,[10.0.0.0/24,fd00::/64],10.1.0.0/16,[fd01::/64,fd02::/64,fd03::/64]"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let p = "10.0.0.0/24";
        let wrong = [
            String::new(),
            "nonsense".into(),
            "10.0.0.1".into(),
            "10.0.0.1/32".into(),
            "fd00::/128".into(),
            "10.0.0.0/33".into(),
            format!("[{p},{p}],[[{p}],,[{p}]"),
            format!("[{p},{p}"),
            format!("{p},{p}]"),
            format!("[{p},{p}],"),
            format!("[{p},{p}][{p}]"),
            format!("[{p},{p}],[]"),
            format!("[{p},,{p}]"),
            format!("[{p},{p}]{p}"),
            vec![p; Groups::MAX + 1].join(","),
        ];
        for text in wrong {
            assert!(text.parse::<Groups>().is_err(), "{text}");
        }
    }
}
