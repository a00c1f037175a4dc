//! The client against a VPP that does what a test says: answers, faults, silence, death.

mod calls;
mod faults;
mod parting;
mod sessions;

use std::time::Duration;

use tempfile::TempDir;
use vpp_api_client::fake::{Asked, Deed, Fake, Nature};
use vpp_api_client::message::Message;
use vpp_api_client::messages::{
    SwInterfaceDetails, SwInterfaceDump, SwInterfaceSetFlags, SwInterfaceSetFlagsReply, WantInterfaceEvents,
    WantInterfaceEventsReply,
};
use vpp_api_client::{Client, InterfaceIndex, Options, Retval};

/// A socket's place, gone with the test.
fn place() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    (dir, path)
}

fn options() -> Options {
    Options::new("test").timeout(Duration::from_secs(10))
}

/// A fake and a client of it.
async fn pair(nature: Nature, behaviour: impl FnMut(&Asked) -> Vec<Deed> + Send + 'static) -> (TempDir, Fake, Client) {
    let (dir, path) = place();
    let fake = Fake::start(&path, nature, behaviour).unwrap();
    let client = Client::connect(&path, options()).await.unwrap();
    (dir, fake, client)
}

fn interface(index: u32) -> SwInterfaceDetails {
    SwInterfaceDetails {
        sw_if_index: InterfaceIndex(index),
        interface_name: format!("memif0/{index}"),
        ..SwInterfaceDetails::default()
    }
}

/// What most tests need: some interfaces, flags that can be set, events that can be wanted.
fn usual(asked: &Asked) -> Vec<Deed> {
    match asked.name.as_str() {
        SwInterfaceDump::NAME => (0..1000).map(|index| Deed::answer(asked, &interface(index))).collect(),
        SwInterfaceSetFlags::NAME => {
            let request: SwInterfaceSetFlags = asked.fields().unwrap();
            let known = request.sw_if_index.0 < 1000;
            let retval = if known { Retval::Ok } else { Retval::InvalidSwIfIndex };
            vec![Deed::answer(asked, &SwInterfaceSetFlagsReply { retval })]
        }
        WantInterfaceEvents::NAME => vec![Deed::answer(asked, &WantInterfaceEventsReply { retval: Retval::Ok })],
        _ => Vec::new(),
    }
}
