//! The path: which processes handle a connection, and under which id each knows it.
//!
//! Guarantees:
//! - Behind [`Path::server`] the segment at `index` is this process's, and its id is `connection.id`; the caller sees its own
//!   index and id again in the answer, with all segments to the endpoint.
//! - The same caller gets the same id with each Request, and Close finds it even when the caller has lost our segment, as far
//!   as the [`Ids`] know it.
//! - A path that contradicts itself, or is longer than [`MAX_SEGMENTS`], is refused before anything else is done. So is an
//!   answer that changes the names or ids of those before us, or is about another network service or payload; what was made
//!   for it is closed.
//! - The labels of an answer are the caller's own: by them its endpoints are chosen, also when it moves to another one.
//!
//! Assumptions: [`Path::server`] is the first element of a server's chain, [`Path::client`] of a client's.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use nsm_proto::connection::{Connection, Path as Segments, PathSegment};

use crate::{Call, Close, Element, Error, Kind, Next, Request};

/// Most segments of a path.
pub const MAX_SEGMENTS: usize = 64;
/// Longest name or id of a segment, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Why a path is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Failure {
    /// Nothing names the caller.
    #[error("the connection has no path: the caller's own segment is missing")]
    Missing,
    /// `index` names no segment.
    #[error("path index {index} is out of bounds: the path has {segments} segments")]
    Index {
        /// As sent.
        index: u32,
        /// As many there are.
        segments: usize,
    },
    /// Two ids for one hop.
    #[error("connection id {connection:?} differs from {segment:?}, the id of the path's segment {index}")]
    Id {
        /// `connection.id`.
        connection: String,
        /// The segment's id.
        segment: String,
        /// Which segment.
        index: u32,
    },
    /// Longer than [`MAX_SEGMENTS`].
    #[error("the path has {0} segments, at most {MAX_SEGMENTS} are allowed")]
    Long(usize),
    /// A name or id beyond [`MAX_NAME_BYTES`].
    #[error("{field} of path segment {index} has {bytes} bytes, at most {MAX_NAME_BYTES} are allowed")]
    Name {
        /// `name` or `id`.
        field: &'static str,
        /// Which segment.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// The next hop answered for something else.
    #[error("the next hop's answer changes segment {0} of the path, which is not its own")]
    Changed(usize),
    /// The next hop answered for something else.
    #[error("the next hop's answer is about {field} {answered:?}, asked was {asked:?}")]
    Other {
        /// `network_service` or `payload`.
        field: &'static str,
        /// What was asked.
        asked: String,
        /// What was answered.
        answered: String,
    },
}

/// The segment of whoever holds the connection.
pub fn own(connection: &Connection) -> Option<&PathSegment> {
    let path = connection.path.as_ref()?;
    path.path_segments.get(usize::try_from(path.index).ok()?)
}

/// The segment before [`own`]: the caller's, seen from a server.
pub fn previous(connection: &Connection) -> Option<&PathSegment> {
    let path = connection.path.as_ref()?;
    path.path_segments.get(usize::try_from(path.index).ok()?.checked_sub(1)?)
}

/// The segment behind [`own`]: the next hop's, seen from a client.
pub fn next(connection: &Connection) -> Option<&PathSegment> {
    let path = connection.path.as_ref()?;
    path.path_segments.get(usize::try_from(path.index).ok()?.checked_add(1)?)
}

pub(crate) fn own_mut(connection: &mut Connection) -> Option<&mut PathSegment> {
    let path = connection.path.as_mut()?;
    path.path_segments.get_mut(usize::try_from(path.index).ok()?)
}

pub(crate) fn previous_mut(connection: &mut Connection) -> Option<&mut PathSegment> {
    let path = connection.path.as_mut()?;
    path.path_segments.get_mut(usize::try_from(path.index).ok()?.checked_sub(1)?)
}

/// Whether the path is one: an index within bounds, its segment with the connection's id, and lengths within theirs.
///
/// # Errors
/// [`Kind::Invalid`] with a [`Failure`].
pub fn check(connection: &Connection) -> Result<(), Error> {
    coherent(connection).map_err(|failure| Error::new(Kind::Invalid, failure))
}

fn coherent(connection: &Connection) -> Result<(), Failure> {
    let path = connection.path.as_ref().filter(|path| !path.path_segments.is_empty()).ok_or(Failure::Missing)?;
    let segments = path.path_segments.len();
    if segments > MAX_SEGMENTS {
        return Err(Failure::Long(segments));
    }
    for (index, segment) in path.path_segments.iter().enumerate() {
        for (field, text) in [("name", &segment.name), ("id", &segment.id)] {
            if text.len() > MAX_NAME_BYTES {
                return Err(Failure::Name { field, index, bytes: text.len() });
            }
        }
    }
    let own = own(connection).ok_or(Failure::Index { index: path.index, segments })?;
    if own.id != connection.id {
        let (connection, segment) = (shortened(&connection.id), own.id.clone());
        return Err(Failure::Id { connection, segment, index: path.index });
    }
    Ok(())
}

/// A text of any length from a peer, fit for an error text.
fn shortened(id: &str) -> String {
    id.chars().take(64).collect()
}

/// Whether `answer` keeps the path of `request` up to its own segment, whose index and id it has, and is about what was asked.
///
/// # Errors
/// [`Kind::Refused`] with a [`Failure`].
pub fn check_answer(request: &Connection, answer: &Connection) -> Result<(), Error> {
    keeps(request, answer).map_err(|failure| Error::new(Kind::Refused, failure))
}

