use proptest::prelude::*;

use super::*;

fn layer(spatial: u8, temporal: u8) -> Option<Layer> {
    Some(Layer { spatial, temporal })
}

const FORWARD: Decision = Decision::Forward { marker: false };
const START: Decision = Decision::Start { marker: false };

mod simulcast {
    use super::*;

    fn selector(target: Option<Layer>) -> Selector {
        let mut selector = Selector::new(Mode::Simulcast { encodings: 3 });
        selector.set_target(target);
        selector
    }

    fn key(encoding: u8, sequence: u64) -> PacketFacts {
        let timestamp = sequence as u32;
        PacketFacts { encoding, sequence, timestamp, key_frame_start: true, ..PacketFacts::default() }
    }

    fn delta(encoding: u8, sequence: u64, temporal: u8) -> PacketFacts {
        PacketFacts { temporal, key_frame_start: false, ..key(encoding, sequence) }
    }

    fn sync(encoding: u8, sequence: u64, temporal: u8) -> PacketFacts {
        PacketFacts { step_up: StepUp::WithThis, ..delta(encoding, sequence, temporal) }
    }

    #[test]
    fn nothing_passes_before_a_key_frame() {
        let mut selector = selector(layer(2, 2));
        assert_eq!(selector.wants_key_frame(), Some(2));
        assert_eq!(selector.select(&delta(2, 10, 0)), Decision::Wait);
        assert_eq!(selector.select(&key(2, 11)), START);
        assert_eq!(selector.select(&delta(2, 12, 0)), FORWARD);
        assert_eq!(selector.wants_key_frame(), None);
        assert_eq!(selector.layer(), layer(2, 2));
    }

    #[test]
    fn what_nobody_can_decode_passes_neither_in_order_nor_late() {
        let mut selector = selector(layer(2, u8::MAX));
        let lost = |sequence| PacketFacts { spatial: NO_LAYER, ..delta(2, sequence, 0) };
        assert_eq!(selector.select(&key(2, 10)), START);
        assert_eq!(selector.select(&lost(12)), Decision::Drop);
        assert_eq!(selector.select(&lost(11)), Decision::Drop);
        assert_eq!(selector.select(&delta(2, 13, 0)), FORWARD, "it is no cut");
        assert_eq!(selector.wants_key_frame(), None);
    }

    #[test]
    fn a_lesser_encoding_serves_until_the_wanted_one_comes() {
        let mut selector = selector(layer(1, 2));
        assert_eq!(selector.select(&key(2, 5)), Decision::Wait, "more than is granted");
        assert_eq!(selector.select(&key(0, 10)), START);
        assert_eq!(selector.wants_key_frame(), Some(1));
        assert_eq!(selector.select(&delta(0, 11, 0)), FORWARD);
        assert_eq!(selector.select(&key(1, 90)), START);
        assert_eq!(selector.wants_key_frame(), None);
    }

    #[test]
    fn switches_at_the_key_frame_of_the_target_only() {
        let mut selector = selector(layer(2, 2));
        selector.select(&key(2, 10));
        selector.set_target(layer(0, 2));
        assert_eq!(selector.wants_key_frame(), Some(0));
        assert_eq!(selector.select(&delta(0, 50, 0)), Decision::Wait);
        assert_eq!(selector.select(&key(1, 70)), Decision::Wait);
        assert_eq!(selector.select(&key(2, 11)), FORWARD, "the old one goes on meanwhile");
        assert_eq!(selector.select(&key(0, 51)), START);
        assert_eq!(selector.select(&delta(2, 12, 0)), Decision::Wait);
        assert_eq!(selector.encoding(), Some(0));
    }

    #[test]
    fn late_packets_of_the_encoding_that_was_left_may_fill_their_place() {
        let mut selector = selector(layer(2, 2));
        selector.select(&key(2, 10));
        selector.select(&delta(2, 12, 0));
        selector.set_target(layer(0, 2));
        selector.select(&key(0, 51));
        assert_eq!(selector.select(&delta(2, 11, 0)), FORWARD);
        assert_eq!(selector.select(&delta(2, 13, 0)), Decision::Wait);
    }

    #[test]
    fn a_picture_left_out_before_its_encoding_was_left_stays_left_out() {
        let mut selector = selector(layer(1, 0));
        selector.select(&key(1, 10));
        assert_eq!(selector.select(&delta(1, 12, 1)), Decision::Drop, "its first packet, 11, is missing");
        selector.set_target(layer(1, 2));
        assert_eq!(selector.select(&sync(1, 13, 1)), FORWARD);
        selector.set_target(layer(0, 2));
        selector.select(&key(0, 51));
        assert_eq!(selector.select(&delta(1, 11, 1)), Decision::Drop);
        assert_eq!(selector.select(&delta(1, 14, 0)), Decision::Wait);
    }

