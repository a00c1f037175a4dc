//! How long things take, printed: `cargo test -p nsm-netlink --test kernel speed -- --nocapture`. Asserted is only that nothing waits
//! where it should not.

use std::time::{Duration, Instant};

use nsm_netlink::{Neighbour, NetnsSocket};

use crate::{Node, identity, ip, point_to_point};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn medians() {
    let node = Node::new();
    let (mut create, mut configure, mut delete) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..40 {
        let pair = node.pair(["nsm-1", "client-0"]);
        let start = Instant::now();
        let [one, two] = node.agent.create_veth(&pair).unwrap();
        create.push(start.elapsed());

        let mut config = point_to_point("172.16.0.1/32", "172.16.0.0/32");
        config.neighbours.push(Neighbour { ip: ip("172.16.0.0"), mac: two.mac });
        let start = Instant::now();
        NetnsSocket::open(&node.pods[0]).unwrap().configure(one.index, &config).unwrap();
        configure.push(start.elapsed());

        let start = Instant::now();
        node.agent.delete_link(&identity(&one)).unwrap();
        delete.push(start.elapsed());
    }
    let (create, configure, delete) = (median(create), median(configure), median(delete));
    println!("medians of 40: create {create:?}, configure one end {configure:?}, delete {delete:?}");
    assert!(create < Duration::from_millis(100), "{create:?}");
    assert!(configure < Duration::from_millis(100), "{configure:?}");
    assert!(delete < Duration::from_millis(200), "{delete:?}");
}
