//! Which interface a program uses: flags, and a connection after the other.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use memif::{Address, Backoff, Client, Connection, Limits, Listener, Mode, Port, Reconnect, Rings, Secret, Server};

/// How long one look for a peer takes.
const LOOK: Duration = Duration::from_millis(100);

/// The interface, as all programs are told it.
#[derive(Debug, Clone, Args)]
#[group(id = "interface")]
pub struct Flags {
    /// The socket: a path, or @NAME for an abstract one.
    #[arg(long, env = "MEMIF_SOCKET", value_name = "PATH|@NAME")]
    pub socket: Address,
    /// The interface behind the socket.
    #[arg(long, default_value_t = 0, value_name = "ID")]
    pub id: u32,
    /// Who listens.
    #[arg(long, value_enum, default_value = "client")]
    pub role: RoleFlag,
    /// What passes.
    #[arg(long, value_enum, default_value = "ethernet")]
    pub mode: ModeFlag,
    /// A file with the secret; a newline at its end does not count.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Slots of a ring: a power of two, 2 to 16384. A server's limit.
    #[arg(long, default_value_t = 1024, value_name = "SLOTS")]
    pub ring_size: u32,
    /// Bytes of a buffer, of a client.
    #[arg(long, default_value_t = 2048, value_name = "BYTES")]
    pub buffer_size: u32,
}

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleFlag {
    /// The peer listens (it is the master).
    #[value(alias = "slave")]
    Client,
    /// This program listens.
    #[value(alias = "master")]
    Server,
}

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeFlag {
    /// Ethernet frames.
    Ethernet,
    /// IP packets.
    Ip,
}

impl From<ModeFlag> for Mode {
    fn from(mode: ModeFlag) -> Self {
        match mode {
            ModeFlag::Ethernet => Self::Ethernet,
            ModeFlag::Ip => Self::Ip,
        }
    }
}

/// An interface in either role.
#[derive(Debug)]
pub struct Interface {
    end: End,
    met: Met,
}

/// Whether there ever was a connection.
#[derive(Debug)]
enum Met {
    Yes,
    /// What kept it from coming last, if anything did.
    No(Option<String>),
}

#[derive(Debug)]
enum End {
    /// Connects, again and again.
    Client(Box<Reconnect>),
    /// Listens.
    Server {
        /// The socket.
        listener: Listener,
        /// The interface behind it.
        port: Port,
    },
}

impl Flags {
    /// Opens the interface; whether there is a peer is seen later.
    ///
    /// # Errors
    /// A value that cannot be, or an address that is taken.
    pub fn open(&self) -> anyhow::Result<Interface> {
        let secret = self.secret_file.as_ref().map(|path| -> anyhow::Result<Secret> {
            let text = fs::read(path).with_context(|| format!("--secret-file {}", path.display()))?;
            let text = text.strip_suffix(b"\n").unwrap_or(&text);
            Secret::new(text).with_context(|| format!("--secret-file {}", path.display()))
        });
        let secret = secret.transpose()?;
        let mode = self.mode.into();
        Ok(match self.role {
            RoleFlag::Client => {
                let rings = Rings::default().slots(self.ring_size).context("--ring-size")?;
                let rings = rings.buffer_size(self.buffer_size).context("--buffer-size")?;
                let client = Client::new(self.socket.clone()).id(self.id).mode(mode).rings(rings);
                let client = match secret {
                    Some(secret) => client.secret(secret),
                    None => client,
                };
                Interface::new(End::Client(Box::new(Reconnect::new(client, Backoff::default()))))
            }
            RoleFlag::Server => {
                let limits = Limits::default().slots(self.ring_size).context("--ring-size")?;
                let server = Server::new(self.id).mode(mode).limits(limits);
                let server = match secret {
                    Some(secret) => server.secret(secret),
                    None => server,
                };
                let listener = Listener::bind(&self.socket)?;
                let port = listener.add(server)?;
                Interface::new(End::Server { listener, port })
            }
        })
    }
}

impl Interface {
    const fn new(end: End) -> Self {
        Self { end, met: Met::No(None) }
    }

    /// The next connection, unless it is time to stop before that. What keeps it from coming is said on standard error, once for each
    /// cause.
    ///
    /// # Errors
    /// The kernel cannot wait.
    pub fn next(&mut self, mut over: impl FnMut() -> bool) -> anyhow::Result<Option<Connection>> {
        let mut told = String::new();
        while !over() {
            let (connection, why) = match &mut self.end {
                End::Client(client) => {
                    let connection = client.connect(LOOK);
                    (connection, client.failure().map(ToString::to_string).into_iter().collect())
                }
                End::Server { listener, port } => {
                    let connection = port.accept(LOOK)?;
                    let refused = listener.take_refused();
                    (connection, refused.iter().map(|refused| format!("refused: {}", refused.why)).collect::<Vec<_>>())
                }
            };
            for why in why {
                if why != told {
                    eprintln!("{why}");
                    told.clone_from(&why);
                }
                if let Met::No(last) = &mut self.met {
                    *last = Some(why);
                }
            }
            if let Some(connection) = connection {
                self.met = Met::Yes;
                let peer = &connection.peer;
                eprintln!("up: {} of {}", peer.interface, peer.program);
                return Ok(Some(connection));
            }
        }
        Ok(None)
    }

    /// Whether there ever was a connection: what a program did not do for want of one is no failure of its own.
    ///
    /// # Errors
    /// There was none, and why.
    pub fn met(&self) -> anyhow::Result<()> {
        match (&self.met, &self.end) {
            (Met::Yes, _) => Ok(()),
            (Met::No(Some(why)), _) => bail!("never connected: {why}"),
            (Met::No(None), End::Client(client)) => {
                bail!("never connected: no attempt at {} has ended", client.client().address())
            }
            (Met::No(None), End::Server { port, .. }) => {
                bail!("never connected: no client came for interface id {}", port.id())
            }
        }
    }
}
