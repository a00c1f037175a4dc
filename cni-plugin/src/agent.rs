//! The way to the agent: connect, pass the namespace, call, and say what a failure means.
//!
//! Guarantees: no call outlives its deadline; a namespace is passed ahead of the call that names it; every gRPC status has one
//! CNI code, from one exhaustive match.

use std::{error::Error as _, future::Future, path::Path, time::Duration};

use nsm_cni_types::{Environment, Error, code};
use nsm_fdpass::{ConnectError, FdChannel};
use nsm_proto::cni::{AttachmentKey, cni_client::CniClient};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Response, Status, transport::Channel};

use crate::{VERSION, netns::Netns};

/// First and longest pause while an agent is waited for.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// A connection to the agent.
pub(crate) struct Agent {
    client: CniClient<Channel>,
    outbox: nsm_fdpass::Outbox,
    deadline: Instant,
}

/// Why an agent did not do what was asked.
pub(crate) enum Failure {
    /// Nobody there, or the connection broke.
    Away(String),
    /// Nothing came in time.
    Late(String),
    /// It answered.
    Answered(Status),
}

impl Agent {
    /// Connects, trying again for `wait` while nobody listens; from then on calls have `timeout`.
    pub(crate) async fn connect(path: &Path, wait: Duration, timeout: Duration) -> Result<Self, Failure> {
        let start = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let deadline = Instant::now() + timeout;
            match nsm_fdpass::connect_here(path, deadline).await {
                Ok(FdChannel { channel, outbox, .. }) => {
                    return Ok(Self { client: CniClient::new(channel), outbox, deadline });
                }
                Err(ConnectError::Missing(_) | ConnectError::Refused(_)) if start.elapsed() < wait => {
                    sleep(pause.min(wait.saturating_sub(start.elapsed()))).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                Err(error @ ConnectError::Timeout(_)) => return Err(Failure::Late(error.to_string())),
                Err(error) => return Err(Failure::Away(error.to_string())),
            }
        }
    }

