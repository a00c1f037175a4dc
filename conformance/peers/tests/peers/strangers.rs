//! Peers that are wrong, or mean harm.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Node, eventually};
use nsm_peers::go_client;
use nsm_proto::connection::PathSegment;

use crate::lab::{endpoint, ping_both};
use crate::raw::{Caller, connection, request};

/// Far below any deadline.
const AT_ONCE: Duration = Duration::from_secs(1);

pub(crate) fn file_named_but_not_passed() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let caller = Caller::of(&node, pod.namespace())?;
    let (answer, took) = caller.request(request("id-1", &pod.namespace().inode_url()?))?;
    let status = answer.err().context("a request without its file")?;
    ensure!(took < AT_ONCE, "{took:?}: {status}");
    ensure!(status.message().contains("inode://"), "{status}");
    drop((caller, pod));
    node.nothing_left(&before)
}

pub(crate) fn file_that_is_no_namespace() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let file = node.dir().join("a-file");
    fs::write(&file, "no namespace")?;
    let caller = Caller::of(&node, pod.namespace())?;
    for path in [file.clone(), "/proc/self/ns/uts".into(), "/".into()] {
        let url = caller.pass(&path)?;
        let (answer, took) = caller.request(request("id-1", &url))?;
        let status = answer.err().with_context(|| path.display().to_string())?;
        ensure!(took < AT_ONCE, "{took:?}: {status}");
        ensure!(status.message().contains("namespace"), "{status}");
    }
    fs::remove_file(&file)?;
    drop((caller, pod));
    node.nothing_left(&before)
}

pub(crate) fn namespace_of_another() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let (one, two) = (node.pod("one")?, node.pod("two")?);
    let before = node.leftovers()?;
    let caller = Caller::of(&node, one.namespace())?;
    let url = caller.pass(two.namespace().path())?;
    let (answer, _) = caller.request(request("id-1", &url))?;
    let status = answer.err().context("a pod gave another's namespace")?;
    ensure!(status.code() == tonic::Code::PermissionDenied, "{status}");
    drop(caller);
    node.nothing_left(&before)?;
    // Root on the host acts for pods, as runtimes do.
    let host = Caller::of(&node, node.namespace())?;
    let url = host.pass(two.namespace().path())?;
    let connected = host.request(request("id-1", &url))?.0?;
    host.close(connected)??;
    Ok(())
}

pub(crate) fn tls_hello() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut socket = UnixStream::connect(node.nsm_socket())?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(&[0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0x00, 0x00, 0x01, 0x03])?;
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Ok(_) => {}
        // What the agent had not read makes the end a reset.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => return Err(error).context("the socket was to be closed"),
    }
    // An HTTP/2 server may speak first; TLS it must not.
    ensure!(rest.first() != Some(&0x16), "the agent answered {rest:?}");
    eventually("a log line", Duration::from_secs(2), || Ok(node.agent_log()), |log| log.contains("TLS"))?;
    Ok(())
}

pub(crate) fn connection_of_another() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let (pod, other) = (node.pod("client")?, node.pod("other")?);
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &[])?;
    let connected = client.event("connected")?;
    let segments = connected["connection"]["path"]["path_segments"].as_array().context("segments")?.clone();
    let ids: Vec<String> = segments.iter().filter_map(|segment| segment["id"].as_str().map(str::to_owned)).collect();
    ensure!(ids.len() >= 3, "{ids:?}");

    let stranger = Caller::of(&node, other.namespace())?;
    for id in &ids {
        // Refused or harmless, as long as the connection stays.
        stranger.close(connection(id))?.ok();
        let mut whole = connection(&ids[0]);
        whole.path = Some(nsm_proto::connection::Path {
            index: 0,
            path_segments: segments
                .iter()
                .map(|segment| PathSegment {
                    name: segment["name"].as_str().unwrap_or_default().into(),
                    id: segment["id"].as_str().unwrap_or_default().into(),
                    ..PathSegment::default()
                })
                .collect(),
        });
        stranger.close(whole)?.ok();
        let segment = PathSegment { id: id.clone(), ..PathSegment::default() };
        if let Ok(event) = stranger.monitor(vec![segment])? {
            ensure!(event.connections.is_empty(), "a stranger watches: {event:?}");
        }
    }
    if let Ok(event) = stranger.monitor(Vec::new())? {
        ensure!(event.connections.is_empty(), "a stranger watches all: {event:?}");
    }
    ping_both(&pod, &server.pod, &connected)?;

    // A Request with the other's id makes a connection of the stranger's own.
    let meta = fs::metadata(other.namespace().path())?;
    let url = stranger.pass(other.namespace().path())?;
    ensure!(url == format!("inode://{}/{}", meta.dev(), meta.ino()));
    if let Ok(own) = stranger.request(request(&ids[0], &url))?.0 {
        let theirs = own.context.and_then(|context| context.ip_context).unwrap_or_default().src_ip_addrs;
        ensure!(theirs[0] != connected["connection"]["context"]["ip_context"]["src_ip_addrs"][0], "{theirs:?}");
    }
    ping_both(&pod, &server.pod, &connected)?;
    client.stop()?;
    Ok(())
}
