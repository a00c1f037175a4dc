//! A VPP for tests: speaks the transport, has the messages of this crate, and does what the test says. With the feature `fake`.
//!
//! As VPP does, it drops what it does not know, without a word.

pub mod stats;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::client::io as transfer;
use crate::definition::{Definitions, Head};
use crate::frame::{self, Incoming};
use crate::message::Message;
use crate::messages::{ControlPing, ControlPingReply};
use crate::retval::Retval;
use crate::wire::{DecodeError, Input, put_fixed_string};

/// What a VPP is like.
#[derive(Debug, Clone)]
pub struct Nature {
    /// The id of its first message; the others follow.
    pub first_id: u16,
    /// Its messages with their CRCs.
    pub messages: BTreeMap<String, u32>,
    /// Writes so many bytes at a time.
    pub pieces: usize,
    /// What it calls its process.
    pub pid: u32,
}

impl Default for Nature {
    fn default() -> Self {
        let messages = Definitions::ours().messages.into_values().map(|message| (message.name, message.crc)).collect();
        Self { first_id: 100, messages, pieces: usize::MAX, pid: 7 }
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// Of whom, as it says.
    pub client_index: u32,
    /// What an answer has to have.
    pub context: u32,
    body: Bytes,
}

impl Asked {
    /// Its fields, if it is such a one.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn fields<M: Message>(&self) -> Result<M, DecodeError> {
        M::decode(&mut Input::new(&self.body))
    }

    /// Its fields' bytes.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// What a fake VPP does next.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Sends a message.
    Send {
        /// Its name.
        name: String,
        /// What comes before the fields.
        head: Head,
        /// What an answer has.
        context: u32,
        /// The fields.
        body: Vec<u8>,
    },
    /// Sends these bytes as a message.
    Message(Vec<u8>),
    /// Sends these bytes as they are.
    Stream(Vec<u8>),
    /// Reads and writes no more, and keeps the connection.
    Hang,
    /// Ends the connection.
    Close,
}

impl Deed {
    /// Answers with this, or sends it as an event.
    ///
    /// # Panics
    /// It has no encoding.
    pub fn answer<M: Message>(asked: &Asked, message: &M) -> Self {
        let mut body = Vec::new();
        message.encode(&mut body).expect("a message that can be sent");
        Self::Send { name: M::NAME.into(), head: M::HEAD, context: asked.context, body }
    }
}

type Behaviour = Arc<Mutex<dyn FnMut(&Asked) -> Vec<Deed> + Send>>;

