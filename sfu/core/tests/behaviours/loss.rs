//! A line that loses 3 % both ways for a minute.
use weir_stage::{Shape, Stage, ms, secs};

/// Packets of an encoding that never came to a subscriber, and how many were sent twice.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    packets: u64,
    lost: u64,
    missing: u64,
    repairs: u64,
    resent: u64,
    lost_up: u64,
    undecodable: u64,
    frames: u64,
}

fn lossy_minute(seed: u64, shape: Shape) -> Figures {
    let mut stage = Stage::new(seed);
    stage.line.jitter = ms(5);
    let publisher = stage.join();
    let publication = stage.publish(publisher, shape);
    let subscribers: Vec<_> = (0..3).map(|_| stage.join()).collect();
    let subscriptions: Vec<_> =
        subscribers.iter().map(|subscriber| stage.subscribe(*subscriber, publication)).collect();
    (stage.line.loss_up, stage.line.loss_down) = (0.03, 0.03);
    stage.run(secs(60));
    stage.settle();
    let mut figures = Figures { resent: stage.clients[publisher].resent, ..Figures::default() };
    let stats = stage.shard.stats().clone();
    figures.lost_up = stats.recovered + stats.lost;
    for subscription in subscriptions {
        let playback = stage.playback(subscription);
        assert!(playback.faults.is_empty(), "seed {seed}: {}", playback.faults[0]);
        let receiver = stage.receiver(subscription);
        figures.packets += receiver.packets.len() as u64;
        figures.lost += receiver.lost;
        figures.repairs += receiver.repairs + receiver.duplicates;
        figures.missing += playback.missing.len() as u64;
        figures.frames += playback.frames.len() as u64;
        figures.undecodable += (playback.frames.len() - playback.decoded()) as u64;
    }
    figures
}

#[test]
fn video_is_repaired_to_less_than_a_thousandth_without_waste() {
    for seed in 0..12 {
        let figures = lossy_minute(3_000 + seed, Shape::vp8());
        assert!(figures.missing * 1_000 < figures.packets, "seed {seed}: {figures:?}");
        assert!(figures.repairs < 2 * figures.lost, "seed {seed}: {figures:?}");
        assert!(figures.resent < 2 * figures.lost_up, "seed {seed}: {figures:?}");
        assert!(figures.undecodable * 100 < figures.frames, "seed {seed}: {figures:?}");
    }
}

#[test]
fn audio_is_repaired_to_less_than_a_thousandth() {
    for seed in 0..6 {
        let figures = lossy_minute(4_000 + seed, Shape::opus());
        assert!(figures.missing * 1_000 < figures.packets, "seed {seed}: {figures:?}");
    }
}
