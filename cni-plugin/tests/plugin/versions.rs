//! Agents of other versions: the plugin is upgraded before them, or after.

use std::path::Path;

use nsm_fdpass::{Connection, InodeId, Permissions, bind};
use nsm_proto_versions::{
    later,
    v0_1::cni::{self, cni_server::CniServer},
};
use serde_json::json;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

use super::{NETNS, Place, call};

/// Serves until the value goes.
fn serve<S>(socket: &Path, service: S) -> tokio::runtime::Runtime
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = std::convert::Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let permissions = Permissions { mode: 0o600, uid: None, gid: None };
    let listening = runtime.block_on(async { bind(socket, permissions) }).unwrap();
    runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(listening.incoming()));
    runtime
}

/// Claims the file that the URL names, as an agent does.
fn claim<T>(request: &Request<T>, url: &str) {
    let id: InodeId = url.parse().unwrap();
    assert!(request.extensions().get::<Connection>().unwrap().inbox.take(id).is_some());
}

/// One that says no more than it must.
struct Terse;

#[tonic::async_trait]
impl cni::cni_server::Cni for Terse {
    async fn add(&self, request: Request<cni::AddRequest>) -> Result<Response<cni::AddResponse>, Status> {
        claim(&request, &request.get_ref().netns_url);
        let sandbox = request.into_inner().netns_path;
        let interface = cni::Interface { name: "net1".into(), sandbox, ..cni::Interface::default() };
        Ok(Response::new(cni::AddResponse { interfaces: vec![interface], ..cni::AddResponse::default() }))
    }

    async fn check(&self, _: Request<cni::CheckRequest>) -> Result<Response<cni::CheckResponse>, Status> {
        Ok(Response::new(cni::CheckResponse::default()))
    }

    async fn del(&self, _: Request<cni::DelRequest>) -> Result<Response<cni::DelResponse>, Status> {
        Ok(Response::new(cni::DelResponse::default()))
    }

    async fn status(&self, _: Request<cni::StatusRequest>) -> Result<Response<cni::StatusResponse>, Status> {
        Ok(Response::new(cni::StatusResponse::default()))
    }
}

#[test]
fn an_agent_that_says_no_more_than_it_must() {
    let place = Place::new();
    let _agent = serve(&place.socket(), CniServer::new(Terse));
    let added = call("ADD", &place.conf("1.1.0", json!({})));
    assert_eq!(added.exit, 0, "{}", added.stdout);
    assert_eq!(added.json, json!({"cniVersion": "1.1.0", "interfaces": [{"name": "net1", "sandbox": NETNS}]}));
    for command in ["CHECK", "STATUS", "DEL"] {
        let done = call(command, &place.conf("1.1.0", json!({"prevResult": added.json})));
        assert_eq!((done.exit, done.stdout.as_str()), (0, ""), "{command}");
    }
    // What it has not learnt yet.
    assert_eq!(call("GC", &place.conf("1.1.0", json!({}))).json["code"], 107);
}

/// One that says more than this plugin knows.
struct Talkative;

const MORE: &str = "more than this plugin knows";

#[tonic::async_trait]
impl later::cni::cni_server::Cni for Talkative {
    async fn add(&self, request: Request<later::cni::AddRequest>) -> Result<Response<later::cni::AddResponse>, Status> {
        claim(&request, &request.get_ref().netns_url);
        let interface = later::cni::Interface {
            name: "net1".into(),
            mac: "02:00:00:00:00:01".into(),
            sandbox: request.into_inner().netns_path,
            mtu: 1400,
            added_later: MORE.into(),
        };
        let address = "10.0.0.1/32".into();
        Ok(Response::new(later::cni::AddResponse {
            interfaces: vec![interface],
            ips: vec![later::cni::Ip { address, added_later: MORE.into(), ..later::cni::Ip::default() }],
            added_later: MORE.into(),
            ..later::cni::AddResponse::default()
        }))
    }

    async fn check(
        &self,
        request: Request<later::cni::CheckRequest>,
    ) -> Result<Response<later::cni::CheckResponse>, Status> {
        let expected = request.into_inner().expected.unwrap_or_default();
        assert_eq!((expected.interfaces.len(), expected.ips.len()), (1, 1));
        Ok(Response::new(later::cni::CheckResponse { added_later: MORE.into(), ..Default::default() }))
    }

    async fn del(&self, _: Request<later::cni::DelRequest>) -> Result<Response<later::cni::DelResponse>, Status> {
        Ok(Response::new(later::cni::DelResponse { found: true, added_later: MORE.into() }))
    }
}

#[test]
fn an_agent_that_says_more_than_is_known() {
    let place = Place::new();
    let _agent = serve(&place.socket(), later::cni::cni_server::CniServer::new(Talkative));
    let added = call("ADD", &place.conf("1.0.0", json!({})));
    assert_eq!(added.exit, 0, "{}", added.stdout);
    assert_eq!(added.json["ips"], json!([{"address": "10.0.0.1/32", "interface": 0}]));
    assert!(!added.stdout.contains(MORE), "{}", added.stdout);
    for command in ["CHECK", "DEL"] {
        let done = call(command, &place.conf("1.0.0", json!({"prevResult": added.json})));
        assert_eq!((done.exit, done.stdout.as_str()), (0, ""), "{command}");
    }
}
