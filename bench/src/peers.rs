//! What an idle peer keeps in memory.

use weir_units::ids::PublicationId;
use weir_units::media::Codec;

use crate::call::{Call, imaginary};
use crate::heap;
use crate::measure::Cost;

/// Idle peers measured together.
const PEERS: usize = 1_000;

/// Tracks to subscribe to: two belong to every peer, the others show what one more costs.
const TRACKS: usize = 12;

/// Bytes by the allocator's count, and of resident memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub heap: f64,
    pub resident: f64,
}

pub struct Memories {
    /// A connected peer with data channels that publishes two tracks and subscribes to two, all silent.
    pub peer: Memory,
    /// One more subscription.
    pub subscription: Memory,
}

pub fn measure() -> Memories {
    let mut call = Call::new(false);
    let publisher = call.connect(imaginary(0), 1, &mut Cost::default()).peer;
    let codec = |track: usize| if track.is_multiple_of(2) { Codec::Opus } else { Codec::Vp8 };
    let tracks: Vec<PublicationId> =
        (0..TRACKS).map(|track| call.publish(publisher, codec(track), track as u32 + 1)).collect();
    let mut peers = Vec::with_capacity(PEERS);
    let peer = Taken::since(|| {
        for number in 1..=PEERS {
            let peer = call.connect(imaginary(number), PEERS, &mut Cost::default()).peer;
            for (track, &publication) in tracks.iter().enumerate().take(2) {
                call.publish(peer, codec(track), (1_000 * number + track) as u32);
                call.subscribe(peer, publication, codec(track));
            }
            peers.push(peer);
        }
    });
    let subscription = Taken::since(|| {
        for &peer in &peers {
            for (track, &publication) in tracks.iter().enumerate().skip(2) {
                call.subscribe(peer, publication, codec(track));
            }
        }
    });
    Memories { peer: peer.over(PEERS), subscription: subscription.over(PEERS * (TRACKS - 2)) }
}

/// What some work left behind.
struct Taken {
    heap: u64,
    resident: u64,
}

impl Taken {
    fn since(work: impl FnOnce()) -> Self {
        let (heap, resident) = (heap::live_bytes(), heap::resident_bytes());
        work();
        Self {
            heap: heap::live_bytes().saturating_sub(heap),
            resident: heap::resident_bytes().saturating_sub(resident),
        }
    }

    fn over(&self, count: usize) -> Memory {
        Memory { heap: self.heap as f64 / count as f64, resident: self.resident as f64 / count as f64 }
    }
}
