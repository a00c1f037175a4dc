//! Peers of the agent's sockets that are wrong, or mean harm: pods, mostly.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node, eventually};
use nsm_proto::connection::PathSegment;
use nsm_proto::networkservice::NetworkServiceRequest;
use prost::Message;

use crate::caller::{Caller, request};
use crate::{IFNAME, SERVICE};

/// For what the agent does behind an ended connection.
pub(crate) const SETTLED: Duration = Duration::from_secs(10);
/// What nonsense may add to the agent's memory, in kB.
const GROWTH: u64 = 32 * 1024;

/// Numbers that are the same in each run (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or_default() % bound
    }
}

/// The agent lives, serves, and has not panicked.
fn unharmed(node: &mut Node) -> anyhow::Result<()> {
    node.agent()?.still_runs()?;
    ensure!(!node.agent_log().contains("panicked"), "the agent panicked");
    let pod = node.pod("afterwards")?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    pod.ping(added.peer(false)?)?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    Ok(())
}

fn memory(node: &mut Node) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.agent()?.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Ids of the connections that an endpoint has granted and not closed, by its log.
pub(crate) fn kept(log: &str) -> Vec<String> {
    let ids = |what: &str| -> BTreeSet<String> {
        let done = log.lines().filter(|line| line.contains("done duration_ms"));
        let id = |line: &str| Some(line.split_once(what)?.1.split([' ', '}']).next()?.to_owned());
        done.filter_map(id).collect()
    };
    ids("request{connection=").difference(&ids("close{connection=")).cloned().collect()
}

pub(crate) fn nonsense_on_the_socket() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    unharmed(&mut node)?;
    let before = (node.leftovers()?, memory(&mut node)?);
    let pod = node.pod("hostile")?;
    let mut random = Random(7);
    let path = node.nsm_socket();
    for number in 0..200 {
        let bytes: Vec<u8> = (0..=random.below(4096)).map(|_| random.byte()).collect();
        // Half of them as what follows a good beginning.
        let preface: &[u8] =
            if number % 2 == 0 { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" } else { b"" };
        let mut socket = pod.namespace().run(|| UnixStream::connect(&path))??;
        let _ = socket.write_all(preface).and_then(|()| socket.write_all(&bytes));
    }
    let methods = [
        "/networkservice.NetworkService/Request",
        "/networkservice.NetworkService/Close",
        "/connection.MonitorConnection/MonitorConnections",
        "/registry.NetworkServiceRegistry/Register",
        "/registry.NetworkServiceRegistry/Find",
        "/registry.NetworkServiceEndpointRegistry/Register",
        "/registry.NetworkServiceEndpointRegistry/Find",
        "/registry.NetworkServiceEndpointRegistry/Unregister",
    ];
    let caller = Caller::of(&node, pod.namespace())?;
    let good = request("id-1", "inode://4/5").encode_to_vec();
    for number in 0..1000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(8) {
            let place = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[place] = random.byte(),
                1 => bytes.truncate(place.max(1)),
                _ => bytes.insert(place, random.byte()),
            }
        }
        let _ = caller.bytes(methods[number % methods.len()], bytes)?;
    }
    drop((caller, pod));
    unharmed(&mut node)?;
    // What it registered by chance is its own, and goes when it expires.
    let now = memory(&mut node)?;
    ensure!(now < before.1 + GROWTH, "the agent's memory grew from {} to {now} kB", before.1);
    eventually(
        "the end of all connections",
        SETTLED,
        || Ok(before.0.difference(&node.leftovers()?)),
        |more| more.iter().all(|line| !line.contains("file") && !line.contains("link")),
    )
    .map(|_| ())
}

pub(crate) fn requests_whose_callers_hang_up() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let mut endpoint = Endpoint::of(SERVICE).start(&node)?;
    unharmed(&mut node)?;
    let pod = node.pod("hostile")?;
    let before = node.leftovers()?;
    let mut random = Random(7);
    // Whether a Request was served or cut off: its client closes it, or comes again with the same id, or is never heard of.
    let mut served = 0;
    for number in 0..1000 {
        let caller = Caller::of(&node, pod.namespace())?;
        let which = number % 4;
        let mut message = request(&format!("id-{which}"), &caller.pass(pod.namespace().path())?);
        message.mechanism_preferences[0].parameters.insert("name".into(), format!("nsm-{which}"));
        served += usize::from(caller.request_and_hang_up(message, Duration::from_micros(random.next() % 8000))?);
    }
    ensure!((1..1000).contains(&served), "{served} of 1000 were served: all or none is no test");
    for number in 0..4 {
        let caller = Caller::of(&node, pod.namespace())?;
        let message = request(&format!("id-{number}"), "");
        caller.close(message.connection.unwrap_or_default())??;
    }
    node.nothing_left(&before)?;
    eventually("the endpoint's last Close", SETTLED, || Ok(kept(&endpoint.program().log())), Vec::is_empty)?;
    unharmed(&mut node)
}

