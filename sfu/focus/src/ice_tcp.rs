//! Media over TCP for networks without UDP: the client connects to us
//! ([RFC 6544](https://www.rfc-editor.org/rfc/rfc6544)), and each packet has its length before it
//! ([RFC 4571](https://www.rfc-editor.org/rfc/rfc4571)).
//!
//! A connection shows whose it is by its first frame, an ICE check; it is then that shard's for good. A user fragment is
//! no secret, so it is let in for good only once the shard has found a check valid, and ends with its peer.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use weir_core::Route;
use weir_core::shard::ufrag_prefix;
use weir_transport::framing::Deframer;

use crate::shards::{ConnectionLink, FromConnection, ShardHandle, Shards};

/// Connections at a time. Each costs a task and a few buffers.
pub const MAX_CONNECTIONS: usize = 4_096;
/// Until a check was valid. A client sends one as soon as it is connected, and again a few times a second.
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections from one network without a valid check, at a time; beyond, they are closed at once. Many people may come
/// from one address in the same moment, but each is through in two round trips; more would let a few addresses fill all
/// the slots.
const MAX_UNVALIDATED: usize = 64;
/// Without a frame: ICE checks come every few seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames waiting for a client that reads slowly; beyond, media is dropped like on any full line.
const FRAME_QUEUE: usize = 256;
/// Read at a time: a few media packets.
const READ_BYTES: usize = 4 * 1024;
/// A client that makes no room for the next frame for this long is gone. Whoever reads slowly is not.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Frames written before they are flushed, were there ever more: the first must not wait for the last.
const BATCH_FRAMES: usize = 32;
/// What the kernel may hold of what it has not sent yet: a quarter of a second at 2 Mb/s. More would be stale media that
/// those that come after wait for; less would wake the writer for every few frames.
const UNSENT_BYTES: u32 = 64 * 1024;

/// What all listeners share: shards know a connection by its number alone, whichever address it came to.
#[derive(Clone)]
pub struct Connections {
    slots: Arc<Semaphore>,
    next: Arc<AtomicU32>,
    strangers: Strangers,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            next: Arc::new(AtomicU32::new(1)),
            strangers: Strangers::default(),
        }
    }
}

