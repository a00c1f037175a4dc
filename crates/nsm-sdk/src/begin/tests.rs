use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures::future::{Either, join_all};
use nsm_proto::connection::State;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;
use crate::{
    chain,
    fail_at::{FailAt, Fault, OnPurpose, fail_at},
};

fn connection(id: &str) -> Connection {
    Connection { id: id.into(), network_service: "service".into(), ..Connection::default() }
}

fn request(id: &str) -> Request {
    Request { connection: connection(id), preferences: Vec::new(), call: Call::default() }
}

fn close(id: &str) -> Close {
    Close { connection: connection(id), call: Call::default() }
}

#[derive(Clone, Copy)]
struct Number(usize);

/// Writes down who ran, and notices when two of the same id run at once.
#[derive(Clone, Default)]
struct Recorder {
    running: Arc<Mutex<HashMap<String, usize>>>,
    ran: Arc<Mutex<Vec<(String, usize)>>>,
    overlaps: Arc<AtomicUsize>,
    closed: Arc<Mutex<Vec<Connection>>>,
}

impl Recorder {
    async fn run(&self, id: &str, call: &Call) {
        let others = std::mem::replace(self.running.lock().unwrap().entry(id.into()).or_default(), 1);
        self.overlaps.fetch_add(others, Ordering::SeqCst);
        let number = call.noted::<Number>().map_or(0, |number| number.0);
        self.ran.lock().unwrap().push((id.into(), number));
        for _ in 0..number % 5 {
            tokio::task::yield_now().await;
        }
        self.running.lock().unwrap().insert(id.into(), 0);
    }
}

#[async_trait]
impl Element for Recorder {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        self.run(&request.connection.id, &request.call).await;
        request.connection.labels.insert("made".into(), "yes".into());
        next.request(request).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        self.run(&close.connection.id, &close.call).await;
        self.closed.lock().unwrap().push(close.connection.clone());
        next.close(close).await
    }
}

/// Holds Requests until it is opened.
struct Gate(Arc<Semaphore>, Arc<AtomicBool>);

