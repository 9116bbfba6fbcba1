//! A line that some clients share on their way from the focus, and a record of what it carried.

use std::collections::BTreeSet;
use std::time::Duration;

use weir_rtp::header::{DatagramKind, classify};

use crate::chance::Chance;
use crate::link::{Line, Link, Offered};

/// IPv4 and UDP.
const HEADERS: usize = 20 + 8;

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waited for others so long.
    Passed(Duration),
    /// The queue was full.
    Dropped,
    /// As lines lose.
    Lost,
}

/// A datagram that came to the line. Times are since the stage began.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    pub at: Duration,
    pub client: usize,
    /// Of RTP.
    pub ssrc: Option<u32>,
    /// On the line, with its headers.
    pub bytes: usize,
    pub fate: Fate,
}

#[derive(Debug)]
struct Datagram {
    client: usize,
    bytes: Vec<u8>,
}

/// Media and feedback pass through its [`Link`]. Handshakes only take their time there: how many bytes they are is not
/// decided by a seed.
#[derive(Debug)]
pub struct Bottleneck {
    link: Link<Datagram>,
    behind: BTreeSet<usize>,
    /// What passed or did not: bound by how long is played.
    pub record: Vec<Carried>,
}

impl Bottleneck {
    pub fn new(line: Line, behind: impl IntoIterator<Item = usize>, chance: Chance) -> Self {
        Self { link: Link::new(line, chance), behind: behind.into_iter().collect(), record: Vec::new() }
    }

    pub fn line(&self) -> Line {
        self.link.line
    }

    pub fn change(&mut self, now: Duration, line: Line) {
        self.link.change(now, line);
    }

    pub(crate) fn is_before(&self, client: usize) -> bool {
        self.behind.contains(&client)
    }

    pub(crate) fn offer(&mut self, at: Duration, client: usize, bytes: Vec<u8>) {
        let ssrc = ssrc_of(&bytes);
        let len = bytes.len() + HEADERS;
        let offered = self.link.offer(at, Datagram { client, bytes }, len);
        assert!(self.link.is_within_bounds(), "more waits than the queue holds");
        let fate = match offered {
            Offered::Queued => return,
            Offered::Lost => Fate::Lost,
            Offered::Dropped => Fate::Dropped,
        };
        self.record.push(Carried { at, client, ssrc, bytes: len, fate });
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.link.next()
    }

    /// What has passed by now: to whom, when it arrives, and the datagram.
    pub(crate) fn serve(&mut self, at: Duration) -> Option<(usize, Duration, Vec<u8>)> {
        loop {
            let served = self.link.serve(at)?;
            let (datagram, fate) = match &served {
                Ok(served) => (&served.packet, Fate::Passed(served.queued)),
                Err(dropped) => (dropped, Fate::Dropped),
            };
            let (client, ssrc, bytes) =
                (datagram.client, ssrc_of(&datagram.bytes), datagram.bytes.len() + HEADERS);
            self.record.push(Carried { at, client, ssrc, bytes, fate });
            if let Ok(served) = served {
                return Some((client, served.arrives, served.packet.bytes));
            }
        }
    }
}

fn ssrc_of(datagram: &[u8]) -> Option<u32> {
    let is_rtp = classify(datagram) == DatagramKind::Rtp;
    datagram.get(8..12).filter(|_| is_rtp)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
