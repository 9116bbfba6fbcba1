//! Between a shard and its sockets: what one turn of the loop does with datagrams.
//!
//! The threads of the focus and the benchmarks share it, so that what is measured is what runs. Drive it as
//! [`weir_core::shard`] says: [`Wire::receive`] takes a batch of every socket and forwards it; after anything else
//! that makes the shard speak, [`Wire::send`].

mod patience;

use std::time::Instant;

use weir_core::Route;
use weir_core::shard::Shard;
use weir_udp::{MAX_MESSAGES, ReceiveBatch, Segments, SendBatch, UdpSocket};

use patience::Patience;

/// Batches of one socket that are taken before what they brought is forwarded. The packets of the pictures of a moment
/// come in fewer; a socket that never runs empty, as in a flood, must not keep media waiting.
const MAX_BATCHES: usize = 8;

/// What went over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounts {
    pub receive_messages: u64,
    pub receive_errors: u64,
    pub send_messages: u64,
    pub datagrams_out: u64,
    /// Of what was dropped as well, if the kernel did that.
    pub bytes_out: u64,
    pub send_dropped: u64,
}

/// The framed TCP connections that a shard's packets may leave by.
pub trait Connections {
    /// Says whether the frame found room.
    fn send(&mut self, connection: u32, frame: &[u8]) -> bool;
}

/// A shard's sockets, and the buffers of their batches.
pub struct Wire {
    sockets: Vec<UdpSocket>,
    received: ReceiveBatch,
    sent: SendBatch,
    patience: Patience,
    /// It was logged that the kernel does not cut messages.
    is_told: bool,
    pub counts: WireCounts,
}

impl Wire {
    pub fn new(sockets: Vec<UdpSocket>) -> Self {
        Self {
            sockets,
            received: ReceiveBatch::default(),
            sent: SendBatch::default(),
            patience: Patience::default(),
            is_told: false,
            counts: WireCounts::default(),
        }
    }

    pub fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// Takes one batch of every socket, gives its datagrams to `dispatch`, and forwards it. Says whether more may be
    /// there: what came since a batch that was not full wakes whoever waits for the sockets. A picture that has come in
    /// part is waited with for its rest as long as [`Patience`] says.
    pub fn receive(
        &mut self,
        shard: &mut Shard,
        now: Instant,
        connections: &mut impl Connections,
        mut dispatch: impl FnMut(&mut Shard, Route, &mut [u8]),
    ) -> bool {
        let mut more = false;
        for socket in 0..self.sockets.len() {
            let mut newest = self.take(socket, shard, &mut dispatch);
            if newest == 0 {
                continue;
            }
            let (mut polls, mut batches) = (0, 1);
            // What came may have been answered, each check with one: the next batch must find room for its answers.
            while batches < MAX_BATCHES
                && polls < self.patience.polls(shard.unfinished())
                && shard.egress().has_room_for(MAX_MESSAGES)
            {
                let came = self.take(socket, shard, &mut dispatch);
                self.patience.note(came > 0);
                if came > 0 {
                    (newest, polls, batches) = (came, 0, batches + 1);
                } else {
                    polls += 1;
                }
            }
            more |= newest == MAX_MESSAGES;
            self.flush(shard, now, connections);
        }
        more
    }

    /// Takes one batch of one socket. Says how many messages came.
    fn take(
        &mut self,
        socket: usize,
        shard: &mut Shard,
        dispatch: &mut impl FnMut(&mut Shard, Route, &mut [u8]),
    ) -> usize {
        let messages = match self.received.receive(&self.sockets[socket]) {
            Ok(messages) => messages,
            Err(error) => {
                self.counts.receive_errors += 1;
                tracing::debug!(%error, "receiving failed");
                return 0;
            }
        };
        self.counts.receive_messages += messages as u64;
        for message in self.received.messages() {
            // Nobody can be answered there, and runs to it would only fail.
            if message.from.port() == 0 {
                message.datagrams().for_each(|_| shard.count_unknown());
                continue;
            }
            let route = Route::Udp { socket: socket as u8, remote: message.from };
            for datagram in message.datagrams() {
                dispatch(shard, route, datagram);
            }
        }
        messages
    }

    /// Forwards what came and sends it, until nothing is left.
    pub fn flush(&mut self, shard: &mut Shard, now: Instant, connections: &mut impl Connections) {
        while shard.flush(now) {
            self.send(shard, connections);
        }
        self.send(shard, connections);
    }

    /// Sends what the shard's arena holds, and clears it.
    pub fn send(&mut self, shard: &mut Shard, connections: &mut impl Connections) {
        let egress = shard.egress();
        if egress.is_empty() {
            return;
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            let mut bytes = 0;
            let runs = egress.runs().iter().filter_map(|run| match run.route {
                Route::Udp { socket, remote } if usize::from(socket) == index => {
                    Some(Segments { to: remote, bytes: egress.bytes(run), segment: run.segment })
                }
                _ => None,
            });
            let report = self.sent.send(socket, runs.inspect(|run| bytes += run.bytes.len() as u64));
            self.counts.bytes_out += bytes;
            if !socket.segments() && !self.is_told {
                self.is_told = true;
                tracing::warn!(
                    "the kernel cuts no messages into datagrams (GSO), and sending costs more; it is asked again now and then"
                );
            }
            self.counts.send_messages += report.messages;
            self.counts.datagrams_out += report.datagrams;
            self.counts.send_dropped += report.dropped;
        }
        for run in egress.runs() {
            let Route::Tcp { connection, .. } = run.route else { continue };
            for datagram in run.datagrams(egress.arena()) {
                if connections.send(connection, datagram) {
                    self.counts.datagrams_out += 1;
                    self.counts.bytes_out += datagram.len() as u64;
                } else {
                    self.counts.send_dropped += 1;
                }
            }
        }
        egress.clear();
    }
}
