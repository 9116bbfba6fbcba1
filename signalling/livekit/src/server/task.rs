//! One room's task: takes what comes for it, and carries out what it says.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_units::ids::ConferenceId;

use super::{Eviction, Input, Join, RoomHandle, Server, now, outbox};
use crate::ids::ConnectionId;
use crate::plane::Link;
use crate::room::{JoinError, Output, Room, RoomCounters};
use crate::supervision::{Bearer, EvictionReason, LeaveReason, ParticipantEvent};

/// Inputs taken before what they brought about is carried out.
const BATCH: usize = 64;

pub(super) struct RoomTask {
    server: Arc<Server>,
    name: String,
    conference: ConferenceId,
    room: Room,
    link: Link,
    handle: RoomHandle,
    inputs: mpsc::Receiver<Input>,
    clients: HashMap<ConnectionId, outbox::Sender>,
    /// By identity, those of whom the observer was told that they came, and not yet that they left.
    present: BTreeMap<String, Arc<Bearer>>,
    counted: RoomCounters,
    gauged: (usize, usize),
}

impl RoomTask {
    pub fn new(
        server: Arc<Server>,
        name: String,
        conference: ConferenceId,
        room: Room,
        link: Link,
        handle: &RoomHandle,
        inputs: mpsc::Receiver<Input>,
    ) -> Self {
        Self {
            server,
            name,
            conference,
            room,
            link,
            handle: handle.clone(),
            inputs,
            clients: HashMap::new(),
            present: BTreeMap::new(),
            counted: RoomCounters::default(),
            gauged: (0, 0),
        }
    }

    pub async fn run(mut self) {
        while self.step().await.is_continue() {}
    }

