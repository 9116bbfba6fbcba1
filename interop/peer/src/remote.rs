//! What it receives of a publication, and whether that is as it should be.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use rtc::rtp::Packet;
use serde_json::{Value, json};

use crate::codec::Codec;
use crate::energy::Energy;
use crate::frame::{self, Picture};
use crate::order::{Next, Order};

/// Between requests for a key frame: time for one to come.
const REQUEST_INTERVAL: Duration = Duration::from_millis(500);
/// More packets than any picture has.
const LONGEST_PICTURE: usize = 1024;
/// Of what it complains about, for the report.
const MOST_FAULTS: usize = 20;

pub struct Remote {
    /// Nobody listens: the sound is only counted.
    is_deaf: bool,
    energy: Energy,
    heard: f64,
    order: Order,
    codec: Option<Codec>,
    payloads: Vec<Bytes>,
    timestamp: Option<u32>,
    last_id: Option<u16>,
    /// What is wrong with a picture that was broken off, unless a key frame comes next.
    broken_off: Option<String>,
    /// When the picture before was, and how much padding came since.
    seen: Option<u32>,
    padding: u32,
    /// Packets are missing, so that nothing said of the picture under way is anybody's fault.
    is_cut: bool,
    wants_key: bool,
    asked_at: Option<Instant>,
    packets: u64,
    frames: u64,
    key_frames: u64,
    undecodable: u64,
    size: Option<(u32, u32)>,
    faults: Vec<String>,
}

impl Remote {
    pub fn new(is_deaf: bool) -> Result<Self> {
        Ok(Self {
            is_deaf,
            energy: Energy::new()?,
            heard: 0.0,
            order: Order::default(),
            codec: None,
            payloads: Vec::new(),
            timestamp: None,
            last_id: None,
            broken_off: None,
            seen: None,
            padding: 0,
            is_cut: false,
            wants_key: true,
            asked_at: None,
            packets: 0,
            frames: 0,
            key_frames: 0,
            undecodable: 0,
            size: None,
            faults: Vec::new(),
        })
    }

    /// That its first picture may be no key frame is then nobody's fault.
    pub fn missed_its_beginning(&mut self) {
        self.is_cut = true;
    }

    /// Whether a key frame is to be asked for.
    pub fn take(&mut self, now: Instant, packet: Packet) -> bool {
        self.packets += 1;
        self.order.put(now, packet);
        while let Some(next) = self.order.take(now) {
            self.take_next(next);
        }
        let asks = self.wants_key
            && self.codec.is_some_and(Codec::is_video)
            && self.undecodable > 0
            && self.asked_at.is_none_or(|asked| now >= asked + REQUEST_INTERVAL);
        if asks {
            self.asked_at = Some(now);
        }
        asks
    }

    fn take_next(&mut self, Next { packet, missing }: Next) {
        let codec = Codec::by_payload_type(packet.header.payload_type);
        let Some(codec) = codec else {
            return self.fault(format!("payload type {}, which was not offered", packet.header.payload_type));
        };
        self.codec = Some(codec);
        if packet.payload.is_empty() {
            self.padding += 1;
            return;
        }
        if codec == Codec::Opus {
            return self.hear(&packet);
        }
        if missing > 0 {
            // Which picture it belonged to cannot be known.
            self.payloads.clear();
            (self.timestamp, self.last_id, self.broken_off) = (None, None, None);
            (self.is_cut, self.wants_key) = (true, true);
        }
        let timestamp = packet.header.timestamp;
        if let Some(last) = self.timestamp.filter(|last| *last != timestamp) {
            if !self.payloads.is_empty() {
                if matches!(codec, Codec::Vp9 | Codec::Av1) {
                    // On a busy machine Chromium begins its layered streams anew, with fewer layers: what its pacer still held
                    // of a picture is never sent, nor are pictures that it held whole, and a key frame comes next.
                    self.finish(codec, last, false);
                } else {
                    self.fault(format!("picture {last} has no marker"));
                    self.payloads.clear();
                    self.wants_key = true;
                }
            }
            if (timestamp.wrapping_sub(last) as i32) < 0 {
                self.fault(format!("timestamp {timestamp} after {last}"));
            }
        }
        self.timestamp = Some(timestamp);
        self.payloads.push(packet.payload);
        if packet.header.marker || self.payloads.len() == LONGEST_PICTURE {
            self.finish(codec, timestamp, true);
        }
    }

