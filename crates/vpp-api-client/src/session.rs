//! A connection that comes back, and says what was lost with the one before.
//!
//! Nothing is repeated by itself: whether a call was done before the connection was lost, only its caller can find out, and after a
//! restart of VPP nothing is as it was. [`Reconnected`] says which of the two it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, Options};
use crate::error::{Error, Loss, Sent};

/// Between attempts, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Reports that nobody has read; the newest counts most, but none of them is large.
const REPORTS: usize = 64;

/// Keeps a connection to VPP.
///
/// ```
/// use std::time::Duration;
///
/// # use vpp_api_client::fake::{Deed, Fake, Nature};
/// use vpp_api_client::session::Process;
/// use vpp_api_client::{Options, Session};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("api.sock");
/// # let fake = Fake::start(&path, Nature::default(), |asked| match asked.name.as_str() {
/// #     "show_version" => vec![Deed::Close],
/// #     _ => Vec::new(),
/// # })?;
/// let mut session = Session::start(&path, Options::new("keeper"), Duration::from_secs(10));
/// session.client().await?.ping().await?;
/// # session.client().await?.call(&vpp_api_client::messages::ShowVersion).await.unwrap_err();
/// // VPP was restarted, say: from here on `client()` is a connection to the new one.
/// if let Some(reconnected) = session.reconnected().await {
///     match reconnected.process {
///         Process::Same => println!("ask again for the events of {:?}", reconnected.subscriptions),
///         Process::Another | Process::Unknown => println!("make everything anew: {}", reconnected.loss),
///     }
/// }
/// session.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Session {
    current: watch::Receiver<Result<Client, Error>>,
    reports: mpsc::Receiver<Reconnected>,
    timeout: Duration,
    task: JoinHandle<()>,
}

/// A connection was lost, and there is another.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reconnected {
    /// Why the old one ended.
    pub loss: Loss,
    /// Whether VPP is still the same process.
    pub process: Process,
    /// Requests for events that VPP no longer knows: send them again.
    pub subscriptions: Vec<String>,
    /// Calls that ended with [`Error::Lost`].
    pub calls: usize,
    /// Messages that this VPP cannot be asked, and the one before could.
    pub messages: Vec<String>,
    /// How long there was none.
    pub away: Duration,
}

/// Who is at the other end now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// The same: interfaces, routes and the like are as they were; registrations for events are gone.
    Same,
    /// Another: everything is gone, and indices mean something else.
    Another,
    /// That cannot be seen from here: look at what you made.
    Unknown,
}

impl Session {
    /// Connects now and whenever the connection is lost. A ping every `probe` finds a VPP that hangs. Needs a tokio runtime.
    pub fn start(path: impl Into<PathBuf>, options: Options, probe: Duration) -> Self {
        let path = path.into();
        let never = Error::Handshake { path: path.clone(), problem: "not connected yet".into() };
        let (current, watched) = watch::channel(Err(never));
        let (report, reports) = mpsc::channel(REPORTS);
        let timeout = options.timeout;
        let keeper = Keeper { path, options, probe, current, report };
        Self { current: watched, reports, timeout, task: tokio::spawn(keeper.run()) }
    }

    /// The connection, waited for as long as a call may take.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn client(&self) -> Result<Client, Error> {
        // A receiver of its own, so that tasks may share the session.
        let mut current = self.current.clone();
        if let Ok(Ok(client)) = timeout(self.timeout, current.wait_for(Result::is_ok)).await {
            return client.clone();
        }
        self.current.borrow().clone()
    }

    /// Waits for the next time that a connection was lost and made again.
    pub async fn reconnected(&mut self) -> Option<Reconnected> {
        self.reports.recv().await
    }

    /// Ends it and its connection, as [`Client::close`] does.
    ///
    /// # Errors
    /// VPP does not say that it has: the connection is over all the same.
    pub async fn close(self) -> Result<(), Error> {
        self.task.abort();
        let current = self.current.borrow().clone();
        match current {
            Ok(client) => client.close().await,
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper {
    path: PathBuf,
    options: Options,
    probe: Duration,
    current: watch::Sender<Result<Client, Error>>,
    report: mpsc::Sender<Reconnected>,
}

impl Keeper {
    async fn run(self) {
        let mut before: Option<(Before, Loss, Instant)> = None;
        loop {
            let client = self.connect().await;
            let now = Before::of(&client).await;
            if let Some((then, loss, since)) = before.take() {
                let report = Reconnected {
                    loss,
                    process: then.process(&now),
                    subscriptions: then.subscriptions,
                    calls: then.calls,
                    messages: then.messages.iter().filter(|name| !now.messages.contains(name)).cloned().collect(),
                    away: since.elapsed(),
                };
                // A reader that is that far behind looks at everything anyway.
                let _ = self.report.try_send(report);
            }
            drop(self.current.send_replace(Ok(client.clone())));
            let loss = self.watch(&client).await;
            let since = Instant::now();
            let error = Error::Lost { message: "connection".into(), sent: Sent::No, loss: loss.clone() };
            drop(self.current.send_replace(Err(error)));
            let mut then = now;
            then.subscriptions = client.subscriptions();
            then.calls = client.in_flight();
            before = Some((then, loss, since));
        }
    }

    async fn connect(&self) -> Client {
        let mut pause = FIRST_PAUSE;
        loop {
            match Client::connect(&self.path, self.options.clone()).await {
                Ok(client) => return client,
                Err(error) => drop(self.current.send_replace(Err(error))),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Until it ends, by itself or because VPP no longer answers.
    async fn watch(&self, client: &Client) -> Loss {
        loop {
            if let Ok(loss) = timeout(self.probe, client.closed()).await {
                return loss;
            }
            if let Err(Error::Timeout { after, .. }) = client.ping().await {
                let loss = Loss::Nonsense(format!("VPP did not answer a ping within {after:?}"));
                client.end(&loss);
                return loss;
            }
        }
    }
}

/// What is known of a connection, to compare the next one with.
struct Before {
    /// The listening process by its id and start, as the kernel has them.
    started: Option<(i32, String)>,
    /// As VPP says; in a container often the same.
    own_pid: Option<u32>,
    messages: Arc<[String]>,
    subscriptions: Vec<String>,
    calls: usize,
}

impl Before {
    async fn of(client: &Client) -> Self {
        let started = client.peer().and_then(|pid| Some((pid, start_of(pid)?)));
        let own_pid = client.ping().await.ok().map(|reply| reply.vpe_pid);
        let messages = client.served().into_iter().map(|(name, crc)| format!("{name}_{crc:08x}")).collect();
        Self { started, own_pid, messages, subscriptions: Vec::new(), calls: 0 }
    }

    fn process(&self, now: &Self) -> Process {
        match (&self.started, &now.started) {
            (Some(then), Some(now)) if then == now => Process::Same,
            (Some(_), Some(_)) => Process::Another,
            _ if self.own_pid.is_some() && now.own_pid.is_some() && self.own_pid != now.own_pid => Process::Another,
            _ => Process::Unknown,
        }
    }
}

/// When a process started, in the kernel's clock ticks.
fn start_of(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have anything in it, and ends with the last parenthesis.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}