#[async_trait]
impl Element for Gate {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        self.1.store(true, Ordering::SeqCst);
        let _pass = self.0.acquire().await;
        next.request(request).await
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn events_of_one_id_run_one_by_one_in_order(events in prop::collection::vec((0..3usize, any::<bool>()), 1..32)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let recorder = Recorder::default();
        let begin = Begin::new().quiet();
        let chain = chain![begin.clone(), recorder.clone()];
        runtime.block_on(async {
            let all = events.iter().enumerate().map(|(number, (id, is_close))| {
                let (chain, id, call) = (chain.clone(), format!("c{id}"), Call::default());
                call.note(Number(number));
                if *is_close {
                    Either::Left(async move { chain.close(Close { connection: connection(&id), call }).await.map(drop) })
                } else {
                    let request = Request { connection: connection(&id), preferences: Vec::new(), call };
                    Either::Right(async move { chain.request(request).await.map(drop) })
                }
            });
            for result in join_all(all).await {
                result.unwrap();
            }
        });
        prop_assert_eq!(recorder.overlaps.load(Ordering::SeqCst), 0);
        for id in ["c0", "c1", "c2"] {
            let ran = recorder.ran.lock().unwrap();
            let numbers: Vec<_> = ran.iter().filter(|(of, _)| of == id).map(|(_, number)| *number).collect();
            let asked: Vec<_> =
                events.iter().enumerate().filter(|(_, (of, _))| format!("c{of}") == id).map(|(n, _)| n).collect();
            prop_assert_eq!(numbers, asked);
        }
        let last = |id: usize| events.iter().rev().find(|(of, _)| *of == id).is_some_and(|(_, is_close)| !is_close);
        prop_assert_eq!(begin.connections().len(), (0..3).filter(|id| last(*id)).count());
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_cut_a_request() {
    let (gate, began) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
    let known = Begin::new();
    let chain = chain![known.clone(), Gate(gate.clone(), began.clone())];
    let caller = tokio::spawn(async move { chain.request(request("a")).await });
    until("the request begins", || began.load(Ordering::SeqCst)).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert!(known.last("a").is_none());
    gate.add_permits(1);
    until("the request is served", || known.last("a").is_some()).await;
}

#[tokio::test]
async fn a_close_whose_caller_hangs_up_still_runs_after_the_request() {
    let (gate, began) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
    let recorder = Recorder::default();
    let known = Begin::new();
    let chain = chain![known.clone(), recorder.clone(), Gate(gate.clone(), began.clone())];
    let requesting = tokio::spawn({
        let chain = chain.clone();
        async move { chain.request(request("a")).await }
    });
    until("the request begins", || began.load(Ordering::SeqCst)).await;
    let hurried = tokio::time::timeout(Duration::from_millis(1), chain.close(close("a"))).await;
    assert!(hurried.is_err());
    gate.add_permits(1);
    requesting.await.unwrap().unwrap();
    until("the close runs", || !recorder.closed.lock().unwrap().is_empty()).await;
    until("it is forgotten", || known.connections().is_empty()).await;
}

#[tokio::test]
async fn close_gets_the_last_good_connection_and_forgets_it() {
    let recorder = Recorder::default();
    let begin = Begin::new();
    let chain = chain![begin.clone(), recorder.clone()];
    chain.request(request("a")).await.unwrap();
    chain.close(close("a")).await.unwrap();
    chain.close(close("a")).await.unwrap();
    let closed = recorder.closed.lock().unwrap();
    assert_eq!(closed[0].labels.len(), 1, "what the chain made");
    assert_eq!(closed[1].labels.len(), 0, "unknown: as it came");
    assert!(begin.last("a").is_none());
    assert_eq!(begin.slots.len(), 0);
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_connection() {
    let begin = Begin::new();
    let chain = chain![begin.clone(), fail_at(2)];
    chain.request(request("a")).await.unwrap();
    let error = chain.request(request("a")).await.unwrap_err();
    assert!(error.find::<OnPurpose>().is_some());
    assert!(begin.last("a").is_some());
}

#[tokio::test]
async fn a_panic_is_an_error_of_one_event() {
    let chain = chain![Begin::new(), fail_at(1).with(Fault::Panic)];
    let error = chain.request(request("a")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().contains("on purpose"), "{error}");
    chain.request(request("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_that_hangs_ends_and_the_next_has_its_turn() {
    let chain = chain![Begin::new(), fail_at(1).with(Fault::Hang)];
    let since = Instant::now();
    let waiting = tokio::spawn({
        let chain = chain.clone();
        async move { chain.request(request("a")).await }
    });
    tokio::task::yield_now().await;
    let mut hurried = request("a");
    hurried.call.deadline = since + Duration::from_secs(1);
    assert_eq!(chain.request(hurried).await.unwrap_err().kind(), Kind::Deadline);
    assert_eq!(since.elapsed().as_secs(), 1, "a queue is left at the caller's deadline");
    let mut patient = request("a");
    patient.call.deadline = since + Duration::from_mins(1);
    chain.request(patient).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), Kind::Deadline);
    assert_eq!(since.elapsed(), DEFAULT_TIMEOUT + GRACE);
}

#[tokio::test]
async fn events_go_through_the_chain_again_and_end_with_the_connection() {
    let counted = fail_at(usize::MAX);
    let begin = Begin::new();
    let chain = chain![begin.clone(), counted.clone()];
    chain.request(request("a")).await.unwrap();
    let events = begin.events("a").unwrap();
    let again = events.request(|request| request.connection.labels.insert("x".into(), "y".into()).is_none()).await;
    assert_eq!(again.unwrap().unwrap().labels.len(), 1);
    assert!(events.request(|_| false).await.unwrap().is_none());
    assert_eq!(counted.seen(), 2);
    assert!(events.close(|_| true).await.unwrap());
    assert!(!events.close(|_| true).await.unwrap());
    assert!(events.request(|_| true).await.unwrap().is_none());
    assert_eq!(counted.seen(), 3);
}

#[tokio::test]
async fn a_reselect_closes_first_and_can_be_tried_again() {
    let recorder = Recorder::default();
    let begin = Begin::new();
    // Request, Close and Request of the first reselect.
    let chain = chain![begin.clone(), recorder.clone(), fail_at(3)];
    let mut first = request("a");
    first.connection.network_service_endpoint_name = "endpoint".into();
    chain.request(first).await.unwrap();
    let events = begin.events("a").unwrap();
    events.reselect(|_| true).await.unwrap_err();
    assert_eq!(recorder.closed.lock().unwrap()[0].state(), State::ReselectRequested);
    let connection = events.reselect(|_| true).await.unwrap().unwrap();
    assert_eq!(connection.state(), State::Up);
    assert!(connection.network_service_endpoint_name.is_empty());
    assert_eq!(connection.labels.len(), 1, "what was agreed is asked for again");
}

#[tokio::test]
async fn callers_that_wait_for_one_connection_are_bounded() {
    let gate = Arc::new(Semaphore::new(0));
    let chain = chain![Begin::new(), Gate(gate.clone(), Arc::default())];
    let mut waiting: Vec<_> = (0..MOST_REQUESTS).map(|_| Box::pin(chain.request(request("a")))).collect();
    for call in &mut waiting {
        assert!(futures::poll!(call).is_pending());
    }
    let crowd = chain.request(request("a")).await.unwrap_err();
    assert_eq!(crowd.kind(), Kind::Exhausted);
    gate.add_permits(MOST_REQUESTS + 1);
    chain.request(request("b")).await.unwrap();
    // A Close finds room, behind all of them.
    let (closed, answers) = futures::join!(chain.close(close("a")), join_all(waiting));
    closed.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    chain.request(request("a")).await.unwrap();
}

#[tokio::test]
async fn the_close_of_a_reselect_says_so_to_an_inner_begin_too() {
    let recorder = Recorder::default();
    let outer = Begin::new();
    let chain = chain![outer.clone(), Begin::new(), recorder.clone()];
    chain.request(request("a")).await.unwrap();
    outer.events("a").unwrap().reselect(|_| true).await.unwrap().unwrap();
    chain.close(close("a")).await.unwrap();
    let states: Vec<State> = recorder.closed.lock().unwrap().iter().map(Connection::state).collect();
    assert_eq!(states, [State::ReselectRequested, State::Up]);
}

#[tokio::test]
async fn a_callers_reselect_closes_the_old_connection() {
    let recorder = Recorder::default();
    let chain = chain![Begin::new(), recorder.clone()];
    chain.request(request("a")).await.unwrap();
    let mut reselect = request("a");
    reselect.connection.set_state(State::ReselectRequested);
    reselect.connection.mechanism = Some(Mechanism::default());
    let answer = chain.request(reselect).await.unwrap();
    assert_eq!(recorder.closed.lock().unwrap().len(), 1);
    assert_eq!((answer.state(), answer.mechanism), (State::Up, None));
}

#[tokio::test]
async fn notes_and_files_outlive_a_call_only_where_asked_for() {
    #[derive(Clone)]
    struct Kept;
    type Notes = (bool, bool, Option<Origin>);
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<Notes>>>);
    #[async_trait]
    impl Element for Seen {
        async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
            let call = &request.call;
            let seen = (call.noted::<Kept>().is_some(), call.noted::<Number>().is_some(), call.noted());
            self.0.lock().unwrap().push(seen);
            next.request(request).await
        }
    }
    let (begin, seen) = (Begin::new().carry::<Kept>(), Seen::default());
    let chain = chain![begin.clone(), seen.clone()];
    let first = request("a");
    first.call.note(Kept);
    first.call.note(Number(1));
    chain.request(first).await.unwrap();
    begin.events("a").unwrap().request(|_| true).await.unwrap();
    let seen = seen.0.lock().unwrap();
    assert_eq!(*seen, [(true, true, Some(Origin::Caller)), (true, false, Some(Origin::Event))]);
}

#[tokio::test]
async fn an_adopted_connection_is_like_any_other() {
    let (begin, recorder) = (Begin::new(), Recorder::default());
    let chain = chain![recorder.clone()];
    let events = begin.adopt(connection("a"), Vec::new(), &chain);
    assert_eq!(begin.connections().len(), 1);
    assert!(events.close(|_| true).await.unwrap());
    assert_eq!(recorder.closed.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_what_hangs_and_refuses_the_rest() {
    let begin = Begin::new();
    let hangs: FailAt = fail_at(2).with(Fault::Hang);
    let chain = chain![begin.clone(), hangs.clone()];
    chain.request(request("b")).await.unwrap();
    let hanging = tokio::spawn({
        let chain = chain.clone();
        async move { chain.request(request("a")).await }
    });
    until("it hangs", || hangs.seen() == 2).await;
    assert_eq!(begin.drain(Instant::now() + Duration::from_secs(1)).await, 1);
    assert_eq!(hanging.await.unwrap().unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(chain.request(request("a")).await.unwrap_err().kind(), Kind::Unavailable);
    assert!(begin.connections().is_empty());
    drop(chain);
    assert_eq!(Arc::strong_count(&begin.slots), 1, "nothing holds the chain any more");
}
