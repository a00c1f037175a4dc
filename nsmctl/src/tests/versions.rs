//! An agent of another version: what it says beyond our words is passed over, and `check` tells of the difference.

use clap::Parser;
use nsm_fdpass::{Permissions, bind};
use nsm_proto_versions::later::{
    admin::{
        ConnectionInfo, ConnectionList, Finding, InfoRequest, InfoResponse, ListRequest, SelfTestRequest,
        SelfTestResponse,
        admin_server::{Admin, AdminServer},
    },
    connection::Connection,
};
use serde_json::Value;
use tempfile::TempDir;
use tonic::{Request, Response, Status, transport::Server};

use crate::{cli::Cli, error::Error, run};

const MORE: &str = "more than nsmctl knows";

/// An agent of this version, of a later API.
struct Later(&'static str);

#[tonic::async_trait]
impl Admin for Later {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { version: self.0.into(), added_later: MORE.into(), ..InfoResponse::default() }))
    }

    async fn self_test(&self, _: Request<SelfTestRequest>) -> Result<Response<SelfTestResponse>, Status> {
        // A level that this nsmctl has no word for.
        let finding = Finding { level: 7, subject: "new".into(), added_later: MORE.into(), ..Finding::default() };
        Ok(Response::new(SelfTestResponse { findings: vec![finding], added_later: MORE.into() }))
    }

    async fn list_connections(&self, _: Request<ListRequest>) -> Result<Response<ConnectionList>, Status> {
        let connection = Connection { id: "c-1".into(), ..Connection::default() };
        let info = ConnectionInfo {
            connection: Some(connection),
            phase: "a phase of its own".into(),
            added_later: MORE.into(),
            ..ConnectionInfo::default()
        };
        Ok(Response::new(ConnectionList { items: vec![info], added_later: MORE.into() }))
    }
}

async fn call(version: &'static str, line: &[&str]) -> (String, Option<Error>) {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("cni.sock");
    let listening = bind(&socket, Permissions { mode: 0o600, uid: None, gid: None }).unwrap();
    let service = Server::builder().add_service(AdminServer::new(Later(version)));
    let server = tokio::spawn(service.serve_with_incoming(listening.incoming()));
    let all = ["nsmctl", "--cni-socket", socket.to_str().unwrap()].into_iter().chain(line.iter().copied());
    let mut out = Vec::new();
    let error = run(Cli::try_parse_from(all).unwrap(), &mut out).await.err();
    server.abort();
    (String::from_utf8(out).unwrap(), error)
}

#[tokio::test]
async fn check_tells_how_far_apart_they_are() {
    let own = env!("CARGO_PKG_VERSION");
    let minor: u64 = own.split('.').nth(1).unwrap().parse().unwrap();
    let next: &'static str = format!("0.{}.0", minor + 1).leak();
    let after: &'static str = format!("0.{}.0", minor + 2).leak();
    for (version, level) in [(own, "ok"), (next, "warning"), (after, "error"), ("1.0.0", "error"), ("", "error")] {
        let (out, _) = call(version, &["check", "-o", "json"]).await;
        let out: Value = serde_json::from_str(&out).unwrap();
        let all = out["findings"].as_array().unwrap();
        let found = all.iter().find(|finding| finding["subject"] == "versions").unwrap();
        assert_eq!(found["level"], level, "{version}: {found}");
        assert_eq!(found["detail"], format!("agent {version}, nsmctl {own}"));
        let fix = found["fix"].as_str().unwrap();
        assert_eq!(fix.contains("of one release"), level != "ok", "{fix}");
        assert!(all.iter().any(|finding| finding["subject"] == "new"), "{out}");
    }
}

#[tokio::test]
async fn what_is_known_of_a_later_answer_is_shown() {
    for format in ["table", "wide", "json", "yaml", "name"] {
        let (out, error) = call("0.2.0", &["get", "connections", "-o", format]).await;
        assert!(error.is_none() && out.contains("c-1") && !out.contains(MORE), "{format}: {error:?} {out}");
    }
}

#[tokio::test]
async fn a_call_that_the_agent_does_not_know_is_said_to_be_one() {
    let (_, error) = call("0.2.0", &["describe", "networkservice", "x"]).await;
    let error = error.unwrap();
    assert!(error.exit_code() == 1 && error.to_string().contains("does not know this call"), "{error}");
}
