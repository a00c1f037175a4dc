//! TCP from one network namespace to another, until it is cut.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context;
use nsm_lab::Namespace;

/// From a port of one namespace's loopback to the same of another's.
#[derive(Debug, Clone)]
pub struct Relay {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
enum State {
    /// These connections are open.
    Open(Vec<TcpStream>),
    /// Nothing passes.
    Cut,
}

impl Relay {
    /// Listens in the caller's namespace, or in `from`.
    pub fn start(from: Option<&Namespace>, to: &Arc<Namespace>, port: u16) -> anyhow::Result<Self> {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = match from {
            Some(namespace) => namespace.run(listen)?,
            None => listen(),
        }
        .context("a relay's port")?;
        let relay = Self { state: Arc::new(Mutex::new(State::Open(Vec::new()))) };
        let (shared, to) = (relay.clone(), to.clone());
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // Who is refused tries again: no failure of the relay.
                let _ = shared.pass(near, &to, port);
            }
        });
        Ok(relay)
    }

    fn pass(&self, near: TcpStream, to: &Namespace, port: u16) -> anyhow::Result<()> {
        let far = to.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))??;
        match &mut *self.lock() {
            State::Open(open) => open.extend([near.try_clone()?, far.try_clone()?]),
            State::Cut => return Ok(()),
        }
        for (mut source, mut sink) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            thread::spawn(move || {
                io::copy(&mut source, &mut sink).ok();
                sink.shutdown(Shutdown::Both).ok();
                source.shutdown(Shutdown::Both).ok();
            });
        }
        Ok(())
    }

    /// Ends every connection and lets no other pass.
    pub fn cut(&self) {
        if let State::Open(open) = std::mem::replace(&mut *self.lock(), State::Cut) {
            for stream in open {
                stream.shutdown(Shutdown::Both).ok();
            }
        }
    }

    /// Lets connections pass again.
    pub fn mend(&self) {
        *self.lock() = State::Open(Vec::new());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