fn keeps(request: &Connection, answer: &Connection) -> Result<(), Failure> {
    coherent(answer)?;
    for (field, asked, answered) in [
        ("network_service", &request.network_service, &answer.network_service),
        ("payload", &request.payload, &answer.payload),
    ] {
        // Who leaves it open is told.
        if !asked.is_empty() && asked != answered {
            let (asked, answered) = (shortened(asked), shortened(answered));
            return Err(Failure::Other { field, asked, answered });
        }
    }
    let asked = request.path.as_ref().ok_or(Failure::Missing)?;
    let path = answer.path.as_ref().ok_or(Failure::Missing)?;
    if path.index != asked.index {
        return Err(Failure::Index { index: path.index, segments: path.path_segments.len() });
    }
    let ours = usize::try_from(asked.index).unwrap_or(usize::MAX).saturating_add(1);
    let changed = asked.path_segments.iter().take(ours).enumerate().find(|(index, segment)| {
        path.path_segments.get(*index).is_none_or(|kept| kept.id != segment.id || kept.name != segment.name)
    });
    changed.map_or(Ok(()), |(index, _)| Err(Failure::Changed(index)))
}

/// Decides under which id this process knows a caller's connection. Asked for every Request and Close.
pub trait Ids: Send + Sync + 'static {
    /// `connection` is as the caller sent it; `proposed` is the id of our own segment, when the caller's path has one.
    fn id(&self, call: &Call, connection: &Connection, proposed: Option<&str>) -> Result<String, Error>;
}

/// Keeps the id that the path proposes, or makes a new one: right where every caller is trusted.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeepOrNew;

impl Ids for KeepOrNew {
    fn id(&self, _: &Call, _: &Connection, proposed: Option<&str>) -> Result<String, Error> {
        Ok(proposed.filter(|id| !id.is_empty()).map_or_else(new_id, ToOwned::to_owned))
    }
}

/// A random id.
pub fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The element, of a server or of a client.
pub struct Path {
    name: String,
    side: Side,
}

enum Side {
    Server(Arc<dyn Ids>),
    Client,
}

impl Path {
    /// For the chain of a process that calls itself `name` and serves Requests of others.
    pub fn server(name: impl Into<String>) -> Self {
        Self { name: name.into(), side: Side::Server(Arc::new(KeepOrNew)) }
    }

    /// For the chain of a process that calls itself `name` and begins paths. A connection without path gets one of a single
    /// segment; one without id a new id.
    pub fn client(name: impl Into<String>) -> Self {
        Self { name: name.into(), side: Side::Client }
    }

    /// Who decides the ids of a server; a client's are its caller's.
    #[must_use]
    pub fn ids(mut self, ids: Arc<dyn Ids>) -> Self {
        if let Side::Server(of_server) = &mut self.side {
            *of_server = ids;
        }
        self
    }

    fn enter(&self, call: &Call, connection: &mut Connection) -> Result<(), Error> {
        match &self.side {
            Side::Server(ids) => self.enter_server(&**ids, call, connection),
            Side::Client => self.enter_client(connection),
        }
    }

    fn enter_client(&self, connection: &mut Connection) -> Result<(), Error> {
        if connection.id.is_empty() {
            connection.id = new_id();
        }
        let path = connection.path.get_or_insert_default();
        if path.path_segments.is_empty() {
            let segment = PathSegment { id: connection.id.clone(), ..PathSegment::default() };
            *path = Segments { index: 0, path_segments: vec![segment] };
        }
        check(connection)?;
        if let Some(own) = own_mut(connection) {
            own.name.clone_from(&self.name);
        }
        Ok(())
    }

    fn enter_server(&self, ids: &dyn Ids, call: &Call, connection: &mut Connection) -> Result<(), Error> {
        check(connection)?;
        let proposed = next(connection).filter(|segment| segment.name == self.name).map(|segment| &*segment.id);
        let id = ids.id(call, connection, proposed)?;
        let Some(path) = &mut connection.path else { return Err(Error::new(Kind::Invalid, Failure::Missing)) };
        path.index += 1;
        let index = usize::try_from(path.index).unwrap_or(usize::MAX);
        match path.path_segments.get_mut(index) {
            Some(segment) => {
                segment.name.clone_from(&self.name);
                segment.id.clone_from(&id);
            }
            None => path.path_segments.push(PathSegment {
                name: self.name.clone(),
                id: id.clone(),
                ..PathSegment::default()
            }),
        }
        connection.id = id;
        check(connection)
    }
}

#[async_trait]
impl Element for Path {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let caller = request.connection.path.as_ref().map(|path| path.index);
        self.enter(&request.call, &mut request.connection)?;
        let mut answer = answered(request, &next).await?;
        if let (Side::Server(_), Some(path), Some(index)) = (&self.side, &mut answer.path, caller) {
            path.index = index;
            let id = own(&answer).map(|segment| segment.id.clone());
            answer.id = id.unwrap_or_default();
        }
        Ok(answer)
    }

    async fn close(&self, mut close: Close, next: Next) -> Result<(), Error> {
        self.enter(&close.call, &mut close.connection)?;
        next.close(close).await
    }
}

/// Checks the next hop's answer: right before the element that calls it, so that nothing is done with a wrong one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verify;

#[async_trait]
impl Element for Verify {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        answered(request, &next).await
    }
}

/// The rest's answer; a wrong one is closed, as nobody could use what was made for it.
async fn answered(request: Request, next: &Next) -> Result<Connection, Error> {
    let (asked, call) = (request.connection.clone(), request.call.clone());
    let mut answer = next.request(request).await?;
    if let Err(error) = check_answer(&asked, &answer) {
        if let Err(error) = next.close(Close { connection: asked, call }).await {
            tracing::debug!(%error, "closing after a wrong answer");
        }
        return Err(error);
    }
    answer.labels = asked.labels;
    Ok(answer)
}
