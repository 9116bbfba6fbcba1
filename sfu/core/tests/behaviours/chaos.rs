//! Anything, in any order, on a bad line: whatever happens, no subscriber sees anything wrong, and everybody sees
//! something soon after it is over.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use weir_stage::{Shape, Stage, ms, secs};
use weir_units::command::Command;
use weir_units::ids::{PublicationId, SubscriptionId};
use weir_units::media::{Codec, Layer, Wish};

struct Act {
    stage: Stage,
    rng: SmallRng,
    publications: Vec<PublicationId>,
    subscriptions: Vec<(usize, SubscriptionId)>,
    paused: Vec<SubscriptionId>,
}

impl Act {
    fn begin(seed: u64) -> Self {
        let mut stage = Stage::new(seed);
        let mut rng = SmallRng::seed_from_u64(seed);
        stage.line.jitter = ms(rng.random_range(0..30));
        stage.line.batch = ms(rng.random_range(0..3) * 10);
        let mut publications = Vec::new();
        for _ in 0..2 {
            let publisher = stage.join();
            let shape = match rng.random_range(0..7) {
                0 => Shape::vp8(),
                1 => Shape::h264(),
                2 => Shape::vp9_svc(),
                3 => Shape::av1_svc(),
                4 => Shape::opus(),
                5 => Shape { codec: Codec::Av1, temporal_layers: 2, ..Shape::vp8_simulcast() },
                _ => Shape::vp8_simulcast(),
            };
            let publication = stage.publish(publisher, shape);
            stage.source(publication).changes_structure = rng.random();
            publications.push(publication);
        }
        let mut act = Self { stage, rng, publications, subscriptions: Vec::new(), paused: Vec::new() };
        for _ in 0..3 {
            let client = act.stage.join();
            for at in 0..act.publications.len() {
                let subscription = act.stage.subscribe(client, act.publications[at]);
                act.subscriptions.push((client, subscription));
            }
        }
        act
    }

    fn step(&mut self) {
        let publication = self.publications[self.rng.random_range(0..self.publications.len())];
        let at = self.rng.random_range(0..self.subscriptions.len());
        let (client, subscription) = self.subscriptions[at];
        let stream = self.rng.random_range(0..self.stage.source(publication).streams.len());
        match self.rng.random_range(0..12) {
            0..4 => {
                let (spatial, temporal) = (self.rng.random_range(0..4), self.rng.random_range(0..4));
                let enabled = self.rng.random_bool(0.8);
                self.paused.retain(|known| *known != subscription);
                if !enabled {
                    self.paused.push(subscription);
                }
                let wish = Wish { enabled, max_layer: Layer { spatial, temporal }, ..Wish::default() };
                self.stage.command(Command::SetWish { subscription, wish });
            }
            4 => self.stage.source(publication).streams[stream].wants_key = true,
            5 => {
                let is_active = self.rng.random();
                self.stage.source(publication).streams[stream].is_active = is_active;
            }
            6 => {
                let ssrc = self.rng.random_range(1 << 24..1 << 30);
                self.stage.source(publication).restart(stream, ssrc);
            }
            7 => {
                self.stage.command(Command::Unsubscribe { subscription });
                let of = self.stage.receiver(subscription).publication;
                self.paused.retain(|known| *known != subscription);
                self.subscriptions[at].1 = self.stage.subscribe(client, of);
            }
            8 => {
                let media = self.stage.receiver(subscription).ssrc;
                self.stage.send_rtcp(client, |writer| writer.pli(1, media));
            }
            9 => {
                let is_paused = self.rng.random_bool(0.3);
                self.stage.source(publication).is_paused = is_paused;
                self.stage.command(Command::SetMuted { publication, muted: is_paused });
            }
            10 => {
                let loss = [0.0, 0.02, 0.1, 0.4][self.rng.random_range(0..4)];
                (self.stage.line.loss_up, self.stage.line.loss_down) = (loss, loss);
            }
            _ => {
                let publisher = self.publications.iter().position(|known| *known == publication).unwrap();
                self.stage.send_padding(publisher, 0);
            }
        }
        let wait = ms(self.rng.random_range(0..400));
        self.stage.run(wait);
    }

    /// Everything flows again, and clients that see nothing ask for a key frame, as they do.
    fn recover(&mut self) {
        (self.stage.line.loss_up, self.stage.line.loss_down) = (0.0, 0.0);
        for publication in self.publications.clone() {
            let source = self.stage.source(publication);
            source.is_paused = false;
            source.streams.iter_mut().for_each(|stream| stream.is_active = true);
            self.stage.command(Command::SetMuted { publication, muted: false });
        }
        for subscription in std::mem::take(&mut self.paused) {
            self.stage.command(Command::SetWish { subscription, wish: Wish::default() });
        }
        self.stage.run(secs(6)); // a layer that flapped is on probation for up to four seconds
        for (client, subscription) in self.subscriptions.clone() {
            let media = self.stage.receiver(subscription).ssrc;
            self.stage.send_rtcp(client, |writer| writer.pli(1, media));
        }
        self.stage.run(secs(2));
    }
}

#[test]
fn nothing_that_happens_shows_anybody_anything_wrong() {
    let seeds = std::env::var("WEIR_SEED").map_or(0..60, |seed| {
        let seed = seed.parse().expect("a number");
        seed..seed + 1
    });
    for seed in seeds {
        let mut act = Act::begin(seed);
        for _ in 0..40 {
            act.step();
        }
        act.recover();
        let now = act.stage.now;
        for (_, subscription) in &act.subscriptions {
            let playback = act.stage.playback(*subscription);
            let codec = act.stage.receiver(*subscription).codec;
            let about = format!("WEIR_SEED={seed}, {codec:?} at {subscription}");
            assert!(playback.faults.is_empty(), "{about}: {}", playback.faults[0]);
            let shown = playback.frames.iter().rev().find(|frame| frame.is_decoded);
            assert!(
                shown.is_some_and(|frame| frame.at + ms(300) > now),
                "{about} shows nothing, last {:?} ago {:?}",
                playback.frames.last().map(|frame| now - frame.at),
                shown.map(|frame| now - frame.at),
            );
        }
    }
}
