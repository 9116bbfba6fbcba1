//! Tracks as clients announce them.

use livekit_protocol as proto;

pub fn microphone(cid: &str) -> proto::AddTrackRequest {
    proto::AddTrackRequest {
        cid: cid.to_owned(),
        name: cid.to_owned(),
        r#type: proto::TrackType::Audio as i32,
        source: proto::TrackSource::Microphone as i32,
        disable_red: true,
        ..Default::default()
    }
}

/// 720p in three layers.
pub fn camera(cid: &str) -> proto::AddTrackRequest {
    let layer = |quality, width, height| proto::VideoLayer { quality, width, height, ..Default::default() };
    let layers = vec![layer(0, 320, 180), layer(1, 640, 360), layer(2, 1280, 720)];
    video(cid, proto::TrackSource::Camera, "vp8", layers)
}

/// 1080p in one layer.
pub fn screen(cid: &str) -> proto::AddTrackRequest {
    let layer = proto::VideoLayer { quality: 2, width: 1920, height: 1080, ..Default::default() };
    video(cid, proto::TrackSource::ScreenShare, "vp8", vec![layer])
}

pub fn video(
    cid: &str,
    source: proto::TrackSource,
    codec: &str,
    layers: Vec<proto::VideoLayer>,
) -> proto::AddTrackRequest {
    let top = layers.last().cloned().unwrap_or_default();
    proto::AddTrackRequest {
        cid: cid.to_owned(),
        name: cid.to_owned(),
        r#type: proto::TrackType::Video as i32,
        source: source as i32,
        width: top.width,
        height: top.height,
        simulcast_codecs: vec![proto::SimulcastCodec {
            codec: codec.to_owned(),
            cid: cid.to_owned(),
            layers,
            ..Default::default()
        }],
        ..Default::default()
    }
}
