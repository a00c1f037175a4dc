use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::{Chain, chain};

fn request(connection: Connection) -> Request {
    Request { connection, preferences: Vec::new(), call: Call::default() }
}

fn segment(name: &str, id: &str) -> PathSegment {
    PathSegment { name: name.into(), id: id.into(), ..PathSegment::default() }
}

fn at(index: u32, id: &str, segments: Vec<PathSegment>) -> Connection {
    let path = Some(Segments { index, path_segments: segments });
    Connection { id: id.into(), path, ..Connection::default() }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Keeps what arrives behind the last hop.
#[derive(Clone, Default)]
struct End(Arc<Mutex<Vec<Connection>>>);

#[async_trait]
impl Element for End {
    async fn request(&self, request: Request, _: Next) -> Result<Connection, Error> {
        self.0.lock().unwrap().push(request.connection.clone());
        Ok(request.connection)
    }

    async fn close(&self, close: Close, _: Next) -> Result<(), Error> {
        self.0.lock().unwrap().push(close.connection);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_hop_has_one_id_and_the_caller_gets_its_own_back(hops in 1..30usize, changed in 1..30usize) {
        let end = End::default();
        let names: Vec<_> = (0..hops).map(|hop| format!("hop-{hop}")).collect();
        let chain = |names: &[String]| {
            let servers = names.iter().map(|name| Arc::new(Path::server(name)) as Arc<dyn Element>);
            let client = Arc::new(Path::client("nsc")) as Arc<dyn Element>;
            Chain::new([client].into_iter().chain(servers).chain([Arc::new(end.clone()) as Arc<dyn Element>]))
        };
        let first = block_on(chain(&names).request(request(Connection::default()))).unwrap();
        let path = first.path.clone().unwrap();
        prop_assert_eq!((path.index, path.path_segments.len()), (0, hops + 1));
        prop_assert_eq!(&first.id, &path.path_segments[0].id);
        let ids: std::collections::BTreeSet<_> = path.path_segments.iter().map(|segment| &segment.id).collect();
        prop_assert_eq!(ids.len(), hops + 1);
        let arrived = end.0.lock().unwrap().pop().unwrap();
        check(&arrived).unwrap();
        prop_assert_eq!(own(&arrived).unwrap(), path.path_segments.last().unwrap());

        let again = block_on(chain(&names).request(request(first.clone()))).unwrap();
        prop_assert_eq!(&again, &first);

        // Another process in one hop's place gets a new id, those before it keep theirs.
        let changed = changed % hops;
        let mut others = names.clone();
        others[changed] = "other".into();
        let moved = block_on(chain(&others).request(request(first.clone()))).unwrap().path.unwrap();
        prop_assert_eq!(&moved.path_segments[..=changed], &path.path_segments[..=changed]);
        prop_assert_ne!(&moved.path_segments[changed + 1].id, &path.path_segments[changed + 1].id);
    }

    #[test]
    fn nothing_that_a_peer_sends_gets_past_unchecked(
        index in 0..70u32,
        id in "[a-c]?",
        segments in prop::collection::vec(("[a-c]?", "[a-c]?"), 0..70),
    ) {
        let end = End::default();
        let segments = segments.iter().map(|(name, id)| segment(name, id)).collect();
        let chain = chain![Path::server("a"), end.clone()];
        let result = block_on(chain.request(request(at(index, &id, segments))));
        for arrived in end.0.lock().unwrap().iter() {
            check(arrived).unwrap();
            prop_assert_eq!(&own(arrived).unwrap().name, "a");
        }
        if let Ok(answer) = result {
            prop_assert_eq!((answer.path.unwrap().index, answer.id), (index, id));
        }
    }
}

#[test]
fn contradictions_are_refused_by_name() {
    let long = "x".repeat(300);
    let many = |n: usize| (0..n).map(|_| segment("a", "1")).collect::<Vec<_>>();
    for (connection, expected) in [
        (Connection::default(), Failure::Missing),
        (at(1, "1", many(1)), Failure::Index { index: 1, segments: 1 }),
        (at(0, "2", many(1)), Failure::Id { connection: "2".into(), segment: "1".into(), index: 0 }),
        (at(0, "1", many(65)), Failure::Long(65)),
        (at(63, "1", many(64)), Failure::Long(65)),
        (at(0, "1", vec![segment(&long, "1")]), Failure::Name { field: "name", index: 0, bytes: 300 }),
    ] {
        let error = block_on(chain![Path::server("b")].request(request(connection))).unwrap_err();
        assert_eq!((error.kind(), error.find::<Failure>()), (Kind::Invalid, Some(&expected)));
    }
}

#[test]
fn ids_are_the_hooks_to_give() {
    struct Fixed;
    impl Ids for Fixed {
        fn id(&self, _: &Call, connection: &Connection, proposed: Option<&str>) -> Result<String, Error> {
            Ok(format!("{}/{}", connection.id, proposed.unwrap_or("new")))
        }
    }
    let end = End::default();
    let chain = chain![Path::server("b").ids(Arc::new(Fixed)), end.clone()];
    let answer = block_on(chain.request(request(at(0, "1", vec![segment("a", "1")])))).unwrap();
    assert_eq!(answer.id, "1");
    let without = Close { connection: at(0, "1", vec![segment("a", "1")]), call: Call::default() };
    block_on(chain.close(without)).unwrap();
    let arrived = end.0.lock().unwrap();
    assert_eq!([&*arrived[0].id, &*arrived[1].id], ["1/new", "1/new"], "Close finds it without our segment");
}

#[test]
fn a_wrong_answer_is_refused_and_closed() {
    struct Liar(fn(&mut Connection), Arc<Mutex<usize>>);
    #[async_trait]
    impl Element for Liar {
        async fn request(&self, mut request: Request, _: Next) -> Result<Connection, Error> {
            (self.0)(&mut request.connection);
            Ok(request.connection)
        }
        async fn close(&self, _: Close, _: Next) -> Result<(), Error> {
            *self.1.lock().unwrap() += 1;
            Ok(())
        }
    }
    let lies: [fn(&mut Connection); 7] = [
        |c| c.id = "other".into(),
        |c| c.path = None,
        |c| c.path.as_mut().unwrap().index = 7,
        |c| c.path.as_mut().unwrap().path_segments[0].id = "other".into(),
        |c| c.path.as_mut().unwrap().path_segments[1].name = "other".into(),
        |c| c.network_service = "other".into(),
        |c| c.payload = String::new(),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let closed = Arc::new(Mutex::new(0));
        let chain = chain![Verify, Liar(lie, closed.clone())];
        let connection = Connection {
            network_service: "s".into(),
            payload: "IP".into(),
            ..at(1, "2", vec![segment("a", "1"), segment("b", "2")])
        };
        let error = block_on(chain.request(request(connection))).unwrap_err();
        assert_eq!((error.kind(), *closed.lock().unwrap()), (Kind::Refused, 1), "lie {number}");
    }
}

#[test]
fn labels_stay_the_callers_own() {
    struct Other;
    #[async_trait]
    impl Element for Other {
        async fn request(&self, mut request: Request, _: Next) -> Result<Connection, Error> {
            request.connection.labels = [("app".to_owned(), "other".to_owned())].into();
            Ok(request.connection)
        }
    }
    let labels: std::collections::BTreeMap<_, _> = [("app".to_owned(), "client".to_owned())].into();
    let asked = Connection { labels: labels.clone(), ..at(0, "1", vec![segment("a", "1")]) };
    assert_eq!(block_on(chain![Verify, Other].request(request(asked))).unwrap().labels, labels);
}
