//! Media over TCP for networks without UDP: the client connects to us
//! ([RFC 6544](https://www.rfc-editor.org/rfc/rfc6544)), and each packet has its length before it
//! ([RFC 4571](https://www.rfc-editor.org/rfc/rfc4571)).
//!
//! A connection shows whose it is by its first frame, an ICE check; it is then that shard's for good.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use weir_core::Route;
use weir_core::shard::ufrag_prefix;
use weir_transport::framing::Deframer;

use crate::shards::{FromConnection, ShardHandle, Shards};

/// Connections at a time. Each costs a task and a few buffers.
const MAX_CONNECTIONS: usize = 4_096;
/// For the first frame.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);
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
}

impl Default for Connections {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)), next: Arc::new(AtomicU32::new(1)) }
    }
}

impl Connections {
    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Accepts connections until the runtime ends.
pub async fn serve(listener: TcpListener, shards: Arc<Shards>, connections: Connections) {
    loop {
        let Ok(slot) = Arc::clone(&connections.slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, remote)) => {
                let connection = connections.number();
                let shards = Arc::clone(&shards);
                tokio::spawn(async move {
                    if let Err(error) = carry(stream, remote, connection, &shards).await {
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

async fn carry(stream: TcpStream, remote: SocketAddr, connection: u32, shards: &Shards) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A kernel without it only holds more.
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    let (reader, writer) = stream.into_split();
    let mut frames_read = Frames::new(reader);
    let first = timeout(FIRST_FRAME_TIMEOUT, frames_read.next()).await??;
    let shard =
        owner(&first, shards).ok_or_else(|| io::Error::other("the first frame is no check for a peer"))?;
    let (frames_in, frames) = mpsc::channel(FRAME_QUEUE);
    if !shard.pass_on(FromConnection::Opened { connection, frames: frames_in }).await {
        return Ok(());
    }
    let route = Route::Tcp { connection, remote };
    let result = tokio::select! {
        result = read(frames_read, first, route, shard) => result,
        result = write(writer, frames, WRITE_TIMEOUT) => result,
    };
    shard.pass_on(FromConnection::Closed { connection }).await;
    result
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
    use weir_transport::framing::MAX_FRAME;

    use super::*;

    #[test]
    fn connections_of_several_listeners_have_numbers_of_their_own() {
        let first = Connections::default();
        let second = first.clone();
        assert_ne!(first.number(), second.number());
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
