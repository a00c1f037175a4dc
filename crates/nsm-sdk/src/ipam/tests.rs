use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use proptest::prelude::*;

use super::*;
use crate::{Call, Chain, chain};

fn pool(groups: &str) -> Pool {
    Pool::new(groups.parse().unwrap())
}

fn request(id: &str, context: IpContext) -> Request {
    let mut connection = Connection { id: id.into(), ..Connection::default() };
    connection.context.get_or_insert_default().ip_context = Some(context);
    Request { connection, preferences: Vec::new(), call: Call::default() }
}

fn context(connection: Connection) -> IpContext {
    connection.context.unwrap().ip_context.unwrap()
}

fn lists(context: &IpContext) -> (Vec<&str>, Vec<&str>) {
    let texts = |list: &'_ [String]| list.iter().map(|text| Box::leak(text.clone().into_boxed_str()) as &str).collect();
    (texts(&context.src_ip_addrs), texts(&context.dst_ip_addrs))
}

async fn ask(chain: &Chain, id: &str, named: IpContext) -> Result<IpContext, Error> {
    chain.request(request(id, named)).await.map(context)
}

async fn close(chain: &Chain, id: &str) {
    let connection = request(id, IpContext::default()).connection;
    chain.close(Close { connection, call: Call::default() }).await.unwrap();
}

struct Failing;

#[async_trait]
impl Element for Failing {
    async fn request(&self, _: Request, _: Next) -> Result<Connection, Error> {
        Err(Error::new(Kind::Unavailable, "as the test asked"))
    }
}

#[tokio::test]
async fn dual_stack_pairs_with_routes_to_each_other() {
    let chain = chain![PointToPoint::new("10.0.0.0/24,fd00::/64".parse().unwrap())];
    let first = ask(&chain, "a", IpContext::default()).await.unwrap();
    assert_eq!(lists(&first), (vec!["10.0.0.1/32", "fd00::1/128"], vec!["10.0.0.0/32", "fd00::/128"]));
    let to = |routes: &[Route]| routes.iter().map(|route| route.prefix.clone()).collect::<Vec<_>>();
    assert_eq!(
        (to(&first.src_routes), to(&first.dst_routes)),
        (first.dst_ip_addrs.clone(), first.src_ip_addrs.clone())
    );
    let second = ask(&chain, "b", IpContext::default()).await.unwrap();
    assert_eq!(lists(&second), (vec!["10.0.0.3/32", "fd00::3/128"], vec!["10.0.0.2/32", "fd00::2/128"]));
    assert_eq!(ask(&chain, "a", first.clone()).await.unwrap(), first, "a refresh changes nothing");
    close(&chain, "a").await;
    close(&chain, "a").await;
    assert_eq!(ask(&chain, "c", IpContext::default()).await.unwrap(), first, "what was released is used again");
}

#[tokio::test]
async fn a_restarted_endpoint_gets_its_leases_back_from_refreshes() {
    let groups: Groups = "10.0.0.0/24".parse().unwrap();
    let before = chain![PointToPoint::new(groups.clone())];
    let a = ask(&before, "a", IpContext::default()).await.unwrap();
    let b = ask(&before, "b", IpContext::default()).await.unwrap();
    let after = chain![PointToPoint::new(groups)];
    assert_eq!(ask(&after, "b", b.clone()).await.unwrap(), b);
    let taken = ask(&after, "c", IpContext::default()).await.unwrap();
    assert_eq!(taken, a, "free until its owner is heard of");
    let moved = ask(&after, "a", a.clone()).await.unwrap();
    assert_eq!(lists(&moved), (vec!["10.0.0.5/32"], vec!["10.0.0.4/32"]), "the taken ones are gone from the context");
    assert_eq!((moved.src_routes.len(), moved.dst_routes.len()), (1, 1));
}

#[tokio::test]
async fn addresses_of_others_stay_in_the_context() {
    let chain = chain![PointToPoint::new("10.0.0.0/24".parse().unwrap())];
    let named = IpContext {
        src_ip_addrs: vec!["172.16.0.7/24".into(), "10.0.0.7/24".into()],
        src_routes: vec![Route { prefix: "10.0.0.0/8".into(), next_hop: String::new() }],
        ..IpContext::default()
    };
    let given = ask(&chain, "a", named).await.unwrap();
    assert_eq!(lists(&given), (vec!["172.16.0.7/24", "10.0.0.7/32"], vec!["10.0.0.6/32"]));
    assert_eq!(given.src_routes.len(), 2);
}