pub(crate) fn reselect_storm() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _one = Endpoint::of(SERVICE).name("one").start(&node)?;
    let _two = Endpoint::of(SERVICE).name("two").cidr("172.16.2.0/24").start(&node)?;
    unharmed(&mut node)?;
    unharmed(&mut node)?;
    let pod = node.pod("hostile")?;
    let before = node.leftovers()?;
    let caller = Caller::of(&node, pod.namespace())?;
    let mut connected = caller.request(request("id-1", &caller.pass(pod.namespace().path())?))??;
    for _ in 0..100 {
        let mut again = request("id-1", &caller.pass(pod.namespace().path())?);
        connected.set_state(nsm_proto::connection::State::ReselectRequested);
        if let Some(path) = &mut connected.path {
            path.index = 0;
        }
        connected.id = "id-1".into();
        again.connection = Some(connected);
        connected = caller.request(again)??;
    }
    ensure!(node.connections()?.len() == 1, "{:?}", node.connections()?);
    caller.close(request("id-1", "").connection.unwrap_or_default())??;
    drop(caller);
    node.nothing_left(&before)?;
    unharmed(&mut node)
}

pub(crate) fn another_interface_name_each_time() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    unharmed(&mut node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let caller = Caller::of(&node, pod.namespace())?;
    for number in 0..50 {
        let mut message = request("id-1", &caller.pass(pod.namespace().path())?);
        message.mechanism_preferences[0].parameters.insert("name".into(), format!("nsm-{number}"));
        caller.request(message)?.with_context(|| format!("nsm-{number}"))?;
    }
    // What the agent itself takes away is not lost.
    ensure!(!node.agent_log().contains("gone without Close"), "{}", node.agent_log());
    ensure!(node.connections()?.len() == 1, "{:?}", node.connections()?);
    caller.close(request("id-1", "").connection.unwrap_or_default())??;
    drop(caller);
    node.nothing_left(&before)
}

pub(crate) fn crowd_of_one_pod() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    unharmed(&mut node)?;
    let pod = node.pod("hostile")?;
    let before = node.leftovers()?;
    let path = node.nsm_socket();
    let held =
        pod.namespace().run(|| (0..400).map(|_| UnixStream::connect(&path)).collect::<Result<Vec<_>, _>>())??;
    let warnings = |log: String| log.matches("too many connections open").count();
    eventually("a log line", SETTLED, || Ok(warnings(node.agent_log())), |lines| *lines > 0)?;
    // Another pod's Request goes through while the crowd stands.
    let other = node.pod("other")?;
    let caller = Caller::of(&node, other.namespace())?;
    let url = caller.pass(other.namespace().path())?;
    caller.request(request("id-1", &url))??;
    caller.close(request("id-1", "").connection.unwrap_or_default())??;
    drop((caller, other));
    ensure!(warnings(node.agent_log()) == 1, "one line tells all:\n{}", node.agent_log());
    drop(held);
    node.nothing_left(&before)?;
    unharmed(&mut node)
}

pub(crate) fn more_connections_than_a_pod_may_hold() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).cidr("10.16.0.0/16").start(&node)?;
    unharmed(&mut node)?;
    let pod = node.pod("hostile")?;
    let before = node.leftovers()?;
    let caller = Caller::of(&node, pod.namespace())?;
    let numbered = |number: usize| -> anyhow::Result<NetworkServiceRequest> {
        let mut message = request(&format!("id-{number}"), &caller.pass(pod.namespace().path())?);
        message.mechanism_preferences[0].parameters.insert("name".into(), format!("nsm-{number}"));
        Ok(message)
    };
    for number in 0..1024 {
        caller.request(numbered(number)?)?.with_context(|| format!("connection {number}"))?;
    }
    let status = caller.request(numbered(1024)?)?.err().context("one more was served")?;
    ensure!(status.code() == tonic::Code::ResourceExhausted && status.message().contains("1024"), "{status}");
    // It keeps what it has, and others are served.
    caller.request(numbered(7)?)??;
    unharmed(&mut node)?;
    for number in 0..1024 {
        caller.close(request(&format!("id-{number}"), "").connection.unwrap_or_default())??;
    }
    drop(caller);
    node.nothing_left(&before)
}

pub(crate) fn more_calls_than_a_pod_may_have_open() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _hanging = Endpoint::of("hanging").program("nsm-hostile").set("NSM_MISBEHAVIOUR", "hang").start(&node)?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("hostile")?;
    let caller = Caller::of(&node, pod.namespace())?;
    let message = |number| {
        let mut message = request(&format!("id-{number}"), "");
        message.connection.get_or_insert_default().network_service = "hanging".into();
        message
    };
    let messages = (0..100).map(message).collect();
    let refused = caller.refusals(messages, 36)?;
    ensure!(refused.iter().all(|status| status.code() == tonic::Code::ResourceExhausted), "{refused:?}");
    ensure!(refused[0].message().contains("64 calls"), "{}", refused[0]);
    // Others are served meanwhile, and so is the runtime.
    unharmed(&mut node)?;
    let other = node.pod("other")?;
    let second = Caller::of(&node, other.namespace())?;
    second.request(request("id-1", &second.pass(other.namespace().path())?))??;
    Ok(())
}

