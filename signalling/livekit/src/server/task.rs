//! One room's task: takes what comes for it, and carries out what it says.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_units::ids::ConferenceId;

use super::{Input, Join, RoomHandle, Server, now, outbox};
use crate::ids::ConnectionId;
use crate::plane::Link;
use crate::room::{JoinError, Output, Room, RoomCounters};
use crate::supervision::{Bearer, EvictionReason, ParticipantEvent, Supervision};

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
            counted: RoomCounters::default(),
            gauged: (0, 0),
        }
    }

    pub async fn run(mut self) {
        while self.step().await.is_continue() {}
        self.inputs.close();
        self.gauge(0, 0);
        self.server.forget(&self.name, self.conference, &self.handle.inputs);
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
                        self.carry_out().await;
                        return ControlFlow::Break(());
                    }
                    next = self.inputs.try_recv().ok();
                }
                if let Some(input) = next
                    && self.take(input).is_break()
                {
                    self.carry_out().await;
                    return ControlFlow::Break(());
                }
            }
        }
        self.carry_out().await;
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
            Input::Evict { identity, reason, reply } => {
                let _ = reply.send(self.room.evict(now(), &identity, reason));
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

    async fn carry_out(&mut self) {
        let mut commands = false;
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Command(command) => {
                    commands = true;
                    if self.link.commands.capacity() == 0 {
                        (self.link.wake)(); // it must empty its queue before this one fits
                    }
                    if self.link.commands.send(command).await.is_err() {
                        tracing::error!(room = %self.name, "the shard is gone");
                        return;
                    }
                }
                Output::Send { connection, message } => self.send(connection, message),
                Output::Close { connection } => {
                    self.clients.remove(&connection);
                }
                Output::Happened { bearer, event } => self.tell(&bearer, event),
            }
        }
        if commands {
            (self.link.wake)();
        }
        let counted = self.room.counters;
        self.server.metrics.count(&self.counted, &counted);
        self.counted = counted;
        self.gauge(self.room.participants(), self.room.tracks());
    }

    fn tell(&mut self, bearer: &Bearer, event: ParticipantEvent) {
        let Supervision { gate, observer } = &self.server.supervision;
        observer.observe(bearer, event);
        // Whoever voided the token since the join was let in looked for its bearer too early to find it.
        if event == ParticipantEvent::Joined && gate.is_void(bearer) {
            self.room.evict(now(), &bearer.identity, EvictionReason::ParticipantRemoved);
        }
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