#[tokio::test]
async fn a_move_leaves_the_other_endpoints_pairs_behind() {
    let first = chain![PointToPoint::new("10.0.0.0/24,fd00::/64".parse().unwrap())];
    let mut named = ask(&first, "a", IpContext::default()).await.unwrap();
    named.src_ip_addrs.push("192.0.2.7/24".into());
    named.src_routes.push(Route { prefix: "0.0.0.0/0".into(), next_hop: String::new() });
    let [one, two] = ["10.1.0.0/24", "10.2.0.0/24"].map(|prefix| PointToPoint::new(prefix.parse().unwrap()));
    let second = chain![one, two];
    let mut moved = request("a", named.clone());
    moved.connection.set_state(State::ReselectRequested);
    let moved = context(second.request(moved).await.unwrap());
    assert_eq!(lists(&moved), (vec!["192.0.2.7/24", "10.1.0.1/32", "10.2.0.1/32"], vec!["10.1.0.0/32", "10.2.0.0/32"]));
    assert_eq!((moved.src_routes.len(), moved.dst_routes.len()), (3, 2));
    let refreshed = ask(&second, "b", named).await.unwrap();
    assert_eq!(refreshed.src_ip_addrs.len(), 5, "without a move all that others gave stays");
}

#[tokio::test]
async fn excluded_on_refresh_means_other_addresses() {
    let chain = chain![PointToPoint::new("10.0.0.0/29".parse().unwrap())];
    let mut first = ask(&chain, "a", IpContext::default()).await.unwrap();
    first.excluded_prefixes = vec!["10.0.0.1".into(), "10.0.0.4/31".into()];
    let second = ask(&chain, "a", first).await.unwrap();
    assert_eq!(lists(&second), (vec!["10.0.0.3/32"], vec!["10.0.0.2/32"]));
    let other = ask(&chain, "b", IpContext::default()).await.unwrap();
    assert_eq!(lists(&other), (vec!["10.0.0.1/32"], vec!["10.0.0.0/32"]), "the old pair is free again");
}

#[tokio::test]
async fn a_failure_further_down_leaves_the_pool_as_it_was() {
    let pool = pool("10.0.0.0/24");
    let good = chain![PointToPoint::from_pool(pool.clone())];
    let bad = chain![PointToPoint::from_pool(pool.clone()), Failing];
    assert!(ask(&bad, "a", IpContext::default()).await.is_err());
    assert_eq!(pool.leases(), 0);
    let kept = ask(&good, "a", IpContext::default()).await.unwrap();
    let excluded = IpContext { excluded_prefixes: vec!["10.0.0.0/30".into()], ..kept.clone() };
    assert!(ask(&bad, "a", excluded).await.is_err(), "the move to other addresses failed");
    assert_eq!(ask(&good, "a", kept.clone()).await.unwrap(), kept, "so it still has the old ones");
    assert_eq!(lists(&ask(&good, "b", IpContext::default()).await.unwrap()).0, ["10.0.0.3/32"]);
}

#[tokio::test]
async fn nonsense_is_refused_by_name() {
    let chain = chain![PointToPoint::new("10.0.0.0/24".parse().unwrap())];
    let named = IpContext { excluded_prefixes: vec!["10.0.0.0/33".into()], ..IpContext::default() };
    let error = ask(&chain, "a", named).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("excluded_prefixes has \"10.0.0.0/33\""), "{error}");
    let many = IpContext { src_ip_addrs: vec!["10.0.0.1".into(); MAX_NAMED + 1], ..IpContext::default() };
    assert_eq!(ask(&chain, "a", many).await.unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn exhausted_names_the_prefix() {
    let chain = chain![PointToPoint::new("[10.0.0.0/31,10.1.0.0/31]".parse().unwrap())];
    for id in ["a", "b"] {
        ask(&chain, id, IpContext::default()).await.unwrap();
    }
    let error = ask(&chain, "c", IpContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    assert!(error.to_string().contains("10.0.0.0/31, 10.1.0.0/31 (2 connections"), "{error}");
}

#[test]
fn two_leases_of_one_id_are_not_mixed_up() {
    let pool = pool("10.0.0.0/24");
    let lease = pool.lease("a", &Wish::default()).unwrap();
    assert_eq!(pool.lease("a", &Wish::default()).unwrap_err(), PoolError::Busy("a".into()));
    pool.release("a");
    assert_eq!(pool.lease("b", &Wish::default()).unwrap().pairs()[0].client.to_string(), "10.0.0.3");
    lease.keep();
    assert_eq!(pool.leases(), 0, "released while on its way");
}

#[test]
fn large_prefixes_cost_nothing() {
    let pool = pool("10.0.0.0/8,fd00::/64,::/0");
    let wish = Wish { excluded: vec!["10.0.0.0/9".parse().unwrap(), "fd00::/65".parse().unwrap()], ..Wish::default() };
    for at in 0..1000 {
        pool.lease(&at.to_string(), &wish).unwrap().keep();
    }
    let lease = pool.lease("last", &wish).unwrap();
    assert_eq!(lease.pairs()[0].endpoint.to_string(), "10.128.7.208");
    assert_eq!(lease.pairs()[1].client.to_string(), "fd00::8000:0:0:7d1");
}

/// Overlapping groups on purpose: the pool's addresses are its own whatever the prefixes say.
const GROUPS: [&str; 4] =
    ["10.0.0.0/28", "10.0.0.0/29,fd00::/125", "[10.0.0.0/30,10.0.0.8/30],10.0.0.0/28", "[fd00::/126,10.0.0.0/27]"];

#[derive(Debug, Clone)]
enum Event {
    /// `fate`: kept, dropped, or released on its way.
    Lease {
        id: u8,
        client: Vec<IpAddr>,
        endpoint: Vec<IpAddr>,
        excluded: Vec<IpNetwork>,
        fate: u8,
    },
    Release {
        id: u8,
    },
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..20u8).prop_map(|last| IpAddr::from([10, 0, 0, last])),
        (0..10u16).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let addresses = || prop::collection::vec(address(), 0..3);
    let excluded = prop::collection::vec(
        (address(), 0..4u8).prop_map(|(address, less)| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            IpNetwork::new(address, most - less).unwrap()
        }),
        0..4,
    );
    prop_oneof![
        3 => (0..9u8, addresses(), addresses(), excluded, 0..4u8)
            .prop_map(|(id, client, endpoint, excluded, fate)| Event::Lease { id, client, endpoint, excluded, fate }),
        1 => (0..9u8).prop_map(|id| Event::Release { id }),
    ]
}