    #[test]
    fn more_than_is_published_means_the_best() {
        let mut selector = selector(Some(Layer::MAX));
        assert_eq!(selector.wants_key_frame(), Some(2));
        selector.select(&key(2, 10));
        assert_eq!(selector.wants_key_frame(), None);
    }

    #[test]
    fn a_pause_ends_with_a_key_frame() {
        let mut selector = selector(layer(2, 2));
        selector.select(&key(2, 10));
        selector.set_target(None);
        let rest = PacketFacts { sequence: 11, key_frame_start: false, marker: true, ..key(2, 10) };
        assert_eq!(selector.select(&rest), Decision::Forward { marker: true }, "no picture is cut");
        assert_eq!(selector.select(&delta(2, 12, 0)), Decision::Wait);
        assert_eq!((selector.wants_key_frame(), selector.layer()), (None, None));
        assert_eq!(selector.select(&key(2, 13)), Decision::Wait);
        selector.set_target(layer(2, 2));
        assert_eq!(selector.select(&delta(2, 14, 0)), Decision::Wait);
        assert_eq!(selector.select(&key(2, 15)), START);
    }

    #[test]
    fn who_leaves_finishes_its_picture_and_comes_back_with_a_key_frame_only() {
        let mut selector = selector(layer(2, 2));
        selector.select(&key(2, 10));
        assert!(!selector.leave(), "it is what is aimed for");
        selector.set_target(layer(0, 2));
        assert!(selector.leave());
        let rest = PacketFacts { sequence: 11, key_frame_start: false, marker: true, ..key(2, 10) };
        assert!(selector.concerns(2, rest.timestamp) && selector.concerns(0, 1));
        assert!(!selector.concerns(2, rest.timestamp + 3_000), "the next picture of what is left");
        assert_eq!(selector.select(&rest), Decision::Forward { marker: true });
        selector.set_target(layer(2, 2));
        assert_eq!(selector.select(&delta(2, 12, 0)), Decision::Wait, "some may have been left out by then");
        assert_eq!(selector.wants_key_frame(), Some(2));
        assert_eq!(selector.select(&key(2, 13)), START);
    }

    #[test]
    fn nobody_leaves_a_lesser_picture_before_the_better_one_comes() {
        let mut selector = selector(layer(2, 2));
        selector.select(&key(0, 10));
        selector.set_target(layer(1, 2));
        assert!(!selector.leave());
        assert_eq!(selector.select(&delta(0, 11, 0)), FORWARD);
        assert_eq!(selector.select(&key(1, 12)), START);
    }

    #[test]
    fn a_restarted_source_needs_a_key_frame() {
        let mut selector = selector(layer(0, 2));
        selector.select(&key(0, 10));
        selector.restart();
        assert_eq!(selector.wants_key_frame(), Some(0));
        assert_eq!(selector.select(&delta(0, 1_000_000, 0)), Decision::Wait);
        assert_eq!(selector.select(&key(0, 1_000_001)), START);
    }

    #[test]
    fn padding_is_left_out() {
        let mut selector = selector(layer(0, 2));
        let padding = |sequence| PacketFacts { is_padding: true, ..delta(0, sequence, 0) };
        assert_eq!(selector.select(&padding(9)), Decision::Wait);
        selector.select(&key(0, 10));
        assert_eq!(selector.select(&padding(11)), Decision::Drop);
        assert_eq!(selector.select(&padding(8)), Decision::Drop);
    }

    #[test]
    fn temporal_layers_go_at_the_next_picture() {
        let mut selector = selector(layer(0, 2));
        selector.select(&key(0, 10));
        assert_eq!(selector.select(&delta(0, 11, 2)), FORWARD);
        selector.set_target(layer(0, 0));
        let same_picture = PacketFacts { timestamp: 11, ..delta(0, 12, 2) };
        assert_eq!(selector.select(&same_picture), FORWARD, "a picture is not cut within");
        assert_eq!(selector.select(&delta(0, 13, 1)), Decision::Drop);
        assert_eq!(selector.select(&delta(0, 14, 0)), FORWARD);
    }

