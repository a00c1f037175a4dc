//! What a client asks for, as a URL: `kernel://service[@domain]/interface?label=value`.

use std::{collections::BTreeMap, str::FromStr};

use crate::kernel::{InterfaceName, InvalidInterfaceName};

/// How packets shall travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// A kernel interface.
    Kernel,
    /// A shared memory interface.
    Memif,
}

/// One entry of `NSM_NETWORK_SERVICES`, or of the annotation `networkservicemesh.io`.
///
/// ```
/// use nsm_sdk::settings::ServiceUrl;
/// let url: ServiceUrl = "kernel://secure-intranet@cluster-2/nsm-1?app=firewall".parse().unwrap();
/// assert_eq!(url.service, "secure-intranet@cluster-2");
/// assert_eq!(url.interface.unwrap().as_str(), "nsm-1");
/// assert_eq!(url.labels["app"], "firewall");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    /// How packets shall travel.
    pub wire: Wire,
    /// The network service, with its domain where there is one.
    pub service: String,
    /// The interface's name, where one is wished for.
    pub interface: Option<InterfaceName>,
    /// The client's labels for this service.
    pub labels: BTreeMap<String, String>,
}

/// Why a text is no [`ServiceUrl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServiceUrl {
    /// Neither `kernel://` nor `memif://`.
    #[error("{0:?} does not begin with kernel:// or memif://: expected e.g. kernel://service/interface?label=value")]
    Wire(String),
    /// No service, or one with characters that a name cannot have.
    #[error("{0:?} names no network service: expected e.g. kernel://service/interface?label=value")]
    Service(String),
    /// A bad interface name.
    #[error(transparent)]
    Interface(#[from] InvalidInterfaceName),
    /// A label without a key, without a value, twice, or wrongly escaped.
    #[error("{0:?} is no label: expected key=value, each key once")]
    Label(String),
}

impl FromStr for ServiceUrl {
    type Err = InvalidServiceUrl;

    fn from_str(text: &str) -> Result<Self, InvalidServiceUrl> {
        let (wire, rest) = if let Some(rest) = text.strip_prefix("kernel://") {
            (Wire::Kernel, rest)
        } else if let Some(rest) = text.strip_prefix("memif://") {
            (Wire::Memif, rest)
        } else {
            return Err(InvalidServiceUrl::Wire(text.to_owned()));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (service, interface) = rest.split_once('/').unwrap_or((rest, ""));
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '@');
        if service.is_empty() || service.len() > 253 || !service.chars().all(allowed) || service.starts_with('@') {
            return Err(InvalidServiceUrl::Service(text.to_owned()));
        }
        let interface = if interface.is_empty() { None } else { Some(interface.parse()?) };
        let mut labels = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let wrong = || InvalidServiceUrl::Label(pair.to_owned());
            let (key, value) = pair.split_once('=').ok_or_else(wrong)?;
            let (key, value) = (unescaped(key).ok_or_else(wrong)?, unescaped(value).ok_or_else(wrong)?);
            if key.is_empty() || labels.insert(key, value).is_some() {
                return Err(wrong());
            }
        }
        Ok(Self { wire, service: service.to_owned(), interface, labels })
    }
}

/// `%XX` and `+`, as in any query.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit =
                    |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(bytes.next())? * 16 + digit(bytes.next())?
            }
            other => other,
        });
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_may_be_absent() {
        let url: ServiceUrl = "kernel://svc".parse().unwrap();
        assert_eq!((url.wire, url.interface, url.labels.len()), (Wire::Kernel, None, 0));
        let url: ServiceUrl = "memif://svc?a=b&c=%64+e".parse().unwrap();
        assert_eq!((url.wire, url.labels["c"].as_str()), (Wire::Memif, "d e"));
    }

    #[test]
    fn nonsense_is_refused() {
        let wrong = [
            "",
            "svc",
            "vfio://svc",
            "kernel://",
            "kernel://@d/x",
            "kernel://a b",
            "kernel://s/sixteen-bytes-xx",
            "kernel://s/a/b",
            "kernel://s?a",
            "kernel://s?=b",
            "kernel://s?a=1&a=2",
            "kernel://s?a=%f",
            "kernel://s?a=%ff",
        ];
        for text in wrong {
            assert!(text.parse::<ServiceUrl>().is_err(), "{text}");
        }
    }
}
