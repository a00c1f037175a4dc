//! VPP's memif and ours, in both roles each. Suite `vpp`, which is skipped where none is installed: each test starts its own, in a folder and a
//! network namespace of its own.

mod asynchronous;
mod ethernet;
mod ip;
mod life;
mod refused;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use memif::Address;
use nsm_memif_peers::traffic::SOON;
use nsm_vpp::{Buffers, Vpp};
use tokio::runtime::Runtime;
use vpp_api_client::{
    Client, InterfaceIndex, Options, Prefix,
    message::{Dump, Request},
    messages::{
        IfStatusFlags, MemifCreateV2, MemifDump, MemifRole, MemifSocketFilenameAddDelV2, RxMode,
        SwInterfaceAddDelAddress, SwInterfaceSetDefaultRxMode, SwInterfaceSetFlags, SwInterfaceSetL2Xconnect,
    },
};

/// Both ends poll: one test after another.
static ALONE: Mutex<()> = Mutex::new(());

/// A VPP and its API.
struct Rig {
    vpp: Vpp,
    api: Client,
    runtime: Runtime,
    _alone: MutexGuard<'static, ()>,
}

impl Rig {
    fn start() -> Self {
        Self::start_with(Buffers::Pages)
    }

    fn start_with(buffers: Buffers) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let vpp = Vpp::start_with(buffers).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let api = runtime.block_on(Client::connect(vpp.api_socket(), Options::new("memif").timeout(SOON))).unwrap();
        Self { vpp, api, runtime, _alone: alone }
    }

    /// As after a crash: another process, with nothing of what the first one was told.
    fn restart(&mut self) {
        self.vpp.kill();
        self.vpp.start_again().unwrap();
        let options = Options::new("memif").timeout(SOON);
        self.api = self.runtime.block_on(Client::connect(self.vpp.api_socket(), options)).unwrap();
    }

    fn call<R: Request>(&self, request: &R) -> R::Reply {
        self.runtime.block_on(self.api.call(request)).unwrap()
    }

    fn dump<R: Dump>(&self, request: &R) -> Vec<R::Details> {
        self.runtime.block_on(self.api.dump(request)).unwrap()
    }

    /// Where a memif of that name listens.
    fn address(&self, name: &str) -> Address {
        Address::path(self.vpp.file(name)).unwrap()
    }

    fn socket(&self, file: &str) -> u32 {
        let add = MemifSocketFilenameAddDelV2 { is_add: true, socket_filename: file.into(), ..Default::default() };
        self.call(&add).socket_id
    }

    /// Interface 7 of VPP's, up, at a socket file of that name.
    fn memif(&self, name: &str, memif: MemifCreateV2) -> InterfaceIndex {
        let socket_id = self.socket(&self.vpp.file(name).display().to_string());
        let sw_if_index = self.call(&MemifCreateV2 { id: 7, socket_id, ..memif }).sw_if_index;
        self.call(&SwInterfaceSetFlags { sw_if_index, flags: IfStatusFlags::ADMIN_UP });
        sw_if_index
    }

    /// Whatever it receives it sends back.
    fn echo(&self, name: &str, memif: MemifCreateV2) -> InterfaceIndex {
        let index = self.memif(name, memif);
        self.call(&SwInterfaceSetL2Xconnect { rx_sw_if_index: index, tx_sw_if_index: index, enable: true });
        index
    }

    fn give(&self, sw_if_index: InterfaceIndex, prefix: Prefix) {
        self.call(&SwInterfaceAddDelAddress { sw_if_index, is_add: true, del_all: false, prefix });
    }

    /// How interfaces that are made from now on wait for packets.
    fn rx_mode(&self, mode: RxMode) {
        self.call(&SwInterfaceSetDefaultRxMode { mode });
    }

    /// Waits for VPP's side of a link.
    fn await_link(&self, sw_if_index: InterfaceIndex, up: bool) {
        let began = Instant::now();
        loop {
            let all = self.dump(&MemifDump);
            let flags = all.iter().find(|of| of.sw_if_index == sw_if_index).unwrap().flags;
            if flags.contains(IfStatusFlags::LINK_UP) == up {
                return;
            }
            assert!(began.elapsed() < SOON, "VPP's memif has flags {flags:?}");
        }
    }
}

fn master() -> MemifCreateV2 {
    MemifCreateV2 { role: MemifRole::Master, ..Default::default() }
}

fn slave() -> MemifCreateV2 {
    MemifCreateV2 { role: MemifRole::Slave, ..Default::default() }
}