    #[test]
    fn temporal_layers_come_back_one_by_one_where_a_sync_frame_allows() {
        let mut selector = selector(layer(0, 0));
        selector.select(&key(0, 10));
        assert_eq!(selector.select(&delta(0, 11, 2)), Decision::Drop);
        assert_eq!(selector.select(&delta(0, 12, 1)), Decision::Drop);
        selector.set_target(layer(0, 2));
        assert_eq!(selector.select(&delta(0, 13, 1)), Decision::Drop, "refers to what was left out");
        assert_eq!(selector.select(&sync(0, 14, 2)), Decision::Drop, "the layer between is still missing");
        assert_eq!(selector.layer(), layer(0, 0));
        assert_eq!(selector.select(&sync(0, 15, 1)), FORWARD);
        assert_eq!(selector.select(&delta(0, 16, 2)), Decision::Drop);
        assert_eq!(selector.select(&sync(0, 17, 2)), FORWARD);
        assert_eq!(selector.select(&delta(0, 18, 2)), FORWARD);
        assert_eq!(selector.layer(), layer(0, 2));
        assert_eq!(selector.wants_key_frame(), None, "never for temporal layers alone");
    }

    #[test]
    fn a_key_frame_brings_all_temporal_layers_back() {
        let mut selector = selector(layer(0, 0));
        selector.select(&key(0, 10));
        selector.select(&delta(0, 11, 1));
        selector.set_target(layer(0, 2));
        assert_eq!(selector.select(&key(0, 12)), FORWARD);
        assert_eq!(selector.select(&delta(0, 13, 2)), FORWARD);
    }

    #[test]
    fn a_layer_of_which_nothing_was_left_out_comes_back_at_once() {
        let mut selector = selector(layer(0, 2));
        selector.select(&key(0, 10));
        selector.set_target(layer(0, 0));
        selector.select(&delta(0, 11, 0));
        selector.set_target(layer(0, 2));
        assert_eq!(selector.select(&delta(0, 12, 1)), FORWARD);
    }

    #[test]
    fn a_late_packet_of_a_layer_left_out_is_left_out_too() {
        let mut selector = selector(layer(0, 1));
        selector.select(&key(0, 10));
        selector.select(&delta(0, 20, 2));
        assert_eq!(selector.select(&delta(0, 15, 2)), Decision::Drop);
        assert_eq!(selector.select(&delta(0, 16, 1)), FORWARD);
    }
}

mod layered {
    use super::*;

    /// The second layer's frame of two packets is the last that passes, and the first packet of it is late.
    #[test]
    fn a_picture_that_was_left_ends_where_it_did() {
        let mut selector = Selector::new(Mode::Layered);
        selector.set_target(layer(1, 2));
        let packet = |sequence, spatial, frame_end| PacketFacts {
            sequence,
            timestamp: 3_000,
            spatial,
            frame_end,
            key_frame_start: sequence == 10,
            ..PacketFacts::default()
        };
        let last = packet(12, 1, true);
        assert_eq!(selector.select(&packet(10, 0, true)), START);
        assert_eq!(selector.select(&packet(11, 1, false)), FORWARD);
        assert_eq!(selector.select(&packet(13, 2, true)), Decision::Drop);
        selector.restart();
        assert_eq!(selector.select(&last), Decision::Forward { marker: true });
    }

    #[test]
    fn what_is_under_way_of_a_source_that_began_anew_ends_its_picture() {
        let mut selector = Selector::new(Mode::Layered);
        selector.set_target(layer(3, 3));
        let facts = |sequence, timestamp, key_frame_start| PacketFacts {
            sequence,
            timestamp,
            key_frame_start,
            ..PacketFacts::default()
        };
        selector.select(&facts(10, 3_000, true));
        selector.end();
        assert_eq!(
            selector.select(&PacketFacts { marker: true, ..facts(11, 3_000, false) }),
            Decision::Forward { marker: true }
        );
        assert_eq!(selector.select(&facts(1 << 20, 77, false)), Decision::Wait);
        assert_eq!(selector.wants_key_frame(), Some(0));
        assert_eq!(selector.select(&facts((1 << 20) + 9, 3_077, true)), START);
    }

    /// A stream of `spatial` layers in pictures of one packet a layer.
    struct Stream {
        sequence: u64,
        picture: u32,
        spatial: u8,
    }

    impl Stream {
        fn new(spatial: u8) -> Self {
            Self { sequence: 100, picture: 0, spatial }
        }