impl Connections {
    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// How many connections of each network have shown no credential yet. Bounded by the slots.
#[derive(Clone, Default)]
struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Strangers {
    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if there are too many from there.
    fn admit(&self, address: IpAddr) -> Option<Stranger> {
        let network = network(address);
        let mut counts = self.counts();
        let count = counts.entry(network).or_default();
        if *count == MAX_UNVALIDATED {
            return None;
        }
        *count += 1;
        Some(Stranger { of: self.clone(), network })
    }
}

/// A connection that counts as one of [`Strangers`] until this is dropped.
struct Stranger {
    of: Strangers,
    network: IpAddr,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// What counts as one: of IPv6 a subscriber has 64 bits' worth of addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

/// Accepts connections until the runtime ends.
pub async fn serve(listener: TcpListener, shards: Arc<Shards>, connections: Connections) {
    loop {
        let Ok(slot) = Arc::clone(&connections.slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, remote)) => {
                let Some(stranger) = connections.strangers.admit(remote.ip()) else {
                    tracing::debug!("an ICE-TCP connection too many without a valid check from one network");
                    continue;
                };
                let connection = connections.number();
                let shards = Arc::clone(&shards);
                tokio::spawn(async move {
                    if let Err(error) = carry(stream, remote, connection, stranger, &shards).await {
                        tracing::debug!(connection, %error, "an ICE-TCP connection ended");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors, mostly: wait for some to come back.
                tracing::warn!(%error, "accepting an ICE-TCP connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn carry(
    stream: TcpStream,
    remote: SocketAddr,
    connection: u32,
    stranger: Stranger,
    shards: &Shards,
) -> io::Result<()> {
    let deadline = Instant::now() + VALIDATION_TIMEOUT;
    stream.set_nodelay(true)?;
    // A kernel without it only holds more.
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    let (reader, writer) = stream.into_split();
    let mut frames_read = Frames::new(reader);
    let first = timeout_at(deadline, frames_read.next()).await??;
    let shard =
        owner(&first, shards).ok_or_else(|| io::Error::other("the first frame is no check for a peer"))?;
    let (frames_in, frames) = mpsc::channel(FRAME_QUEUE);
    let (validated_in, validated) = oneshot::channel();
    let link = ConnectionLink { frames: frames_in, validated: Some(validated_in) };
    if !shard.pass_on(FromConnection::Opened { connection, link }).await {
        return Ok(());
    }
    let route = Route::Tcp { connection, remote };
    let result = tokio::select! {
        result = read(frames_read, first, route, shard) => result,
        result = write(writer, frames, WRITE_TIMEOUT) => result,
        error = expire(deadline, validated, stranger) => Err(error),
    };
    shard.pass_on(FromConnection::Closed { connection }).await;
    result
}

/// Ends if no check was valid in time.
async fn expire(deadline: Instant, validated: oneshot::Receiver<()>, stranger: Stranger) -> io::Error {
    match timeout_at(deadline, validated).await {
        Ok(Ok(())) => {
            drop(stranger);
            std::future::pending().await
        }
        _ => io::Error::new(io::ErrorKind::TimedOut, "no check was valid in time"),
    }
}

/// By the user fragment's first character.
fn owner<'a>(frame: &[u8], shards: &'a Shards) -> Option<&'a ShardHandle> {
    let check = weir_rtp::stun::peek(frame)?;
    let ufrag = check.local_ufrag?;
    shards.handles.iter().find(|handle| ufrag.starts_with(ufrag_prefix(handle.index)))
}

async fn read(
    mut frames: Frames<OwnedReadHalf>,
    first: Vec<u8>,
    route: Route,
    shard: &ShardHandle,
) -> io::Result<()> {
    let mut bytes = first;
    loop {
        // Waiting here fills the kernel's buffer, and the client slows down.
        if !shard.pass_on(FromConnection::Frame { route, bytes }).await {
            return Ok(());
        }
        bytes = timeout(IDLE_TIMEOUT, frames.next()).await??;
    }
}

/// The frames of a connection.
struct Frames<R> {
    stream: R,
    deframer: Deframer,
    buffer: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    fn new(stream: R) -> Self {
        Self { stream, deframer: Deframer::default(), buffer: vec![0; READ_BYTES].into() }
    }

    async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let frame = self.deframer.poll();
            if let Some(frame) = frame.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                return Ok(frame.to_vec());
            }
            match self.stream.read(&mut self.buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.deframer.push(&self.buffer[..len]),
            }
        }
    }
}

async fn write(
    writer: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Bytes>,
    patience: Duration,
) -> io::Result<()> {
    let mut writer = BufWriter::new(writer);
    let mut batch = Vec::with_capacity(BATCH_FRAMES);
    while frames.recv_many(&mut batch, BATCH_FRAMES).await > 0 {
        for frame in batch.drain(..) {
            let written = async {
                writer.write_u16(frame.len() as u16).await?;
                writer.write_all(&frame).await
            };
            timeout(patience, written).await??;
        }
        timeout(patience, writer.flush()).await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_core::TransportContext;
    use weir_transport::framing::MAX_FRAME;
    use weir_transport::testing::binding_request;
    use weir_udp::SocketOptions;
    use weir_units::command::Command;
    use weir_units::ids::{ConferenceId, PeerId};
    use weir_units::media::IceCredentials;

    use super::*;
    use crate::shards::OnFailure;

    #[test]
    fn connections_of_several_listeners_have_numbers_of_their_own() {
        let first = Connections::default();
        let second = first.clone();
        assert_ne!(first.number(), second.number());
    }

    /// One shard, and where connections to it are taken.
    async fn listening() -> (Arc<Shards>, SocketAddr) {
        let context = Arc::new(TransportContext::generate().unwrap());
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let on_failure: OnFailure = Arc::new(|shard| panic!("shard {shard} ended"));
        let shards =
            Shards::start(&[loopback], SocketOptions::default(), &context, (true, &[1]), &on_failure);
        let (shards, listener) = (Arc::new(shards.unwrap()), TcpListener::bind(loopback).await.unwrap());
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::clone(&shards), Connections::default()));
        (shards, address)
    }

    async fn tell(shards: &Shards, command: Command) {
        shards.handles[0].commands.send(command).await.unwrap();
        shards.handles[0].waker.wake();
    }

