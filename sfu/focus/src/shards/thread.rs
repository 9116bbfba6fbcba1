//! One thread: a shard, its sockets, and the loop between them.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_core::shard::{Disposition, Shard, ShardConfig};
use weir_core::{Route, TransportContext};
use weir_udp::{Poller, UdpSocket};
use weir_units::command::Command;
use weir_units::event::Event;
use weir_units::ids::ConferenceId;
use weir_wire::Wire;

use super::metrics::{ShardMetrics, Shell};
use super::neighbours::Neighbours;
use super::{ConnectionLink, Control, FromConnection};

/// Handed-over datagrams, commands and frames taken in one turn, so that sockets are never kept waiting for long.
const TURN: usize = 256;
/// The longest sleep: metrics are to be fresh.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// Events that a room has not taken from which on its peers' data channel messages wait with their senders: some
/// megabytes, if all are messages of the largest kind.
const HOLD_ABOVE: usize = 64;
/// Down to which they wait.
const RELEASE_BELOW: usize = 16;
/// The longest sleep while some wait.
const HELD_SLEEP: Duration = Duration::from_millis(1);
/// How often metrics are brought out.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);

pub struct Inputs {
    pub commands: mpsc::Receiver<Command>,
    pub control: mpsc::Receiver<Control>,
    pub frames: mpsc::Receiver<FromConnection>,
    pub neighbours: Neighbours,
}

pub struct ShardThread {
    shard: Shard,
    wire: Wire,
    connections: Connections,
    poller: Poller,
    inputs: Inputs,
    conferences: HashMap<ConferenceId, mpsc::Sender<Event>>,
    metrics: Arc<ShardMetrics>,
    shell: Shell,
    next_publish: Instant,
    /// Conferences whose rooms do not keep up with data channel messages.
    held: Vec<ConferenceId>,
}

/// The ICE-TCP connections of the thread's peers.
#[derive(Default)]
struct Connections(HashMap<u32, ConnectionLink>);

impl weir_wire::Connections for Connections {
    fn send(&mut self, connection: u32, frame: &[u8]) -> bool {
        let link = self.0.get(&connection);
        link.is_some_and(|link| link.frames.try_send(Bytes::copy_from_slice(frame)).is_ok())
    }
}

impl Connections {
    fn on_validated(&mut self, connection: u32) {
        if let Some(validated) = self.0.get_mut(&connection).and_then(|link| link.validated.take()) {
            let _ = validated.send(()); // it may have ended
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one clock of a shard: read once a batch, and before sleeping"
)]
fn clock() -> Instant {
    Instant::now()
}

impl ShardThread {
    pub fn new(
        config: &ShardConfig,
        context: Arc<TransportContext>,
        seed: u64,
        sockets: Vec<UdpSocket>,
        poller: Poller,
        inputs: Inputs,
        metrics: Arc<ShardMetrics>,
    ) -> io::Result<Self> {
        for socket in &sockets {
            poller.watch(socket.as_raw_fd())?;
        }
        Ok(Self {
            shard: Shard::new(config, context, clock(), seed),
            wire: Wire::new(sockets),
            connections: Connections::default(),
            poller,
            inputs,
            conferences: HashMap::new(),
            metrics,
            shell: Shell::default(),
            next_publish: clock(),
            held: Vec::new(),
        })
    }

    pub fn run(mut self) {
        let mut now = clock();
        let mut awake_since = now;
        loop {
            let mut busy = self.receive(now);
            busy |= self.take_handed_over(now);
            busy |= self.take_frames(now);
            let Some(more) = self.take_control(now) else { return };
            busy |= more;
            while self.shard.poll_timeout().is_some_and(|at| at <= now) {
                self.shard.handle_timeout(now);
                self.send();
            }
            busy |= self.report(now);
            self.inputs.neighbours.wake();
            let end = clock();
            if end >= self.next_publish {
                self.next_publish = end + PUBLISH_INTERVAL;
                self.shell.busy += end - awake_since;
                awake_since = end;
                self.shell.wire = self.wire.counts;
                self.metrics.publish(self.shard.stats(), &self.shell);
            }
            if busy {
                now = end;
                continue;
            }
            self.shell.busy += end - awake_since;
            self.sleep(end);
            now = clock();
            awake_since = now;
        }
    }

    fn sleep(&mut self, now: Instant) {
        if self.inputs.neighbours.fall_asleep() {
            let until = self.shard.poll_timeout().map_or(MAX_SLEEP, |at| at.saturating_duration_since(now));
            let most = if self.held.is_empty() { MAX_SLEEP } else { HELD_SLEEP };
            if let Err(error) = self.poller.wait(until.min(most)) {
                tracing::error!(%error, "waiting for sockets failed");
            }
        }
        self.inputs.neighbours.stay_awake();
    }