/// A fake VPP. It ends when dropped, with all its connections.
#[derive(Debug)]
pub struct Fake {
    path: PathBuf,
    goodbyes: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Fake {
    /// Listens there; a socket that another has left is replaced. Pings are answered unless `behaviour` does something.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(
        path: impl AsRef<Path>,
        nature: Nature,
        behaviour: impl FnMut(&Asked) -> Vec<Deed> + Send + 'static,
    ) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let nature = Arc::new(nature);
        let behaviour: Behaviour = Arc::new(Mutex::new(behaviour));
        let goodbyes = Arc::new(AtomicUsize::new(0));
        let heard = Arc::clone(&goodbyes);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let connection =
                    Connection::new(stream, Arc::clone(&nature), Arc::clone(&behaviour), Arc::clone(&heard));
                connections.spawn(connection.run());
            }
        });
        Ok(Self { path, goodbyes, task })
    }

    /// How many clients have said that they go.
    pub fn goodbyes(&self) -> usize {
        self.goodbyes.load(Ordering::Acquire)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Connection {
    stream: UnixStream,
    nature: Arc<Nature>,
    behaviour: Behaviour,
    goodbyes: Arc<AtomicUsize>,
    names: Vec<String>,
    ids: BTreeMap<String, u16>,
    out: BytesMut,
    over: bool,
    hangs: bool,
}

/// Every VPP's.
const CREATE: u16 = 15;
const CREATE_REPLY: u16 = 16;
const DELETE: u16 = 17;
const DELETE_REPLY: u16 = 18;
const FIXED: [(u16, &str); 4] = [
    (CREATE, "sockclnt_create_455fb9c4"),
    (CREATE_REPLY, "sockclnt_create_reply_35166268"),
    (DELETE, "sockclnt_delete_8ac76db6"),
    (DELETE_REPLY, "sockclnt_delete_reply_8f38b1ee"),
];
const CLIENT_INDEX: u32 = 0x8000_0001;

impl Connection {
    fn new(stream: UnixStream, nature: Arc<Nature>, behaviour: Behaviour, goodbyes: Arc<AtomicUsize>) -> Self {
        let names: Vec<String> = nature.messages.keys().cloned().collect();
        let ids = names.iter().cloned().zip(nature.first_id..).collect();
        Self { stream, nature, behaviour, goodbyes, names, ids, out: BytesMut::new(), over: false, hangs: false }
    }

    async fn run(mut self) {
        let mut incoming = Incoming::new(16 << 20);
        while !self.over {
            while let Ok(Some(message)) = incoming.next() {
                self.hear(&message);
                if self.over {
                    break;
                }
            }
            if self.hangs {
                std::future::pending::<()>().await;
            }
            let out = self.out.split();
            for piece in out.chunks(self.nature.pieces) {
                if transfer::write_all(&self.stream, piece).await.is_err() {
                    return;
                }
                if out.len() > self.nature.pieces {
                    tokio::task::yield_now().await;
                }
            }
            if !self.over && !matches!(transfer::read(&self.stream, incoming.room()).await, Ok(1..)) {
                return;
            }
        }
    }

    fn hear(&mut self, message: &Bytes) {
        let number = |at: usize| message.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let id = message.get(..2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        if id == CREATE {
            return self.welcome(number(2));
        }
        if id == DELETE {
            // The index stands behind the head, too: VPP goes by that.
            if number(10) == CLIENT_INDEX {
                self.part(number(6));
            }
            return;
        }
        let name = id.checked_sub(self.nature.first_id).and_then(|at| self.names.get(usize::from(at)));
        let (Some(name), true) = (name, message.len() >= 10 && number(2) == CLIENT_INDEX) else { return };
        let asked =
            Asked { name: name.clone(), client_index: number(2), context: number(6), body: message.slice(10..) };
        let mut deeds = (self.behaviour.lock().unwrap_or_else(PoisonError::into_inner))(&asked);
        if deeds.is_empty() && asked.name == ControlPing::NAME {
            let reply = ControlPingReply { retval: Retval::Ok, client_index: CLIENT_INDEX, vpe_pid: self.nature.pid };
            deeds.push(Deed::answer(&asked, &reply));
        }
        for deed in deeds {
            self.act(deed);
        }
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Send { name, head, context, body } => {
                let Some(id) = self.ids.get(&name) else { return };
                let mut message = id.to_be_bytes().to_vec();
                if matches!(head, Head::Client | Head::ClientContext) {
                    message.extend_from_slice(&CLIENT_INDEX.to_be_bytes());
                }
                if matches!(head, Head::Context | Head::ClientContext) {
                    message.extend_from_slice(&context.to_be_bytes());
                }
                message.extend_from_slice(&body);
                frame::put(&message, &mut self.out);
            }
            Deed::Message(bytes) => frame::put(&bytes, &mut self.out),
            Deed::Stream(bytes) => self.out.extend_from_slice(&bytes),
            Deed::Hang => self.hangs = true,
            Deed::Close => self.over = true,
        }
    }

    fn welcome(&mut self, context: u32) {
        let mut reply = CREATE_REPLY.to_be_bytes().to_vec();
        reply.extend_from_slice(&0_u32.to_be_bytes());
        reply.extend_from_slice(&context.to_be_bytes());
        reply.extend_from_slice(&0_i32.to_be_bytes());
        reply.extend_from_slice(&CLIENT_INDEX.to_be_bytes());
        let ours = self.ids.iter().map(|(name, id)| (*id, format!("{name}_{:08x}", self.nature.messages[name])));
        let all: Vec<_> = FIXED.iter().map(|(id, name)| (*id, (*name).to_owned())).chain(ours).collect();
        reply.extend_from_slice(&u16::try_from(all.len()).unwrap_or(u16::MAX).to_be_bytes());
        for (id, name) in all {
            reply.extend_from_slice(&id.to_be_bytes());
            if put_fixed_string(&name, 64, &mut reply).is_err() {
                return;
            }
        }
        frame::put(&reply, &mut self.out);
    }

    fn part(&mut self, context: u32) {
        let mut reply = DELETE_REPLY.to_be_bytes().to_vec();
        reply.extend_from_slice(&context.to_be_bytes());
        reply.extend_from_slice(&1_i32.to_be_bytes());
        frame::put(&reply, &mut self.out);
        self.goodbyes.fetch_add(1, Ordering::Release);
        self.over = true;
    }
}