    async fn step(&mut self) -> ControlFlow<()> {
        let timeout = self.room.poll_timeout();
        let sleep = async {
            match timeout {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = sleep => self.room.handle_timeout(now()),
            Some(event) = self.link.events.recv() => {
                self.room.handle_event(now(), event);
                for _ in 1..BATCH {
                    let Ok(event) = self.link.events.try_recv() else { break };
                    self.room.handle_event(now(), event);
                }
            }
            Some(input) = self.inputs.recv() => {
                let mut next = Some(input);
                for _ in 0..BATCH {
                    let Some(input) = next else { break };
                    if self.take(input).is_break() {
                        let _ = self.carry_out().await;
                        return ControlFlow::Break(());
                    }
                    next = self.inputs.try_recv().ok();
                }
                if let Some(input) = next
                    && self.take(input).is_break()
                {
                    let _ = self.carry_out().await;
                    return ControlFlow::Break(());
                }
            }
        }
        self.carry_out().await?;
        if self.room.is_over(now().at) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn take(&mut self, input: Input) -> ControlFlow<()> {
        match input {
            Input::Join(join) => {
                let Join { connection, claims, parameters, outbox, reply } = *join;
                let is_void = self.server.supervision.gate.is_void(&Bearer::new(&claims));
                let result = match is_void {
                    true => Err(JoinError::VoidToken),
                    false => {
                        self.clients.insert(connection, outbox);
                        self.room.join(now(), connection, claims, parameters)
                    }
                };
                if result.is_err() {
                    self.clients.remove(&connection);
                }
                if reply.send(result).is_err() {
                    // The client gave up while we thought about it.
                    self.room.handle_close(now(), connection);
                }
            }
            Input::Message { connection, message } => {
                self.server.metrics.messages_in.inc();
                self.room.handle_message(now(), connection, *message);
            }
            Input::Closed { connection } => {
                self.clients.remove(&connection);
                self.room.handle_close(now(), connection);
            }
            Input::Evict(Eviction { identity, reason, if_void, reply }) => {
                let evicts = !if_void || self.is_void(&identity);
                let _ = reply.send(evicts && self.room.evict(now(), &identity, reason));
            }
            Input::Delete => {
                self.room.delete(now());
                return ControlFlow::Break(());
            }
            Input::ShutDown => {
                self.room.shut_down(now());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Breaks off if the shard is gone: without media there is no room, and whoever comes next finds another.
    async fn carry_out(&mut self) -> ControlFlow<()> {
        let (mut commands, mut is_shard_gone) = (false, false);
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Command(_) if is_shard_gone => {}
                Output::Command(command) => {
                    commands = true;
                    if self.link.commands.capacity() == 0 {
                        (self.link.wake)(); // it must empty its queue before this one fits
                    }
                    if self.link.commands.send(command).await.is_err() {
                        tracing::error!(room = %self.name, "the shard is gone");
                        is_shard_gone = true;
                    }
                }
                Output::Send { connection, message } => self.send(connection, message),
                Output::Close { connection } => {
                    self.clients.remove(&connection);
                }
                Output::Happened { bearer, event } => self.tell(bearer, event),
                Output::FirstPacket { kind, after } => self.server.metrics.first_packet(kind, after),
            }
        }
        if commands {
            (self.link.wake)();
        }
        let counted = self.room.counters;
        self.server.metrics.count(&self.counted, &counted);
        self.counted = counted;
        self.gauge(self.room.participants(), self.room.tracks());
        if is_shard_gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn tell(&mut self, bearer: Arc<Bearer>, event: ParticipantEvent) {
        match event {
            ParticipantEvent::Joined => {
                drop(self.present.insert(bearer.identity.clone(), Arc::clone(&bearer)))
            }
            ParticipantEvent::Left(_) => drop(self.present.remove(&bearer.identity)),
            ParticipantEvent::Connected | ParticipantEvent::CutOff | ParticipantEvent::Resumed => {}
        }
        self.server.supervision.observer.observe(&bearer, event);
        // Whoever voided the token since the join was let in looked for its bearer too early to find it. Another may have
        // taken its place by now, whose token is good.
        if event == ParticipantEvent::Joined && self.is_void(&bearer.identity) {
            self.room.evict(now(), &bearer.identity, EvictionReason::ParticipantRemoved);
        }
    }

    /// Whether the token is void of who is here under this identity now.
    fn is_void(&self, identity: &str) -> bool {
        self.room.bearer(identity).is_some_and(|bearer| self.server.supervision.gate.is_void(bearer))
    }

    fn send(&mut self, connection: ConnectionId, message: Bytes) {
        let Some(client) = self.clients.get(&connection) else { return };
        self.server.metrics.messages_out.inc();
        if !client.send(message) {
            // Its socket takes nothing, or is gone. Closing tells the client to come back for a snapshot.
            self.server.metrics.slow_clients.inc();
            self.clients.remove(&connection);
            self.room.handle_close(now(), connection);
        }
    }

    fn gauge(&mut self, participants: usize, tracks: usize) {
        self.handle.participants.store(participants, Ordering::Relaxed);
        let metrics = &self.server.metrics;
        metrics.participants.add(participants as i64 - self.gauged.0 as i64);
        metrics.tracks.add(tracks as i64 - self.gauged.1 as i64);
        self.gauged = (participants, tracks);
    }
}

/// However a room ends, also by a panic or without its shard, whoever was in it has left, and it is forgotten.
impl Drop for RoomTask {
    fn drop(&mut self) {
        let reason = match self.server.closing.load(Ordering::SeqCst) {
            true => LeaveReason::ShutDown,
            false => LeaveReason::StartsOver, // as they are told when they come back and find no room
        };
        for bearer in std::mem::take(&mut self.present).into_values() {
            let observer = &self.server.supervision.observer;
            let tell = || observer.observe(&bearer, ParticipantEvent::Left(reason));
            // The observer may be what panicked. A second panic that got out of here would end the focus.
            if catch_unwind(AssertUnwindSafe(tell)).is_err() {
                tracing::error!(room = %self.name, "the observer was not told of a participant who left");
            }
        }
        self.inputs.close();
        self.gauge(0, 0);
        self.server.forget(&self.name, self.conference, &self.handle.inputs);
    }
}