fn has_two_free(group: &[IpNetwork], taken: &HashSet<IpAddr>, excluded: &[IpNetwork]) -> bool {
    let fits = |address: &IpAddr| !taken.contains(address) && !excluded.iter().any(|prefix| prefix.contains(*address));
    group.iter().any(|prefix| prefix.iter().filter(fits).take(2).count() == 2)
}

proptest! {
    #[test]
    fn no_address_twice_none_excluded_all_reusable(
        groups in prop::sample::select(GROUPS.to_vec()),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let pool = pool(groups);
        let mut model: BTreeMap<u8, Vec<Pair>> = BTreeMap::new();
        for event in events {
            match event {
                Event::Release { id } => {
                    pool.release(&id.to_string());
                    model.remove(&id);
                }
                Event::Lease { id, client, endpoint, excluded, fate } => {
                    let wish = Wish { client, endpoint, excluded: excluded.clone() };
                    let is_excluded = |address| excluded.iter().any(|prefix| prefix.contains(address));
                    let mut taken: HashSet<IpAddr> =
                        model.values().flatten().flat_map(|pair| [pair.client, pair.endpoint]).collect();
                    let lease = match pool.lease(&id.to_string(), &wish) {
                        Ok(lease) => lease,
                        Err(PoolError::Exhausted { .. }) => {
                            // Only with overlapping groups can an earlier one have taken the last pair of this request.
                            let groups = pool.groups();
                            let overlap = groups.iter().count() > 1;
                            prop_assert!(overlap || groups.iter().any(|group| !has_two_free(group, &taken, &excluded)));
                            continue;
                        }
                        Err(error) => return Err(TestCaseError::fail(error.to_string())),
                    };
                    let pairs = lease.pairs().to_vec();
                    let had = model.get(&id).cloned().unwrap_or_default();
                    for (at, group) in pool.groups().iter().enumerate() {
                        let pair = pairs[at];
                        prop_assert!(!is_excluded(pair.client) && !is_excluded(pair.endpoint));
                        prop_assert!(group.iter().any(|p| p.contains(pair.client) && p.contains(pair.endpoint)));
                        match had.get(at) {
                            Some(had) if !is_excluded(had.client) && !is_excluded(had.endpoint) => prop_assert_eq!(*had, pair),
                            _ => {
                                prop_assert!(taken.insert(pair.client), "{} twice", pair.client);
                                prop_assert!(taken.insert(pair.endpoint), "{} twice", pair.endpoint);
                            }
                        }
                    }
                    match fate {
                        0 => drop(lease),
                        1 => {
                            pool.release(&id.to_string());
                            lease.keep();
                            model.remove(&id);
                        }
                        _ => {
                            lease.keep();
                            model.insert(id, pairs);
                        }
                    }
                }
            }
            prop_assert_eq!(pool.leases(), model.len());
        }
        for id in model.keys() {
            pool.release(&id.to_string());
        }
        let fresh = self::pool(groups);
        prop_assert_eq!(pool.all_free(), fresh.all_free(), "something was lost");
    }
}