    async fn check(stream: &mut TcpStream, of: &IceCredentials) {
        let check = binding_request("me", of, 1, true);
        stream.write_u16(check.len() as u16).await.unwrap();
        stream.write_all(&check).await.unwrap();
    }

    async fn answer(stream: &mut TcpStream) {
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
    }

    /// Whether the connection ends within this, properly or not.
    async fn ends(stream: &mut TcpStream, within: Duration) -> bool {
        timeout(within, stream.read_to_end(&mut Vec::new())).await.is_ok()
    }

    /// Who knew a user fragment's first letter could keep a place for ever.
    #[tokio::test]
    async fn a_connection_stays_by_a_valid_check_alone_and_ends_with_its_peer() {
        let (shards, address) = listening().await;
        let (peer, conference) = (PeerId(1), ConferenceId(1));
        let local = IceCredentials { ufrag: "Apeer".into(), password: "of-at-least-22-characters".into() };
        let guess = IceCredentials { password: "guessed-of-22-characters".into(), ..local.clone() };
        tell(&shards, Command::AddPeer { peer, conference, local: local.clone() }).await;
        while shards.handles[0].metrics.snapshot().stats.peers == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut stranger = TcpStream::connect(address).await.unwrap();
        check(&mut stranger, &guess).await;
        check(&mut client, &local).await;
        answer(&mut client).await;
        assert!(ends(&mut stranger, VALIDATION_TIMEOUT * 2).await);
        check(&mut client, &local).await;
        answer(&mut client).await;
        tell(&shards, Command::RemovePeer { peer }).await;
        assert!(ends(&mut client, VALIDATION_TIMEOUT).await);
        shards.stop();
    }

    #[tokio::test]
    async fn strangers_beyond_the_bound_are_turned_away_at_once() {
        let (shards, address) = listening().await;
        let mut strangers = Vec::new();
        for _ in 0..=MAX_UNVALIDATED {
            strangers.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(ends(&mut strangers[MAX_UNVALIDATED], VALIDATION_TIMEOUT / 2).await);
        assert!(!ends(&mut strangers[0], Duration::from_millis(10)).await);
        shards.stop();
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_has_its_places_back() {
        let strangers = Strangers::default();
        let admit = |address: &str| strangers.admit(address.parse().unwrap());
        let admitted: Vec<_> =
            (0..MAX_UNVALIDATED).map(|host| admit(&format!("2001:db8::{host:x}:1")).unwrap()).collect();
        assert!(admit("2001:db8::ffff:ffff:ffff:ffff").is_none());
        for other in ["2001:db8:0:1::1", "192.0.2.1", "::ffff:192.0.2.1"] {
            assert!(admit(other).is_some(), "{other}");
        }
        drop(admitted);
        assert!(strangers.counts().is_empty());
    }

    #[tokio::test]
    async fn frames_come_whole_until_the_connection_ends() {
        let bytes: &[u8] = &[0, 3, 1, 2, 3, 0, 1, 9, 0, 2, 7];
        let mut frames = Frames::new(bytes);
        assert_eq!(frames.next().await.unwrap(), [1, 2, 3]);
        assert_eq!(frames.next().await.unwrap(), [9]);
        assert_eq!(frames.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Whoever took longer than the timeout for all that waited was cut off, however steadily they read.
    #[tokio::test]
    async fn a_client_that_reads_slowly_gets_every_frame_and_one_that_does_not_read_is_cut_off() {
        let queue = || {
            let (frames_in, frames) = mpsc::channel(FRAME_QUEUE);
            for number in 0..FRAME_QUEUE {
                frames_in.try_send(vec![number as u8; 1_000].into()).unwrap();
            }
            frames
        };
        let patience = Duration::from_secs(1);
        let (mut client, ours) = tokio::io::duplex(4_096);
        let reading = async {
            let (mut read, mut piece) = (0, [0; 4_096]);
            while read < FRAME_QUEUE * 1_002 {
                tokio::time::sleep(patience / 40).await;
                read += client.read(&mut piece).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(write(ours, queue(), patience), reading);
        written.unwrap();

        let (_client, ours) = tokio::io::duplex(4_096);
        let error = write(ours, queue(), patience / 10).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn empty_and_oversized_frames_end_the_connection() {
        for len in [0, MAX_FRAME as u16 + 1, u16::MAX] {
            let bytes = len.to_be_bytes();
            let error = Frames::new(bytes.as_slice()).next().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
