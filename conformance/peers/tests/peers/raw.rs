//! A caller without manners: messages as they are, files as they are.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use nsm_fdpass::{FdChannel, connect};
use nsm_lab::{Namespace, Node};
use nsm_proto::connection::monitor_connection_client::MonitorConnectionClient;
use nsm_proto::connection::{
    Connection, ConnectionEvent, Mechanism, MonitorScopeSelector, Path as Segments, PathSegment,
};
use nsm_proto::networkservice::NetworkServiceRequest;
use nsm_proto::networkservice::network_service_client::NetworkServiceClient;
use tonic::{Request, Status};

/// For a call that would otherwise hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A request for the service `demo` as client `id`, with a KERNEL preference that names this file.
pub(crate) fn request(id: &str, inode_url: &str) -> NetworkServiceRequest {
    let parameters = [("name".to_owned(), "nsm-9".to_owned()), ("inodeURL".to_owned(), inode_url.to_owned())];
    NetworkServiceRequest {
        connection: Some(connection(id)),
        mechanism_preferences: vec![Mechanism {
            cls: "LOCAL".into(),
            r#type: "KERNEL".into(),
            parameters: parameters.into(),
        }],
    }
}

/// What a client of that id would close.
pub(crate) fn connection(id: &str) -> Connection {
    let segment = PathSegment { name: "raw".into(), id: id.into(), ..PathSegment::default() };
    Connection {
        id: id.into(),
        network_service: "demo".into(),
        path: Some(Segments { index: 0, path_segments: vec![segment] }),
        ..Connection::default()
    }
}

/// One process's socket to the agent.
pub(crate) struct Caller {
    runtime: tokio::runtime::Runtime,
    channel: FdChannel,
}

impl Caller {
    /// Connects from inside `namespace`, which is then whose the socket is.
    pub(crate) fn of(node: &Node, namespace: &Namespace) -> anyhow::Result<Self> {
        let path = node.nsm_socket();
        namespace.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let deadline = tokio::time::Instant::now() + PATIENCE;
            let channel = runtime.block_on(connect(&path, deadline))?;
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

    pub(crate) fn request(
        &self,
        message: NetworkServiceRequest,
    ) -> anyhow::Result<(Result<Connection, Status>, Duration)> {
        let mut client = NetworkServiceClient::new(self.channel.channel.clone());
        let began = Instant::now();
        let call = headers(Request::new(message))?;
        let answer = self.runtime.block_on(async { client.request(call).await });
        Ok((answer.map(tonic::Response::into_inner), began.elapsed()))
    }

    pub(crate) fn close(&self, connection: Connection) -> anyhow::Result<Result<(), Status>> {
        let mut client = NetworkServiceClient::new(self.channel.channel.clone());
        let call = headers(Request::new(connection))?;
        Ok(self.runtime.block_on(async { client.close(call).await }).map(|_| ()))
    }

    /// The first event of a monitor stream.
    pub(crate) fn monitor(&self, segments: Vec<PathSegment>) -> anyhow::Result<Result<ConnectionEvent, Status>> {
        let mut client = MonitorConnectionClient::new(self.channel.channel.clone());
        let selector = MonitorScopeSelector { path_segments: segments, ..MonitorScopeSelector::default() };
        self.runtime.block_on(async {
            let mut stream = match client.monitor_connections(selector).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => return Ok(Err(status)),
            };
            match tokio::time::timeout(PATIENCE, stream.message()).await.context("no first event")? {
                Ok(event) => Ok(Ok(event.context("the stream ended")?)),
                Err(status) => Ok(Err(status)),
            }
        })
    }
}

fn headers<T>(mut call: Request<T>) -> anyhow::Result<Request<T>> {
    call.set_timeout(PATIENCE);
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 600;
    call.metadata_mut().insert("nsm-client-token", "raw".parse()?);
    call.metadata_mut().insert("nsm-client-token-expires", rfc3339(seconds).parse()?);
    Ok(call)
}

/// Seconds since 1970 as RFC 3339, by the civil calendar's 400-year cycle.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400 + u64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}
