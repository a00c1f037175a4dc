//! The receiving edge: gRPC calls of `networkservice.NetworkService` become Requests and Closes of a chain.
//!
//! Guarantees: a message beyond the bounds of [`limits`] never reaches the chain; every file that the message names is
//! in `call.files` or the call fails at once, since a file can only precede its message; who called is in the call's notes; a
//! file that the chain answers with, and that the caller did not bring, goes out ahead of the answer.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use nsm_fdpass::{InodeId, Peer};
use nsm_proto::{
    connection::{Connection as Message, Mechanism, State},
    header,
    mechanism::INODE_URL,
    networkservice::{
        NetworkServiceRequest,
        network_service_server::{NetworkService, NetworkServiceServer},
    },
};
use tonic::{Request as Rpc, Response, Status, metadata::MetadataMap};

pub use nsm_fdpass::Connection;

use crate::{
    Call, Chain, Close, DEFAULT_TIMEOUT, Error, Kind, Request, limits,
    token_headers::{self, CallerToken},
};

/// Longest time that a caller may ask for.
const LONGEST: Duration = Duration::from_mins(2);

/// Who made a call: a note of this edge.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The process at the other end of the socket.
    Peer(Arc<Peer>),
    /// A part of this process.
    InProcess,
}

/// Serves a chain.
pub struct Serve {
    chain: Chain,
}

impl Serve {
    /// A tonic service that runs `chain`.
    pub fn new(chain: Chain) -> NetworkServiceServer<Self> {
        NetworkServiceServer::new(Self { chain }).max_decoding_message_size(limits::MESSAGE)
    }
}

#[tonic::async_trait]
impl NetworkService for Serve {
    async fn request(&self, rpc: Rpc<NetworkServiceRequest>) -> Result<Response<Message>, Status> {
        let edge = Edge::of(&rpc)?;
        let NetworkServiceRequest { connection, mechanism_preferences } = rpc.into_inner();
        let connection = connection.ok_or_else(|| Status::invalid_argument("the request has no connection"))?;
        limits::connection(&connection)?;
        limits::preferences(&mechanism_preferences)?;
        for preference in &mechanism_preferences {
            edge.claim(preference)?.map_err(Status::from)?;
        }
        if let Some(mechanism) = &connection.mechanism {
            // After its restart a client repeats a file of its former life here, and passes the preference's only.
            let _ = edge.claim(mechanism)?;
        }
        let brought = edge.brought();
        let request = Request { connection, preferences: mechanism_preferences, call: edge.call.clone() };
        let answer = self.chain.request(request).await?;
        if let Some(mechanism) = &answer.mechanism {
            edge.pass(mechanism, &brought)?;
        }
        Ok(Response::new(answer))
    }

    async fn close(&self, rpc: Rpc<Message>) -> Result<Response<()>, Status> {
        let edge = Edge::of(&rpc)?;
        let mut connection = rpc.into_inner();
        limits::connection(&connection)?;
        // Only a part of this process can promise the Request that follows the Close of a reselect.
        connection.set_state(State::Up);
        if let Some(mechanism) = &connection.mechanism {
            let _ = edge.claim(mechanism)?;
        }
        self.chain.close(Close { connection, call: edge.call }).await?;
        Ok(Response::new(()))
    }
}

/// One call with its socket.
struct Edge {
    call: Call,
    socket: Option<Connection>,
}

impl Edge {
    fn of<T>(rpc: &Rpc<T>) -> Result<Self, Status> {
        let socket = rpc.extensions().get::<Connection>().cloned();
        let call = Call::new(timeout(rpc.metadata()));
        call.note(socket.as_ref().map_or(Caller::InProcess, |socket| Caller::Peer(socket.peer.clone())));
        if let Some(token) = caller_token(rpc.metadata())? {
            call.note(token);
        }
        Ok(Self { call, socket })
    }

