//! Packets of a publisher reach its subscribers, each on a stream of its own.

use weir_units::event::Event;

use super::common::{Shape, Stage, secs};

#[test]
fn every_subscriber_gets_every_picture() {
    for shape in
        [Shape::vp8(), Shape::h264(), Shape::vp9_svc(), Shape::av1_svc(), Shape::opus(), Shape::red()]
    {
        let mut stage = Stage::new(1);
        let publisher = stage.join();
        let publication = stage.publish(publisher, shape.clone());
        let subscriptions: Vec<_> = (0..5)
            .map(|_| {
                let client = stage.join();
                stage.subscribe(client, publication)
            })
            .collect();
        stage.run(secs(5));
        for subscription in subscriptions {
            let playback = stage.playback(subscription);
            playback.assert_seamless();
            let least = if shape.is_video() { 140 } else { 240 };
            assert!(playback.frames.len() >= least, "{:?}: {} frames", shape.codec, playback.frames.len());
            assert!(stage.has_event(&Event::SubscriptionStarted { subscription }));
        }
        assert!(stage.has_event(&Event::PublicationStarted { publication }));
    }
}