        fn picture(&mut self, is_key: bool, temporal: u8, step_up: StepUp) -> Vec<PacketFacts> {
            self.picture += 3000;
            (0..self.spatial)
                .map(|spatial| {
                    self.sequence += 1;
                    PacketFacts {
                        sequence: self.sequence,
                        timestamp: self.picture,
                        marker: spatial + 1 == self.spatial,
                        key_frame_start: is_key && spatial == 0,
                        frame_end: true,
                        spatial,
                        temporal,
                        step_up,
                        ..PacketFacts::default()
                    }
                })
                .collect()
        }
    }

    fn feed(selector: &mut Selector, packets: &[PacketFacts]) -> Vec<Decision> {
        packets.iter().map(|packet| selector.select(packet)).collect()
    }

    const MARKED: Decision = Decision::Forward { marker: true };

    fn started(target: Option<Layer>) -> (Selector, Stream) {
        let (mut selector, mut stream) = (Selector::new(Mode::Layered), Stream::new(3));
        selector.set_target(target);
        let key = stream.picture(true, 0, StepUp::AfterThis);
        assert!(matches!(feed(&mut selector, &key)[0], Decision::Start { .. }));
        (selector, stream)
    }

    #[test]
    fn upper_spatial_layers_are_left_out_and_the_picture_ends_below_them() {
        let (mut selector, mut stream) = started(layer(1, 2));
        let delta = stream.picture(false, 0, StepUp::No);
        assert_eq!(feed(&mut selector, &delta), [FORWARD, MARKED, Decision::Drop]);
        assert_eq!(selector.layer(), layer(1, 2));
        assert_eq!(selector.wants_key_frame(), None);
    }

    #[test]
    fn all_layers_pass_with_the_marker_they_have() {
        let (mut selector, mut stream) = started(Some(Layer::MAX));
        let delta = stream.picture(false, 0, StepUp::No);
        assert_eq!(feed(&mut selector, &delta), [FORWARD, FORWARD, MARKED]);
        stream.spatial = 2; // the publisher stopped the highest
        let delta = stream.picture(false, 0, StepUp::No);
        assert_eq!(feed(&mut selector, &delta), [FORWARD, MARKED]);
    }

    #[test]
    fn only_the_last_packet_of_the_top_layer_is_marked() {
        let (mut selector, mut stream) = started(layer(0, 0));
        let mut delta = stream.picture(false, 0, StepUp::No);
        delta[0].frame_end = false;
        assert_eq!(selector.select(&delta[0]), FORWARD);
        assert_eq!(selector.select(&PacketFacts { spatial: 0, frame_end: true, ..delta[1] }), MARKED);
    }

    #[test]
    fn spatial_layers_go_between_pictures() {
        let (mut selector, mut stream) = started(layer(2, 2));
        let delta = stream.picture(false, 0, StepUp::No);
        assert_eq!(selector.select(&delta[0]), FORWARD);
        selector.set_target(layer(0, 2));
        assert_eq!(feed(&mut selector, &delta[1..]), [FORWARD, MARKED]);
        let delta = stream.picture(false, 0, StepUp::No);
        assert_eq!(feed(&mut selector, &delta), [MARKED, Decision::Drop, Decision::Drop]);
    }

    #[test]
    fn spatial_layers_come_back_at_a_key_frame() {
        let (mut selector, mut stream) = started(layer(0, 2));
        let delta = stream.picture(false, 0, StepUp::No);
        feed(&mut selector, &delta);
        selector.set_target(layer(2, 2));
        assert_eq!(selector.wants_key_frame(), Some(0));
        let delta = stream.picture(false, 0, StepUp::No);
        assert_eq!(feed(&mut selector, &delta), [MARKED, Decision::Drop, Decision::Drop]);
        let key = stream.picture(true, 0, StepUp::No);
        assert_eq!(feed(&mut selector, &key), [FORWARD, FORWARD, MARKED]);
        assert_eq!(selector.wants_key_frame(), None);
    }

    #[test]
    fn a_layer_the_publisher_adds_passes_without_a_key_frame_of_ours() {
        let (mut selector, mut stream) = started(layer(2, 2));
        stream.spatial = 2;
        let delta = stream.picture(false, 0, StepUp::No);
        feed(&mut selector, &delta);
        stream.spatial = 3;
        let delta = stream.picture(false, 0, StepUp::No);
        assert_eq!(feed(&mut selector, &delta), [FORWARD, FORWARD, MARKED]);
    }