pub(crate) fn watches_are_no_calls() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let caller = Caller::of(&node, pod.namespace())?;
    let _held = caller.watch(80)?;
    caller.request(request("id-1", &caller.pass(pod.namespace().path())?))??;
    Ok(())
}

pub(crate) fn names_that_forge_log_lines() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("hostile")?;
    let caller = Caller::of(&node, pod.namespace())?;
    let forged = "x\nFORGED \u{1b}[31m line";
    let mut messages = Vec::new();
    for field in 0..6 {
        let mut message = request("id-1", "");
        let connection = message.connection.get_or_insert_default();
        match field {
            0 => connection.id = forged.into(),
            1 => connection.network_service = forged.into(),
            2 => connection.network_service_endpoint_name = forged.into(),
            3 => drop(connection.labels.insert(forged.into(), forged.into())),
            4 => connection.path.get_or_insert_default().path_segments[0].name = forged.into(),
            _ => drop(message.mechanism_preferences[0].parameters.insert("name".into(), forged.into())),
        }
        messages.push(message);
    }
    for message in messages {
        let status = caller.request(message.clone())?.err().with_context(|| format!("served: {message:?}"))?;
        ensure!(status.code() == tonic::Code::InvalidArgument && !status.message().contains('\n'), "{status}");
    }
    ensure!(!node.agent_log().lines().any(|line| line.starts_with("FORGED")), "{}", node.agent_log());
    unharmed(&mut node)
}

pub(crate) fn as_much_as_is_allowed_and_one_more() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    unharmed(&mut node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let caller = Caller::of(&node, pod.namespace())?;
    let refused = |caller: &Caller, message, word: &str| -> anyhow::Result<()> {
        let status = caller.request(message)?.err().with_context(|| format!("{word}: served"))?;
        ensure!(status.message().contains(word), "{word}: {status}");
        Ok(())
    };
    // Ids as long as names may be, and labels as many.
    let mut message = request(&"i".repeat(253), &caller.pass(pod.namespace().path())?);
    let connection = message.connection.get_or_insert_default();
    connection.labels = (0..256).map(|number| (format!("label-{number}"), "v".repeat(253))).collect();
    let connected = caller.request(message)??;
    caller.close(request(&"i".repeat(253), "").connection.unwrap_or_default())??;
    drop(connected);

    refused(&caller, request(&"i".repeat(254), ""), "at most 253")?;
    let mut many = request("id-1", "");
    many.connection.get_or_insert_default().labels =
        (0..257).map(|number| (number.to_string(), String::new())).collect();
    refused(&caller, many, "at most 256")?;
    for hops in [64, 65] {
        let mut long = request("id-1", "");
        let path = long.connection.get_or_insert_default().path.get_or_insert_default();
        path.path_segments = (0..hops)
            .map(|hop| PathSegment { id: format!("hop-{hop}"), name: "n".into(), ..PathSegment::default() })
            .collect();
        path.index = hops - 1;
        long.connection.get_or_insert_default().id = format!("hop-{}", hops - 1);
        // Of 64 hops ours is one too many, whoever says so.
        ensure!(caller.request(long)?.is_err(), "{hops} hops were served");
    }
    drop(caller);
    node.nothing_left(&before)?;
    unharmed(&mut node)
}

pub(crate) fn endpoint_named_for_another_service() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let _other = Endpoint::of("other").cidr("172.16.2.0/24").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let caller = Caller::of(&node, pod.namespace())?;
    for (service, endpoint, code) in [
        (SERVICE, "other-1", tonic::Code::InvalidArgument),
        (SERVICE, "nobody", tonic::Code::NotFound),
        (SERVICE, "icmp-1@example.org", tonic::Code::InvalidArgument),
        ("icmp@example.org", "", tonic::Code::InvalidArgument),
    ] {
        let mut message = request("id-1", &caller.pass(pod.namespace().path())?);
        let connection = message.connection.get_or_insert_default();
        connection.network_service = service.into();
        connection.network_service_endpoint_name = endpoint.into();
        let status = caller.request(message)?.err().with_context(|| format!("{service} at {endpoint:?}: served"))?;
        let named = if endpoint.is_empty() { service } else { endpoint };
        ensure!(status.code() == code && status.message().contains(named), "{service} at {endpoint:?}: {status}");
    }
    drop(caller);
    node.nothing_left(&before)?;
    unharmed(&mut node)
}

pub(crate) fn private_socket_is_roots() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mode = fs::metadata(node.cni_socket())?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{mode:o}");
    // HTTP/1 is nobody's.
    let mut socket = UnixStream::connect(node.cni_socket())?;
    socket.set_read_timeout(Some(SETTLED))?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    ensure!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    Ok(())
}
