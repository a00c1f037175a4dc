//! Claims and slices of an API server that is not there.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kube::client::Body;
use serde_json::{Value, json};
use tonic::codegen::http::{Request, Response};

use super::*;

/// Answers by path and, of slices, by field selector; what is asked.
fn server(objects: Vec<(&'static str, Value)>) -> (Claims, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    let answer = move |request: Request<Body>| {
        let uri = request.uri().to_string().replace("%3D", "=").replace("%2C", ",");
        log.lock().unwrap().push(uri.clone());
        let found = objects.iter().find(|(what, _)| uri.contains(what)).map(|(_, object)| object.clone());
        let status = if found.is_some() { 200 } else { 404 };
        let missing = || json!({"kind": "Status", "status": "Failure", "message": "there is none", "reason": "NotFound", "code": 404});
        let body = found.unwrap_or_else(missing).to_string().into_bytes();
        let response = Response::builder().status(status).body(Body::from(body)).unwrap();
        async move { Ok::<_, tower::BoxError>(response) }
    };
    (Claims::new(Client::new(tower::service_fn(answer), "n"), "node-a".into()), asked)
}

fn named(device: &str) -> Named {
    Named { driver: "x.com".into(), pool: "p".into(), device: device.into() }
}

fn claim(devices: &[&str]) -> Claim {
    Claim { namespace: "n".into(), name: "c".into(), devices: devices.iter().map(|device| named(device)).collect() }
}

fn object(results: &Value) -> Value {
    json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"devices": {"requests": []}},
        "status": {"allocation": {"devices": {"results": results}}}})
}

fn result(request: &str, device: &str) -> Value {
    json!({"request": request, "driver": "x.com", "pool": "p", "device": device})
}

fn slices(generation: i64, devices: &Value, token: &str) -> Value {
    json!({"metadata": {"continue": token}, "items": [{"metadata": {"name": "s"},
        "spec": {"driver": "x.com", "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1},
            "devices": devices}}]})
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[tokio::test]
async fn devices_are_what_their_slices_say() {
    let text = |text: &str| json!({"string": text});
    let first = json!([
        {"name": "a", "attributes": {DEVICE_ID: text("0000:01"), RESOURCE_NAME: text("x.com/nic"), "x.com/mtu": {"int": 9000}}},
        {"name": "b", "attributes": {PCI_BUS_ID: text("0000:02"), RESOURCE_NAME: {"int": 1}}},
        {"name": "old", "attributes": {DEVICE_ID: text("newer")}}]);
    let second = json!([{"name": "old", "attributes": {DEVICE_ID: text("older")}}, {"name": "others"}]);
    let (claims, asked) = server(vec![
        (
            "/namespaces/n/resourceclaims/c",
            object(&json!([result("vf", "a"), result("vf", "b"), result("any", "far"),
            result("one/of", "old"), {"request": "all", "driver": "x.com", "pool": "p", "device": "seen", "adminAccess": true}])),
        ),
        ("continue=more", slices(1, &second, "")),
        ("spec.nodeName=node-a", slices(2, &first, "more")),
        ("spec.nodeName=&", slices(1, &json!([{"name": "far", "attributes": {DEVICE_ID: text("far")}}]), "")),
    ]);
    let all = claims.devices(&[claim(&["a", "b", "far", "old", "seen"])], soon()).await.unwrap();
    let said = |id: &str, resource: Option<&str>| {
        What::Said(Said { id: Some(id.into()), resource: resource.map(str::to_owned) })
    };
    let found: Vec<_> = all.iter().map(|one| (&*one.request, &*one.named.device, one.what.clone())).collect();
    assert_eq!(
        found,
        [
            ("vf", "a", said("0000:01", Some("x.com/nic"))),
            ("vf", "b", said("0000:02", None)),
            ("any", "far", said("far", None)),
            ("one/of", "old", said("newer", None)),
            ("all", "seen", What::Others),
        ]
    );
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked[1..].iter().all(|uri| uri.contains("spec.driver=x.com") && uri.contains("limit=5")), "{asked:?}");
}

#[tokio::test]
async fn what_the_kubelet_did_not_prepare_is_no_device_of_the_pod() {
    let of = async |prepared: &[&str]| {
        let (claims, _) = server(vec![
            ("resourceclaims/c", object(&json!([result("vf", "a"), result("vf", "b")]))),
            ("resourceslices", slices(1, &json!([]), "")),
        ]);
        let all = claims.devices(&[claim(prepared)], soon()).await.unwrap();
        assert!(all.iter().all(|one| one.what == What::Unknown), "{all:?}");
        all.into_iter().map(|one| one.named.device).collect::<Vec<_>>()
    };
    assert_eq!(of(&["b"]).await, ["b"]);
    assert_eq!(of(&[]).await, ["a", "b"], "a driver that tells none");
}

#[tokio::test]
async fn what_cannot_be_read_is_said() {
    let (claims, _) = server(Vec::new());
    let why = claims.devices(&[claim(&["a"])], soon()).await.unwrap_err();
    assert!(why.contains("ResourceClaim \"n/c\" cannot be read: there is none") && why.contains("1.34"), "{why}");
    let (claims, _) = server(vec![("resourceclaims/c", object(&json!([result("vf", "a")])))]);
    let why = claims.devices(&[claim(&["a"])], soon()).await.unwrap_err();
    assert!(why.contains("ResourceSlices of driver x.com cannot be read"), "{why}");
    let why = claims.devices(&vec![claim(&[]); MOST + 1], soon()).await.unwrap_err();
    assert!(why.contains("33 ResourceClaims: expected at most 32"), "{why}");
    let unallocated = json!({"metadata": {"name": "c"}, "spec": {}});
    let (claims, _) = server(vec![("resourceclaims/c", unallocated)]);
    assert_eq!(claims.devices(&[claim(&[])], soon()).await, Ok(Vec::new()));
}
