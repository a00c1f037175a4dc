//! Against a VPP. Suite `vpp`, which is skipped where none is installed: each test starts its own, in a folder and a network namespace of its own.

mod agreement;
mod deadly;
mod interfaces;
mod l2;
mod links;
mod loss;
mod program;
mod routes;
mod rules;
mod stats;
mod tunnels;

use std::time::Duration;

use nsm_vpp::Vpp;
use vpp_api_client::messages::{CreateLoopbackInstance, IfStatusFlags, SwInterfaceAddDelAddress, SwInterfaceSetFlags};
use vpp_api_client::{Client, Error, InterfaceIndex, MacAddress, Options, Prefix, Retval};

const SOON: Duration = Duration::from_secs(20);

async fn start() -> (Vpp, Client) {
    let vpp = Vpp::start().unwrap();
    let client = connect(&vpp).await;
    (vpp, client)
}

async fn connect(vpp: &Vpp) -> Client {
    Client::connect(vpp.api_socket(), Options::new("test").timeout(SOON)).await.unwrap()
}

/// What VPP refused it with.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> Retval {
    match answer {
        Err(Error::Refused { retval, .. }) => retval,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

async fn loopback(client: &Client) -> InterfaceIndex {
    let any = CreateLoopbackInstance { mac_address: MacAddress::default(), is_specified: false, user_instance: 0 };
    client.call(&any).await.unwrap().sw_if_index
}

async fn up(client: &Client, sw_if_index: InterfaceIndex) {
    client.call(&SwInterfaceSetFlags { sw_if_index, flags: IfStatusFlags::ADMIN_UP }).await.unwrap();
}

async fn address(client: &Client, sw_if_index: InterfaceIndex, prefix: &str) {
    let prefix = self::prefix(prefix);
    let address = SwInterfaceAddDelAddress { sw_if_index, is_add: true, del_all: false, prefix };
    client.call(&address).await.unwrap();
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix::new(address.parse::<std::net::IpAddr>().unwrap(), length.parse().unwrap()).unwrap()
}