    /// Takes one batch of every socket and forwards it.
    fn receive(&mut self, now: Instant) -> bool {
        let Self { shard, wire, connections, inputs, shell, .. } = self;
        wire.receive(shard, now, connections, |shard, route, datagram| {
            dispatch(shard, &mut inputs.neighbours, shell, now, route, datagram);
        })
    }

    fn take_handed_over(&mut self, now: Instant) -> bool {
        let Self { shard, inputs, .. } = self;
        let taken = inputs.neighbours.receive(TURN, |mut datagram| {
            let route = datagram.route;
            match shard.handle_datagram(now, route, datagram.bytes()) {
                Disposition::Validated => true,
                Disposition::Handled => false,
                // Handed over once and no further: threads that disagree must not play ball.
                Disposition::Elsewhere(_) | Disposition::Unknown => {
                    shard.count_unknown();
                    false
                }
            }
        });
        if taken > 0 {
            self.shell.handed_in += taken as u64;
            self.flush(now);
        }
        taken > 0
    }

    fn take_frames(&mut self, now: Instant) -> bool {
        let mut taken = 0;
        while taken < TURN
            && let Ok(what) = self.inputs.frames.try_recv()
        {
            taken += 1;
            let Self { shard, inputs, shell, connections, .. } = self;
            match what {
                FromConnection::Opened { connection, link } => {
                    connections.0.insert(connection, link);
                }
                FromConnection::Frame { route, mut bytes } => {
                    dispatch(shard, &mut inputs.neighbours, shell, now, route, &mut bytes);
                }
                FromConnection::Closed { connection } => {
                    connections.0.remove(&connection);
                }
            }
        }
        if taken > 0 {
            self.flush(now);
        }
        taken > 0
    }

    /// `None` when told to stop.
    fn take_control(&mut self, now: Instant) -> Option<bool> {
        let mut busy = false;
        while let Ok(control) = self.inputs.control.try_recv() {
            busy = true;
            match control {
                Control::OpenConference { conference, events } => {
                    self.conferences.insert(conference, events);
                }
                Control::CloseConference { conference } => {
                    self.conferences.remove(&conference);
                }
                Control::Lines(asked) => {
                    // Whoever asked may have gone.
                    let _ = asked.send(self.shard.lines(now));
                }
                Control::Stop => {
                    self.send();
                    return None;
                }
            }
        }
        for _ in 0..TURN {
            let Ok(command) = self.inputs.commands.try_recv() else { break };
            busy = true;
            self.shard.handle_command(now, command);
            self.send();
        }
        Some(busy)
    }

    fn flush(&mut self, now: Instant) {
        self.wire.flush(&mut self.shard, now, &mut self.connections);
    }

    fn send(&mut self) {
        self.wire.send(&mut self.shard, &mut self.connections);
    }

    /// Passes on what the shard has to say. Says whether it may have more to say for having been told to go on.
    fn report(&mut self, now: Instant) -> bool {
        let mut changed = false;
        while let Some((conference, event)) = self.shard.poll_event() {
            let Some(events) = self.conferences.get(&conference) else { continue };
            if waiting(events) > HOLD_ABOVE && !self.held.contains(&conference) {
                self.held.push(conference);
                changed = true;
                self.shard.hold_data(now, conference, true);
            }
            if events.try_send(event).is_err() {
                if self.shell.events_dropped == 0 {
                    tracing::warn!(%conference, "a room does not keep up with its events; they are dropped and counted");
                }
                self.shell.events_dropped += 1;
            }
        }
        let Self { held, conferences, shard, .. } = self;
        held.retain(|conference| {
            let lags = conferences.get(conference).is_some_and(|events| waiting(events) > RELEASE_BELOW);
            if !lags {
                shard.hold_data(now, *conference, false);
                changed = true;
            }
            lags
        });
        while let Some(route) = self.shard.poll_validated_route() {
            match route {
                Route::Udp { .. } => self.inputs.neighbours.announce(route),
                // Its frames come to the thread that its first one named, and nowhere else.
                Route::Tcp { connection, .. } => self.connections.on_validated(connection),
            }
        }
        while let Some(connection) = self.shard.poll_forgotten_connection() {
            self.connections.0.remove(&connection);
        }
        if changed {
            self.send();
        }
        changed
    }
}

/// Events that a room has not taken.
fn waiting(events: &mpsc::Sender<Event>) -> usize {
    events.max_capacity() - events.capacity()
}

fn dispatch(
    shard: &mut Shard,
    neighbours: &mut Neighbours,
    shell: &mut Shell,
    now: Instant,
    route: Route,
    datagram: &mut [u8],
) {
    let owner = match shard.handle_datagram(now, route, datagram) {
        Disposition::Handled | Disposition::Validated => return,
        Disposition::Elsewhere(owner) => Some(owner),
        Disposition::Unknown => neighbours.owner(route),
    };
    match owner {
        Some(owner) if neighbours.hand_over(owner, route, datagram) => shell.handed_out += 1,
        Some(_) => shell.hand_over_dropped += 1,
        None => shard.count_unknown(),
    }
}
