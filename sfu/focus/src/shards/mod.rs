//! The threads that forward media, and the rings between them.
//!
//! Every thread has its own sockets on the shared port; the kernel spreads clients' addresses over them. A datagram
//! that arrives at the wrong thread is copied into a ring to the right one. Rings are bounded and never waited for.

mod metrics;
mod neighbours;
mod thread;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use weir_core::shard::{LineState, ShardConfig};
use weir_core::{Route, TransportContext};
use weir_udp::{Poller, SocketOptions, UdpSocket, Waker};
use weir_units::command::Command;
use weir_units::event::Event;
use weir_units::ids::ConferenceId;

pub use metrics::{ShardMetrics, ShardSnapshot};

/// Commands waiting for a thread, from all its rooms.
const COMMAND_QUEUE: usize = 8_192;
/// Conferences opened or closed that a thread has not heard of yet.
const CONTROL_QUEUE: usize = 4_096;
/// TCP connections, and frames of them, waiting for a thread.
const FRAME_QUEUE: usize = 1_024;
/// Events of one conference that its room has not taken. 2 MiB of data in 15 KiB chunks to spare.
pub const EVENT_QUEUE: usize = 8_192;

/// What a thread is told besides commands.
pub enum Control {
    OpenConference {
        conference: ConferenceId,
        events: mpsc::Sender<Event>,
    },
    CloseConference {
        conference: ConferenceId,
    },
    /// Somebody asks for the state of every line.
    Lines(oneshot::Sender<Vec<LineState>>),
    Stop,
}

/// How a thread speaks to an ICE-TCP connection. Dropped when that is no peer's any more, which ends it.
pub struct ConnectionLink {
    pub frames: mpsc::Sender<Bytes>,
    /// Told once, when a check over the connection was valid.
    pub validated: Option<oneshot::Sender<()>>,
}

/// What comes of an ICE-TCP connection, in this order: were its frames to overtake it, nothing could answer the first.
pub enum FromConnection {
    Opened { connection: u32, link: ConnectionLink },
    Frame { route: Route, bytes: Vec<u8> },
    Closed { connection: u32 },
}

/// The way to a thread.
#[derive(Clone)]
pub struct ShardHandle {
    pub index: u8,
    pub commands: mpsc::Sender<Command>,
    pub control: mpsc::Sender<Control>,
    pub frames: mpsc::Sender<FromConnection>,
    pub waker: Waker,
    pub metrics: Arc<ShardMetrics>,
    /// How many conferences it has, to place the next.
    pub conferences: Arc<AtomicUsize>,
}

impl ShardHandle {
    /// Waits while the thread has too much from connections already.
    pub async fn pass_on(&self, what: FromConnection) -> bool {
        let passed = self.frames.send(what).await.is_ok();
        self.waker.wake();
        passed
    }

    pub fn tell(&self, control: Control) -> bool {
        let told = self.control.try_send(control).is_ok();
        self.waker.wake();
        told
    }
}

/// Called when a thread ends that was not told to.
pub type OnFailure = Arc<dyn Fn(u8) + Send + Sync>;

/// All threads.
pub struct Shards {
    pub handles: Vec<ShardHandle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shards {
    /// Binds sockets and starts a thread for each of `seeds`.
    pub fn start(
        bind: &[SocketAddr],
        options: SocketOptions,
        context: &Arc<TransportContext>,
        (rate_control, seeds): (bool, &[u64]),
        on_failure: &OnFailure,
    ) -> io::Result<Self> {
        let options = SocketOptions { reuse_port: seeds.len() > 1, ..options };
        let mut addresses = bind.to_vec();
        let mut sockets: Vec<Vec<UdpSocket>> = Vec::new();
        for _ in seeds {
            let mut bound = Vec::new();
            for address in &mut addresses {
                let socket = UdpSocket::bind(*address, options)
                    .map_err(|error| io::Error::new(error.kind(), format!("UDP {address}: {error}")))?;
                *address = socket.local_addr()?;
                bound.push(socket);
            }
            sockets.push(bound);
        }
        let pollers = seeds.iter().map(|_| Poller::new()).collect::<io::Result<Vec<_>>>()?;
        let wakers: Vec<Waker> = pollers.iter().map(Poller::waker).collect();
        let neighbours = neighbours::connect(&wakers);
        let mut handles = Vec::new();
        let mut threads = Vec::new();
        for (index, ((sockets, poller), neighbours)) in
            sockets.into_iter().zip(pollers).zip(neighbours).enumerate()
        {
            let (commands_in, commands) = mpsc::channel(COMMAND_QUEUE);
            let (control_in, control) = mpsc::channel(CONTROL_QUEUE);
            let (frames_in, frames) = mpsc::channel(FRAME_QUEUE);
            let handle = ShardHandle {
                index: index as u8,
                commands: commands_in,
                control: control_in,
                frames: frames_in,
                waker: poller.waker(),
                metrics: Arc::default(),
                conferences: Arc::default(),
            };
            let thread = thread::ShardThread::new(
                &ShardConfig { index: index as u8, rate_control },
                Arc::clone(context),
                seeds[index],
                sockets,
                poller,
                thread::Inputs { commands, control, frames, neighbours },
                Arc::clone(&handle.metrics),
            )?;
            let on_failure = Arc::clone(on_failure);
            let run = move || {
                // A broken invariant must not leave a focus that looks alive: the process ends, and is started anew.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| thread.run())).is_err() {
                    on_failure(index as u8);
                }
            };
            threads.push(std::thread::Builder::new().name(format!("shard-{index}")).spawn(run)?);
            handles.push(handle);
        }
        Ok(Self { handles, threads: Mutex::new(threads) })
    }

    /// The thread with the fewest conferences.
    pub fn least_loaded(&self) -> Option<&ShardHandle> {
        self.handles.iter().min_by_key(|handle| handle.conferences.load(Ordering::Relaxed))
    }

    /// Ends all threads, and waits for them.
    pub fn stop(&self) {
        for handle in &self.handles {
            handle.tell(Control::Stop);
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            let _ = thread.join();
        }
    }
}