    /// The picture under way has all its packets, or the next began.
    fn finish(&mut self, codec: Codec, timestamp: u32, is_marked: bool) {
        let payloads = std::mem::take(&mut self.payloads);
        match frame::assemble(codec, &payloads) {
            Ok(picture) => self.see(&picture, timestamp),
            Err(error) => {
                (self.wants_key, self.last_id) = (true, None);
                self.undecodable += 1;
                let fault = Some(format!("picture {timestamp}: {error}")).filter(|_| !self.is_cut);
                let fault = if is_marked { fault } else { std::mem::replace(&mut self.broken_off, fault) };
                fault.into_iter().for_each(|fault| self.fault(fault));
            }
        }
        self.is_cut = false;
    }

    /// Counts what a decoder could show: key frames, and what follows them without a gap.
    fn see(&mut self, picture: &Picture, timestamp: u32) {
        let (seen, padding) = (self.seen.replace(timestamp), std::mem::take(&mut self.padding));
        if let Some(fault) = self.broken_off.take().filter(|_| !picture.is_key) {
            self.fault(fault);
        }
        if let Some((last, id)) = self.last_id.zip(picture.id) {
            let follows = [0x7fff, 0x7f].iter().any(|mask| id == (last + 1) & mask);
            // VP9's are the publisher's own, and it may have left pictures out before it began anew.
            let begins_anew = picture.is_key && self.codec == Some(Codec::Vp9);
            if !follows && !begins_anew {
                // Whether a picture is missing, and was left out on purpose, tells whose fault it is.
                let later = seen.map_or(0, |seen| timestamp.wrapping_sub(seen));
                self.fault(format!(
                    "picture id {id} after {last}: {later} later, {padding} of padding between"
                ));
            }
        }
        self.last_id = picture.id;
        if picture.is_key {
            self.key_frames += 1;
            self.wants_key = false;
            self.size = picture.size.or(self.size);
        }
        if self.wants_key {
            if self.frames == 0 && self.undecodable == 0 && !self.is_cut {
                self.fault("the first picture is no key frame".to_owned());
            }
            self.undecodable += 1;
        } else {
            self.frames += 1;
        }
    }

    fn hear(&mut self, packet: &Packet) {
        if self.is_deaf {
            self.frames += 1;
            return;
        }
        match self.energy.of(&packet.payload) {
            Ok(mean) => {
                self.frames += 1;
                self.heard += mean;
            }
            Err(error) => {
                self.undecodable += 1;
                self.fault(format!("sound: {error}"));
            }
        }
    }

