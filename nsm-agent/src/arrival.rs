//! The time that a call's message may take.
//!
//! Guarantee: a call whose message is not there in time ends with DEADLINE_EXCEEDED, and gives back what it holds. Otherwise headers
//! alone would hold a place for as long as their sender likes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tonic::{Status, body::Body, codegen::http};

/// From the headers of a call to the end of its message.
pub(crate) const ARRIVAL: Duration = Duration::from_secs(10);

/// The same call; its message comes within [`ARRIVAL`] or not at all.
pub(crate) fn in_time(call: http::Request<Body>) -> http::Request<Body> {
    call.map(|body| Body::new(InTime { body, time: Box::pin(tokio::time::sleep(ARRIVAL)) }))
}

struct InTime {
    body: Body,
    time: Pin<Box<Sleep>>,
}

impl http_body::Body for InTime {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(task);
        if frame.is_pending() {
            ready!(self.time.as_mut().poll(task));
            let late = format!("the message did not come within {} s", ARRIVAL.as_secs());
            return Poll::Ready(Some(Err(Status::deadline_exceeded(late))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;

    use super::*;

    /// Headers whose message is yet to come.
    struct Headers;

    impl http_body::Body for Headers {
        type Data = <Body as http_body::Body>::Data;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn headers_alone_are_given_up() {
        let began = tokio::time::Instant::now();
        let mut body = in_time(http::Request::new(Body::new(Headers))).into_body();
        let end = poll_fn(|task| Pin::new(&mut body).poll_frame(task)).await.unwrap().unwrap_err();
        assert_eq!(end.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(began.elapsed().as_secs(), ARRIVAL.as_secs());
    }
}
