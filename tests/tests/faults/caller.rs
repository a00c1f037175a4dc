//! A caller without manners: bytes as they are, messages as they are, files as they are.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nsm_fdpass::{FdChannel, connect};
use nsm_lab::{Namespace, Node};
use nsm_proto::connection::monitor_connection_client::MonitorConnectionClient;
use nsm_proto::connection::{Connection, Mechanism, MonitorScopeSelector, Path as Segments, PathSegment};
use nsm_proto::networkservice::NetworkServiceRequest;
use nsm_proto::networkservice::network_service_client::NetworkServiceClient;
use nsm_proto::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use nsm_proto::registry::{NetworkServiceEndpoint, NetworkServiceEndpointQuery};
use tokio::runtime::{Builder, Runtime};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

use crate::SERVICE;

/// For a call that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request of client `id`, with a KERNEL preference that names this file.
pub(crate) fn request(id: &str, inode_url: &str) -> NetworkServiceRequest {
    let parameters = [("name".to_owned(), "nsm-9".to_owned()), ("inodeURL".to_owned(), inode_url.to_owned())];
    let segment = PathSegment { name: "raw".into(), id: id.into(), ..PathSegment::default() };
    NetworkServiceRequest {
        connection: Some(Connection {
            id: id.into(),
            network_service: SERVICE.into(),
            path: Some(Segments { index: 0, path_segments: vec![segment] }),
            ..Connection::default()
        }),
        mechanism_preferences: vec![Mechanism {
            cls: "LOCAL".into(),
            r#type: "KERNEL".into(),
            parameters: parameters.into(),
        }],
    }
}

/// One process's socket to the agent.
pub(crate) struct Caller {
    runtime: Runtime,
    channel: FdChannel,
}

impl Caller {
    /// Connects from inside `namespace`, which is then whose the socket is.
    pub(crate) fn of(node: &Node, namespace: &Namespace) -> anyhow::Result<Self> {
        let path = node.nsm_socket();
        namespace.run(move || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let channel = runtime.block_on(connect(&path, tokio::time::Instant::now() + PATIENCE))?;
            anyhow::Ok(Self { runtime, channel })
        })?
    }

    /// Passes a file ahead of the next call; the name that it goes by.
    pub(crate) fn pass(&self, path: &Path) -> anyhow::Result<String> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        self.channel.outbox.send(Arc::new(file.into()))?;
        Ok(format!("inode://{}/{}", meta.dev(), meta.ino()))
    }

    /// A Request, answered.
    pub(crate) fn request(&self, message: NetworkServiceRequest) -> anyhow::Result<Result<Connection, Status>> {
        let mut client = NetworkServiceClient::new(self.channel.channel.clone());
        let call = headers(message)?;
        Ok(self.runtime.block_on(async { client.request(call).await }).map(tonic::Response::into_inner))
    }

    /// Requests side by side: the first `count` that are refused; the others are left to run.
    pub(crate) fn refusals(&self, messages: Vec<NetworkServiceRequest>, count: usize) -> anyhow::Result<Vec<Status>> {
        let calls = messages
            .into_iter()
            .map(|message| {
                let mut client = NetworkServiceClient::new(self.channel.channel.clone());
                let call = headers(message)?;
                Ok(self.runtime.spawn(async move { client.request(call).await }))
            })
            .collect::<anyhow::Result<FuturesUnordered<_>>>()?;
        self.runtime.block_on(async {
            let refused = calls.filter_map(async |answer| answer.ok()?.err()).take(count).collect();
            Ok(tokio::time::timeout(PATIENCE / 2, refused).await?)
        })
    }

    /// A Request whose caller hangs up after a while; whether it was served before.
    pub(crate) fn request_and_hang_up(self, message: NetworkServiceRequest, after: Duration) -> anyhow::Result<bool> {
        let mut client = NetworkServiceClient::new(self.channel.channel.clone());
        let call = headers(message)?;
        let answer = self.runtime.block_on(async { tokio::time::timeout(after, client.request(call)).await });
        Ok(matches!(answer, Ok(Ok(_))))
    }

    /// A Close, answered.
    pub(crate) fn close(&self, connection: Connection) -> anyhow::Result<Result<(), Status>> {
        let mut client = NetworkServiceClient::new(self.channel.channel.clone());
        let call = headers(connection)?;
        Ok(self.runtime.block_on(async { client.close(call).await }).map(|_| ()))
    }

    /// The URL of each registered endpoint, and whether the file that it names came along.
    pub(crate) fn find(&self) -> anyhow::Result<Vec<(String, bool)>> {
        let mut client = NetworkServiceEndpointRegistryClient::new(self.channel.channel.clone());
        let call = headers(NetworkServiceEndpointQuery::default())?;
        self.runtime.block_on(async {
            let mut stream = client.find(call).await?.into_inner();
            let mut found = Vec::new();
            while let Some(answer) = stream.message().await? {
                let url = answer.network_service_endpoint.unwrap_or_default().url;
                let file = url.parse().ok().and_then(|id| self.channel.inbox.take(id));
                found.push((url, file.is_some()));
            }
            anyhow::ensure!(self.channel.inbox.is_empty(), "files that no endpoint names");
            Ok(found)
        })
    }

    /// Watches of one endpoint's name and of connections, so many of each, for as long as they are held.
    pub(crate) fn watch(&self, count: usize) -> anyhow::Result<impl Sized> {
        let mut endpoints = NetworkServiceEndpointRegistryClient::new(self.channel.channel.clone());
        let mut connections = MonitorConnectionClient::new(self.channel.channel.clone());
        self.runtime.block_on(async {
            let mut held = Vec::new();
            for _ in 0..count {
                let named = NetworkServiceEndpoint { name: "somebody".into(), ..NetworkServiceEndpoint::default() };
                let query = NetworkServiceEndpointQuery { watch: true, network_service_endpoint: Some(named) };
                let found = endpoints.find(Request::new(query)).await?.into_inner();
                let events = connections.monitor_connections(MonitorScopeSelector::default()).await?.into_inner();
                held.push((found, events));
            }
            Ok(held)
        })
    }

    /// A call of `method` with these bytes in the place of a message.
    pub(crate) fn bytes(&self, method: &'static str, bytes: Vec<u8>) -> anyhow::Result<Result<(), Status>> {
        let mut client = tonic::client::Grpc::new(self.channel.channel.clone());
        let call = headers(bytes)?;
        self.runtime.block_on(async {
            client.ready().await?;
            let call = client.server_streaming(call, http::uri::PathAndQuery::from_static(method), Bytes);
            Ok(match tokio::time::timeout(PATIENCE, call).await? {
                // Of a stream, its first message is enough.
                Ok(answer) => match tokio::time::timeout(Duration::from_millis(5), answer.into_inner().message()).await
                {
                    Ok(Err(status)) => Err(status),
                    Ok(Ok(_)) | Err(_) => Ok(()),
                },
                Err(status) => Err(status),
            })
        })
    }
}

fn headers<T>(message: T) -> anyhow::Result<Request<T>> {
    let mut call = Request::new(message);
    call.set_timeout(PATIENCE);
    let expires = prost_types::Timestamp::from(SystemTime::now() + Duration::from_mins(10));
    call.metadata_mut().insert("nsm-client-token", "raw".parse()?);
    call.metadata_mut().insert("nsm-client-token-expires", expires.to_string().parse()?);
    Ok(call)
}

/// Messages that are what they are.
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        prost::bytes::Buf::advance(buffer, prost::bytes::Buf::remaining(buffer));
        Ok(Some(()))
    }
}