    #[test]
    fn temporal_layers_come_back_after_a_switching_up_point() {
        let (mut selector, mut stream) = started(layer(2, 0));
        let picture = stream.picture(false, 1, StepUp::No);
        assert_eq!(feed(&mut selector, &picture), [Decision::Drop; 3]);
        selector.set_target(layer(2, 2));
        let picture = stream.picture(false, 1, StepUp::AfterThis);
        assert_eq!(
            feed(&mut selector, &picture),
            [Decision::Drop; 3],
            "this one may refer to what was left out"
        );
        let picture = stream.picture(false, 0, StepUp::AfterThis);
        assert_eq!(feed(&mut selector, &picture), [FORWARD, FORWARD, MARKED]);
        let picture = stream.picture(false, 2, StepUp::No);
        assert_eq!(feed(&mut selector, &picture), [FORWARD, FORWARD, MARKED]);
    }

    fn frame(number: u16, temporal: u8, diffs: &[u16]) -> PacketFacts {
        let mut references = References { frame: number, count: diffs.len() as u8, ..References::default() };
        references.diffs[..diffs.len()].copy_from_slice(diffs);
        PacketFacts {
            sequence: 1000 + u64::from(number.wrapping_sub(65_530)),
            timestamp: u32::from(number),
            key_frame_start: diffs.is_empty(),
            frame_end: true,
            marker: true,
            temporal,
            references: Some(references),
            ..PacketFacts::default()
        }
    }

    #[test]
    fn known_references_decide_when_a_temporal_layer_comes_back() {
        let mut selector = Selector::new(Mode::Layered);
        selector.set_target(layer(0, 0));
        assert!(matches!(selector.select(&frame(65_533, 0, &[])), Decision::Start { .. }));
        assert_eq!(selector.select(&frame(65_534, 1, &[1])), Decision::Drop);
        selector.set_target(layer(0, 2));
        assert_eq!(selector.select(&frame(65_535, 1, &[1])), Decision::Drop, "it needs the frame left out");
        assert_eq!(selector.select(&frame(0, 2, &[1])), Decision::Drop, "so does what needs that");
        assert_eq!(selector.select(&frame(1, 1, &[4])), MARKED, "this one refers to the key frame");
        assert_eq!(selector.select(&frame(2, 2, &[1])), MARKED);
    }

    #[test]
    fn a_lost_frame_is_not_one_left_out() {
        let mut selector = Selector::new(Mode::Layered);
        selector.set_target(layer(0, 2));
        selector.select(&frame(10, 0, &[]));
        assert_eq!(selector.select(&frame(12, 0, &[1])), MARKED, "11 may still come");
        assert_eq!(selector.select(&frame(11, 0, &[1])), MARKED);
    }

    #[test]
    fn history_across_a_long_gap_is_not_confused() {
        let mut selector = Selector::new(Mode::Layered);
        selector.set_target(layer(0, 0));
        selector.select(&frame(10, 0, &[]));
        selector.select(&frame(11, 1, &[1]));
        selector.set_target(layer(0, 2));
        assert_eq!(selector.select(&frame(11 + HISTORY, 1, &[HISTORY - 1])), MARKED);
        assert_eq!(selector.select(&frame(11 + 2 * HISTORY, 1, &[HISTORY])), MARKED, "too far back to know");
    }
}