    /// Takes the file that a mechanism names. The outer error: the URL is none that a peer may use.
    fn claim(&self, mechanism: &Mechanism) -> Result<Result<(), Error>, Status> {
        let Some(url) = mechanism.parameters.get(INODE_URL).filter(|url| !url.is_empty()) else { return Ok(Ok(())) };
        let id: InodeId = url.parse().map_err(|error: nsm_fdpass::NotAnInode| {
            Status::invalid_argument(format!("inodeURL of mechanism {}: {error}", mechanism.r#type))
        })?;
        if self.call.files.get(id).is_some() {
            return Ok(Ok(()));
        }
        match self.socket.as_ref().and_then(|socket| socket.inbox.take(id)) {
            Some(file) => Ok(self.call.files.add(file).map(drop)),
            None => Ok(Err(Error::new(
                Kind::Invalid,
                format!(
                    "mechanism {} names the file {url}, which was not passed on this socket before the call",
                    mechanism.r#type
                ),
            ))),
        }
    }

    fn brought(&self) -> BTreeSet<InodeId> {
        self.call.files.ids()
    }

    fn pass(&self, mechanism: &Mechanism, brought: &BTreeSet<InodeId>) -> Result<(), Status> {
        let id = mechanism.parameters.get(INODE_URL).and_then(|url| url.parse::<InodeId>().ok());
        let file = id.filter(|id| !brought.contains(id)).and_then(|id| self.call.files.get(id));
        if let (Some(file), Some(socket)) = (file, &self.socket) {
            socket.outbox.send(file).map_err(|error| Status::resource_exhausted(error.to_string()))?;
        }
        Ok(())
    }
}

/// `grpc-timeout` (gRPC over HTTP/2, Requests), within bounds.
fn timeout(headers: &MetadataMap) -> Duration {
    let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(|text| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let count: u64 = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(count.checked_mul(3600)?),
            "M" => Duration::from_secs(count.checked_mul(60)?),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    });
    asked.unwrap_or(DEFAULT_TIMEOUT).min(LONGEST)
}

fn caller_token(headers: &MetadataMap) -> Result<Option<CallerToken>, Status> {
    let text = |key: &'static str| {
        headers
            .get(key)
            .map(|value| value.to_str().map_err(|_| Status::invalid_argument(format!("header {key} is no text"))))
            .transpose()
    };
    let (Some(token), Some(expires)) = (text(header::CLIENT_TOKEN)?, text(header::CLIENT_TOKEN_EXPIRES)?) else {
        return Ok(None);
    };
    let expires = token_headers::parse(expires).ok_or_else(|| {
        Status::invalid_argument(format!("header {} is {expires:?}: expected RFC 3339", header::CLIENT_TOKEN_EXPIRES))
    })?;
    Ok(Some(CallerToken { token: token.to_owned(), expires }))
}

#[cfg(test)]
mod tests {
    use nsm_proto::connection::{ConnectionEventType, MonitorScopeSelector, Path, PathSegment};
    use tokio_stream::StreamExt;

    use super::*;
    use crate::{begin::Begin, chain, monitor::Monitor};

    #[tokio::test]
    async fn a_peers_close_is_an_end_whatever_its_state() {
        let monitor = Monitor::new();
        let serve = Serve { chain: chain![Begin::new(), monitor.clone()] };
        let segment = PathSegment { id: "a".into(), ..PathSegment::default() };
        let path = Path { index: 0, path_segments: vec![segment] };
        let mut connection = Message { id: "a".into(), path: Some(path), ..Message::default() };
        let request =
            NetworkServiceRequest { connection: Some(connection.clone()), ..NetworkServiceRequest::default() };
        serve.request(Rpc::new(request)).await.unwrap();
        let mut watch = monitor.watch(MonitorScopeSelector::default(), Arc::new(|_| true));
        watch.next().await.unwrap().unwrap();
        connection.set_state(State::ReselectRequested);
        serve.close(Rpc::new(connection)).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().r#type(), ConnectionEventType::Delete);
    }

    #[test]
    fn deadlines_are_read_and_bounded() {
        let of = |text: &'static str| {
            let mut headers = MetadataMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            timeout(&headers)
        };
        assert_eq!(of("250m"), Duration::from_millis(250));
        assert_eq!(of("3S"), Duration::from_secs(3));
        assert_eq!(of("9H"), LONGEST);
        assert_eq!(of("nonsense"), DEFAULT_TIMEOUT);
        assert_eq!(timeout(&MetadataMap::new()), DEFAULT_TIMEOUT);
    }
}