    /// Connects and makes a call, which is made again, within `wait`, where the connection broke before the answer: an agent that ends
    /// drops whom it has not taken yet, and the next one knows what the one before had begun.
    pub(crate) async fn ask<T>(
        path: &Path,
        (wait, timeout): (Duration, Duration),
        call: impl AsyncFn(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let answer = match Self::connect(path, wait.saturating_sub(start.elapsed()), timeout).await {
                Ok(mut agent) => call(&mut agent).await,
                Err(failure) => Err(failure),
            };
            match answer {
                Err(Failure::Away(_)) if start.elapsed() < wait => sleep(pause).await,
                answer => return answer,
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Passes a namespace ahead of the next call.
    pub(crate) fn pass(&self, netns: &Netns) -> Result<String, Failure> {
        let sent = self.outbox.send(netns.file.clone());
        sent.map_err(|error| Failure::Away(format!("the namespace cannot be passed: {error}")))?;
        Ok(netns.id.to_string())
    }

    /// What is left until the deadline.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Makes one call.
    pub(crate) async fn call<T, F>(&mut self, call: impl FnOnce(CniClient<Channel>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        match timeout_at(self.deadline, call(self.client.clone())).await {
            Err(_) => Err(Failure::Late("the agent did not answer".to_owned())),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            // Only a status made on this side has a source.
            Ok(Err(status)) if status.source().is_some() => {
                Err(Failure::Away(format!("the connection broke: {status}")))
            }
            Ok(Err(status)) => Err(Failure::Answered(status)),
        }
    }
}

impl Failure {
    /// Whether nobody serves the call there.
    pub(crate) fn is_unknown_call(&self) -> bool {
        match self {
            Self::Answered(status) => status.code() == Code::Unimplemented,
            Self::Away(_) | Self::Late(_) => false,
        }
    }

    /// Whether an agent that knows the call for attachments only refuses it for want of one.
    pub(crate) fn is_about_no_attachment(&self) -> bool {
        match self {
            // Its words since there is the call: the code alone is that of other mistakes too.
            Self::Answered(status) => {
                status.code() == Code::InvalidArgument && status.message() == "the call names no attachment"
            }
            Self::Away(_) | Self::Late(_) => false,
        }
    }

    /// As the runtime shall see it, with what to do.
    pub(crate) fn error(self, path: &Path, timeout: Duration) -> Error {
        let path = path.display();
        match self {
            Self::Away(why) => Error::new(
                code::TRY_AGAIN,
                format!(
                    "nsm-agent is not there: {why}; start nsm-agent on this node, or set cniSocket ({path}) to where it listens"
                ),
            ),
            Self::Late(why) => Error::new(
                code::TRY_AGAIN,
                format!(
                    "{why} on {path} within {} s: see the log of nsm-agent and `nsmctl check`, or raise timeoutSeconds",
                    timeout.as_secs_f32()
                ),
            ),
            // What gRPC itself answers where nobody serves the call.
            Self::Answered(status) if status.code() == Code::Unimplemented && status.message().is_empty() => {
                Error::new(
                    code::UNKNOWN_CALL,
                    format!(
                        "{path} is not the agent's private socket (the NSM socket?), or the agent does not know this \
                         call: set cniSocket to the agent's --cni-socket"
                    ),
                )
            }
            Self::Answered(status) if status.message().is_empty() => Error::new(
                code_of(status.code()),
                format!("nsm-agent at {path} answered {:?}, without a word: see its log", status.code()),
            ),
            Self::Answered(status) => Error::new(code_of(status.code()), status.message()),
        }
    }
}

/// The CNI code of a status that the agent answered.
fn code_of(status: Code) -> u32 {
    match status {
        Code::Unavailable | Code::DeadlineExceeded | Code::NotFound | Code::ResourceExhausted => code::TRY_AGAIN,
        Code::InvalidArgument | Code::OutOfRange => code::INVALID_CONFIG,
        Code::FailedPrecondition | Code::Unknown | Code::Aborted => code::REFUSED,
        Code::PermissionDenied | Code::Unauthenticated => code::DENIED,
        Code::AlreadyExists => code::CONFLICT,
        Code::Ok | Code::Internal | Code::DataLoss => code::INTERNAL,
        Code::Cancelled => code::CANCELLED,
        Code::Unimplemented => code::UNKNOWN_CALL,
    }
}

/// What names the attachment of this call.
pub(crate) fn key(env: &Environment) -> AttachmentKey {
    AttachmentKey { container_id: env.container_id.clone(), ifname: env.ifname.clone() }
}

/// This plugin's version, for the agent's log.
pub(crate) fn plugin_version() -> String {
    VERSION.to_owned()
}

#[cfg(test)]
mod tests {
    use nsm_proto::cni::StatusRequest;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn who_was_dropped_calls_again_while_it_may_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cni.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let calls = async |wait| {
            let call = async |agent: &mut Agent| {
                agent.call(|mut client| async move { client.status(StatusRequest::default()).await }).await
            };
            let asked = Agent::ask(&path, (wait, Duration::from_secs(10)), call);
            tokio::pin!(asked);
            let mut dropped = 0;
            loop {
                tokio::select! {
                    answer = &mut asked => break (dropped, matches!(answer, Err(Failure::Away(_)))),
                    taken = listener.accept() => {
                        drop(taken.unwrap());
                        dropped += 1;
                    }
                }
            }
        };
        assert_eq!(calls(Duration::ZERO).await, (1, true));
        let (dropped, away) = calls(Duration::from_millis(200)).await;
        assert!(dropped > 2 && away, "{dropped}");
    }

    #[test]
    fn no_error_is_empty() {
        let told = |status| Failure::Answered(status).error(Path::new("/run/a.sock"), Duration::from_secs(1));
        let wrong = told(Status::unimplemented(""));
        assert!(wrong.msg.starts_with("/run/a.sock is not the agent's private socket"), "{}", wrong.msg);
        assert!(wrong.msg.contains("cniSocket"), "{}", wrong.msg);
        assert!(told(Status::internal("")).msg.contains("Internal"));
        assert_eq!(told(Status::not_found("x")).msg, "x");
    }
}