    fn fault(&mut self, text: String) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(text);
        }
    }

    /// The figures, named as the suite names them.
    pub fn report(&self) -> Value {
        json!({
            "codec": self.codec.map(|codec| {
                format!("{}/{}", if codec.is_video() { "video" } else { "audio" }, codec.name())
            }),
            "packets": self.packets,
            "lost": self.order.lost,
            "duplicates": self.order.duplicates,
            "frames": self.frames,
            "keyFrames": self.key_frames,
            "undecodable": self.undecodable,
            "energy": self.heard,
            "width": self.size.map(|(width, _)| width),
            "height": self.size.map(|(_, height)| height),
            "faults": self.faults,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::Clip;

    #[expect(clippy::disallowed_methods, reason = "any instant serves")]
    fn now() -> Instant {
        Instant::now()
    }

    /// The packets of a clip's first pictures, 3000 ticks apart.
    fn packets(pictures: usize) -> Vec<Packet> {
        packets_of(Codec::Vp8, pictures)
    }

    fn packets_of(codec: Codec, pictures: usize) -> Vec<Packet> {
        let clip = Clip::pictures(codec).unwrap().remove(0);
        let mut payloader = codec.payloader();
        let mut packets = Vec::new();
        for (at, frame) in clip.frames[..pictures].iter().enumerate() {
            let payloads = payloader.payload(500, frame).unwrap();
            let last = payloads.len() - 1;
            for (piece, payload) in payloads.into_iter().enumerate() {
                let mut packet = Packet { payload, ..Packet::default() };
                packet.header.payload_type = codec.payload_type();
                packet.header.sequence_number = packets.len() as u16;
                packet.header.timestamp = at as u32 * 3000;
                packet.header.marker = piece == last;
                packets.push(packet);
            }
        }
        packets
    }

    fn watch(packets: impl IntoIterator<Item = Packet>) -> Remote {
        let mut remote = Remote::new(false).unwrap();
        for packet in packets {
            remote.take(now(), packet);
        }
        remote
    }

    /// Numbered anew, as a focus would that never sent what is left out.
    fn renumbered(mut packets: Vec<Packet>) -> Vec<Packet> {
        for (at, packet) in packets.iter_mut().enumerate() {
            packet.header.sequence_number = at as u16;
        }
        packets
    }

    #[test]
    fn finds_no_fault_with_whole_pictures() {
        let remote = watch(packets(10));
        assert!(remote.faults.is_empty(), "{:?}", remote.faults);
        assert_eq!((remote.frames, remote.key_frames, remote.size), (10, 1, Some((320, 180))));
    }

    #[test]
    fn names_what_is_wrong() {
        let at = |timestamp: u32| move |packet: &Packet| packet.header.timestamp != timestamp;
        let without = |keep: &dyn Fn(&Packet) -> bool| {
            renumbered(packets(6).into_iter().filter(|packet| keep(packet)).collect())
        };
        let mut unmarked = packets(6);
        for packet in &mut unmarked {
            packet.header.marker &= packet.header.timestamp != 6000;
        }
        let mut backwards = packets(6);
        for packet in backwards.iter_mut().filter(|packet| packet.header.timestamp == 9000) {
            packet.header.timestamp = 100;
        }
        for (wrong, fault) in [
            (without(&at(0)), "the first picture is no key frame"),
            (without(&at(6000)), "picture id 3 after 1: 6000 later, 0 of padding between"),
            (unmarked, "picture 6000 has no marker"),
            (backwards, "timestamp 100 after 6000"),
        ] {
            assert_eq!(watch(wrong).faults.first().map(String::as_str), Some(fault));
        }
    }

    #[test]
    fn a_picture_that_is_broken_off_is_a_fault_unless_a_key_frame_follows() {
        let first = packets_of(Codec::Vp9, 2);
        let of = |at: u32| first.iter().filter(move |packet| packet.header.timestamp == at * 3000).cloned();
        let at = |packets: Vec<Packet>, at: u32| {
            packets.into_iter().map(move |mut packet| {
                packet.header.timestamp = at * 3000;
                packet
            })
        };
        let mut cut: Vec<Packet> = of(0).collect();
        assert!(cut.len() > 1, "a key frame has several packets");
        cut.pop();
        for (next, faults) in [(of(0).collect::<Vec<_>>(), 0), (of(1).collect(), 1)] {
            let stream = of(0).chain(at(cut.clone(), 1)).chain(at(next, 2)).collect();
            let remote = watch(renumbered(stream));
            assert_eq!(remote.faults.len(), faults, "{:?}", remote.faults);
        }
    }

    #[test]
    fn after_a_loss_asks_for_a_key_frame_and_blames_nobody() {
        let mut packets = packets(20);
        packets.retain(|packet| packet.header.timestamp != 6000);
        let mut remote = Remote::new(false).unwrap();
        let (start, mut asked) = (now(), 0);
        for (at, packet) in packets.into_iter().enumerate() {
            asked += u32::from(remote.take(start + Duration::from_millis(60 * at as u64), packet));
        }
        assert!(remote.faults.is_empty(), "{:?}", remote.faults);
        assert!(asked > 0 && remote.order.lost > 0);
        assert_eq!(remote.frames, 2);
    }
}
