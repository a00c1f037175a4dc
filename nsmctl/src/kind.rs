//! Kinds of objects and their names, long, short and as kubectl knows them.

use std::str::FromStr;

use nsm_objects::Object;
use nsm_proto::admin;

use crate::error::Error;

/// What a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Service,
    Endpoint,
    Connection,
}

/// No kind of that name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no kind {0:?}: networkservices (netsvc), networkserviceendpoints (nse), connections")]
pub(crate) struct UnknownKind(String);

impl Kind {
    /// The kind of a document's object.
    pub(crate) fn of(object: &Object) -> Self {
        match object {
            Object::Service(_) => Self::Service,
            Object::Endpoint(_) => Self::Endpoint,
        }
    }

    /// As documents and `-o json` call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Service => nsm_objects::SERVICE,
            Self::Endpoint => nsm_objects::ENDPOINT,
            Self::Connection => "Connection",
        }
    }

    /// As the command line calls one of it.
    pub(crate) fn singular(self) -> &'static str {
        match self {
            Self::Service => "networkservice",
            Self::Endpoint => "networkserviceendpoint",
            Self::Connection => "connection",
        }
    }

    /// As the agent calls it.
    pub(crate) fn wire(self) -> i32 {
        match self {
            Self::Service => admin::Kind::NetworkService,
            Self::Endpoint => admin::Kind::NetworkServiceEndpoint,
            Self::Connection => admin::Kind::Connection,
        }
        .into()
    }

    /// A kind with names, or names that begin with theirs: `nse NAME…`, `nse/NAME…`, and what [`Kind::qualified`] writes, behind
    /// its kind too.
    pub(crate) fn with_names(first: &str, more: &[String]) -> Result<Vec<(Self, String)>, Error> {
        let slashed = |text: &str| match text.split_once('/') {
            Some((kind, name)) if !name.is_empty() => Ok(Some((kind.parse::<Self>()?, name.to_owned()))),
            Some(_) => Err(Error::Usage(format!("{text:?} names nothing: expected KIND/NAME"))),
            None => Ok(None),
        };
        if let Some(one) = slashed(first)? {
            let rest = more.iter().map(|text| {
                slashed(text)?.ok_or_else(|| Error::Usage(format!("{text:?}: expected KIND/NAME, as {first:?} is")))
            });
            return std::iter::once(Ok(one)).chain(rest).collect();
        }
        let kind: Self = first.parse()?;
        let named = |text: &String| match slashed(text) {
            Ok(Some((other, name))) if other == kind => Ok((kind, name)),
            // No name that we know has a slash, but the agent decides.
            Ok(_) | Err(_) => Ok((kind, text.clone())),
        };
        more.iter().map(named).collect()
    }

    /// `networkservice.networkservicemesh.io/NAME`, as `-o name` and kubectl write it.
    pub(crate) fn qualified(self, name: &str) -> String {
        format!("{}.networkservicemesh.io/{name}", self.singular())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let plain = name.to_ascii_lowercase();
        let plain = plain.strip_suffix(".networkservicemesh.io").unwrap_or(&plain);
        match plain {
            "netsvc" | "networkservice" | "networkservices" => Ok(Self::Service),
            "nse" | "nses" | "networkserviceendpoint" | "networkserviceendpoints" => Ok(Self::Endpoint),
            "connection" | "connections" => Ok(Self::Connection),
            _ => Err(UnknownKind(name.to_owned())),
        }
    }
}