/// A decoder that knows what every frame needs: what passes must be decodable, down to the last reference.
mod decodable {
    use super::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Copy, Debug)]
    struct Frame {
        number: u16,
        spatial: u8,
        temporal: u8,
        is_key: bool,
        step_up: StepUp,
        /// By number.
        needs: [Option<u16>; 3],
    }

    /// L3T3 as libwebrtc and libvpx send it: temporal pattern 0 2 1 2; each frame needs the one below it in its
    /// picture and, in time, the last frame of its spatial layer that its pattern names. With `syncs`, the first
    /// frames of T1 and T2 in each pattern refer to the base layer only, as they do in reality; without, to the
    /// last of their own layer.
    fn stream(pictures: u16, spatial: u8, keys: &BTreeSet<u16>, syncs: &BTreeSet<u16>) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut last = [[None::<u16>; 3]; 3]; // by spatial, temporal
        let (mut number, mut phase) = (0_u16, 0);
        for picture in 0..pictures {
            let is_key = picture == 0 || keys.contains(&picture);
            phase = if is_key { 0 } else { phase + 1 };
            let temporal = [0_u8, 2, 1, 2][phase % 4];
            let is_sync = syncs.contains(&(picture / 4)) && phase % 4 != 3;
            for layer in 0..spatial {
                let own = &mut last[usize::from(layer)];
                if is_key {
                    *own = [None; 3];
                }
                let below = (layer > 0).then(|| number.wrapping_sub(1));
                let needs = match temporal {
                    0 => [below, own[0], None],
                    _ if is_sync => [below, own[0], None],
                    1 => [below, own[0], own[1]],
                    _ => [below, own[1].or(own[0]), own[2]],
                };
                own[usize::from(temporal)] = Some(number);
                // After a base frame that is a switching point nothing above refers to what came before it.
                if temporal == 0 && is_sync {
                    (own[1], own[2]) = (None, None);
                }
                let step_up = match (spatial, temporal, is_sync) {
                    (1, 1.., true) => StepUp::WithThis,
                    (2.., 0, true) => StepUp::AfterThis,
                    _ => StepUp::No,
                };
                frames.push(Frame { number, spatial: layer, temporal, is_key, step_up, needs });
                number = number.wrapping_add(1);
            }
        }
        frames
    }

    fn check(frames: &[Frame], targets: &[(usize, Option<Layer>)], with_references: bool, packets: u64) {
        let layered = frames.iter().any(|frame| frame.spatial > 0);
        let mode = if layered { Mode::Layered } else { Mode::Simulcast { encodings: 1 } };
        let mut selector = Selector::new(mode);
        let mut passed = BTreeSet::new();
        let (mut sequence, mut marked, mut picture) = (70_000, true, 0);
        for (at, frame) in frames.iter().enumerate() {
            if frame.spatial == 0 {
                picture += 3000;
                marked = false;
            }
            for &(_, target) in targets.iter().filter(|target| target.0 == at) {
                selector.set_target(target);
            }
            let is_last = frames.get(at + 1).is_none_or(|next| next.spatial == 0);
            let mut fates = BTreeSet::new();
            for packet in 0..packets {
                sequence += 1;
                let mut references = References { frame: frame.number, ..References::default() };
                for needed in frame.needs.iter().flatten() {
                    references.diffs[usize::from(references.count)] = frame.number.wrapping_sub(*needed);
                    references.count += 1;
                }
                let facts = PacketFacts {
                    sequence,
                    timestamp: picture,
                    marker: is_last && packet + 1 == packets,
                    key_frame_start: frame.is_key && frame.spatial == 0 && packet == 0,
                    frame_end: packet + 1 == packets,
                    spatial: frame.spatial,
                    temporal: frame.temporal,
                    step_up: frame.step_up,
                    references: with_references.then_some(references),
                    ..PacketFacts::default()
                };
                let decision = selector.select(&facts);
                let passes = match decision {
                    Decision::Start { marker } | Decision::Forward { marker } => {
                        assert!(!marked, "nothing follows the marker in a picture: {frame:?}");
                        marked |= marker;
                        true
                    }
                    Decision::Drop | Decision::Wait => false,
                };
                if matches!(decision, Decision::Start { .. }) {
                    passed.clear();
                }
                fates.insert(passes);
            }
            assert!(fates.len() == 1 || selector.target().is_none(), "a frame passes whole: {frame:?}");
            if fates.contains(&true) {
                for needed in frame.needs.iter().flatten() {
                    assert!(passed.contains(needed), "{frame:?} needs {needed}, which was left out");
                }
                passed.insert(frame.number);
            }
        }
    }

    fn targets(frames: usize) -> impl Strategy<Value = Vec<(usize, Option<Layer>)>> {
        let target = prop::option::weighted(0.9, (0..3_u8, 0..3_u8))
            .prop_map(|found| found.map(|(spatial, temporal)| Layer { spatial, temporal }));
        proptest::collection::vec((0..frames, target), 0..20).prop_map(|mut targets| {
            targets.insert(0, (0, Some(Layer::MAX)));
            targets
        })
    }

    fn some_of(pictures: u16, share: usize) -> impl Strategy<Value = BTreeSet<u16>> {
        proptest::collection::btree_set(0..pictures, 0..share)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn whatever_passes_of_temporal_layers(
            keys in some_of(100, 5), syncs in some_of(25, 25), targets in targets(100), with_references: bool,
        ) {
            check(&stream(100, 1, &keys, &syncs), &targets, with_references, 2);
        }

        #[test]
        fn whatever_passes_of_spatial_layers(
            keys in some_of(100, 5), syncs in some_of(25, 25), targets in targets(300), with_references: bool,
        ) {
            check(&stream(100, 3, &keys, &syncs), &targets, with_references, 2);
        }
    }
}
