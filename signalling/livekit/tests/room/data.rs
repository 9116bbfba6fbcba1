//! Data packets and data tracks: who gets them, under whose name, and how often.

use bytes::Bytes;
use livekit_protocol as proto;
use livekit_protocol::data_packet::{Kind, Value};
use livekit_protocol::leave_request::Action;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use prost::Message;
use weir_livekit::join::JoinParameters;
use weir_units::event::Event;

use crate::harness::{Joining, SECOND, World};
use crate::tracks::microphone;

fn chat(text: &str, sequence: u32, to: &[&str]) -> Vec<u8> {
    let user = proto::UserPacket {
        payload: text.as_bytes().to_vec(),
        topic: Some("chat".to_owned()),
        ..Default::default()
    };
    packet(Value::User(user), sequence, to)
}

fn packet(value: Value, sequence: u32, to: &[&str]) -> Vec<u8> {
    let destination_identities = to.iter().map(|identity| (*identity).to_owned()).collect();
    let packet =
        proto::DataPacket { value: Some(value), sequence, destination_identities, ..Default::default() };
    packet.encode_to_vec()
}

/// What somebody got: label, sender, and text of user packets.
fn got(world: &World, identity: &str) -> Vec<(String, String, String)> {
    let read = |(label, payload): &(String, Bytes)| {
        let packet = proto::DataPacket::decode(payload.clone()).unwrap();
        let Some(Value::User(user)) = packet.value else { panic!("{packet:?}") };
        assert_eq!(user.participant_identity, packet.participant_identity);
        (label.clone(), packet.participant_identity, String::from_utf8(user.payload).unwrap())
    };
    world.clients[identity].data.iter().map(read).collect()
}

fn texts(world: &World, identity: &str) -> Vec<String> {
    got(world, identity).into_iter().map(|(_, _, text)| text).collect()
}

#[test]
fn a_packet_goes_to_everybody_else_on_the_same_kind_of_channel() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.join_as(Joining::new("carol").dual()).unwrap();
    world.data("alice", "_reliable", chat("sure", 1, &[]));
    world.data("alice", "_lossy", chat("maybe", 0, &[]));
    for identity in ["bob", "carol"] {
        let expected = [("_reliable", "sure"), ("_lossy", "maybe")]
            .map(|(label, text)| (label.to_owned(), "alice".to_owned(), text.to_owned()));
        assert_eq!(got(&world, identity), expected);
        let packet = proto::DataPacket::decode(world.clients[identity].data[1].1.clone()).unwrap();
        assert_eq!(packet.kind(), Kind::Lossy);
        assert_eq!(packet.participant_sid, world.clients["alice"].sid());
    }
    assert!(world.clients["alice"].data.is_empty(), "never an echo");
}

#[test]
fn a_packet_with_destinations_goes_nowhere_else() {
    let mut world = World::new();
    for identity in ["alice", "bob", "carol", "dave"] {
        world.join(identity);
    }
    world.data("alice", "_reliable", chat("psst", 1, &["bob", "dave", "nobody"]));
    assert_eq!(texts(&world, "bob"), ["psst"]);
    assert_eq!(texts(&world, "dave"), ["psst"]);
    assert!(world.clients["carol"].data.is_empty());
}

#[test]
fn calls_answers_and_streams_go_through_as_they_are() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    let values = [
        Value::RpcRequest(proto::RpcRequest { id: "1".into(), method: "m".into(), ..Default::default() }),
        Value::RpcAck(proto::RpcAck { request_id: "1".into() }),
        Value::StreamHeader(proto::data_stream::Header { stream_id: "s".into(), ..Default::default() }),
        Value::StreamChunk(proto::data_stream::Chunk {
            stream_id: "s".into(),
            content: vec![0; 15_000],
            ..Default::default()
        }),
        Value::EncryptedPacket(proto::EncryptedPacket {
            encrypted_value: vec![9; 100],
            ..Default::default()
        }),
    ];
    for (sequence, value) in values.iter().enumerate() {
        world.data("alice", "_reliable", packet(value.clone(), sequence as u32 + 1, &["bob"]));
    }
    let got: Vec<_> = world.clients["bob"]
        .data
        .iter()
        .map(|(_, payload)| proto::DataPacket::decode(payload.clone()).unwrap().value.unwrap())
        .collect();
    assert_eq!(got, values);
}

#[test]
fn who_may_not_send_data_is_not_heard() {
    for (publish, data, heard) in
        [(None, None, 1), (None, Some(false), 0), (Some(false), None, 0), (Some(false), Some(true), 1)]
    {
        let mut world = World::new();
        let joining = Joining::new("alice").grant(|grant| {
            grant.can_publish = publish;
            grant.can_publish_data = data;
        });
        world.join_as(joining).unwrap();
        world.join("bob");
        world.data("alice", "_reliable", chat("hello", 1, &[]));
        assert_eq!(world.clients["bob"].data.len(), heard, "{publish:?} {data:?}");
        assert_eq!(world.room.counters.data_dropped, 1 - heard as u64);
    }
}

#[test]
fn the_hidden_speak_without_a_name() {
    let mut world = World::new();
    world.join_as(Joining::new("eve").grant(|grant| grant.hidden = true)).unwrap();
    world.join("bob");
    world.data("eve", "_reliable", chat("boo", 1, &[]));
    assert_eq!(got(&world, "bob")[0].1, "");
}

#[test]
fn what_comes_twice_is_passed_on_once() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    for sequence in [1, 2, 2, 1, 3] {
        world.data("alice", "_reliable", chat(&sequence.to_string(), sequence, &[]));
    }
    assert_eq!(texts(&world, "bob"), ["1", "2", "3"]);
    world.cut("alice");
    world.resume("alice");
    let Some(Response::Reconnect(reconnect)) = world.clients["alice"].heard.first() else {
        panic!("no reconnect")
    };
    assert_eq!(reconnect.last_message_seq, 3, "so that the client repeats what came later");
}

#[test]
fn channels_are_had_by_agreement_since_protocol_18_and_told_to_clients_with_two_peer_connections() {
    let mut world = World::new();
    let speaking = |protocol| move |parameters: &mut JoinParameters| parameters.client.protocol = protocol;
    world.join_as(Joining::new("old").with(speaking(17))).unwrap();
    assert_eq!(world.plane.channels, [], "it opens them itself");
    let mut opened = |joining: Joining| {
        world.join_as(joining).unwrap();
        let channels = std::mem::take(&mut world.plane.channels).into_iter();
        channels.map(|(_, label, stream)| (label, stream)).collect::<Vec<_>>()
    };
    let labels = ["_reliable", "_lossy", "_data_track"].map(str::to_owned);
    let agreed: Vec<_> = labels.clone().into_iter().zip([100, 101, 102].map(Some)).collect();
    assert_eq!(opened(Joining::new("new").with(speaking(18))), agreed);
    assert_eq!(opened(Joining::new("dual").dual().with(speaking(18))), labels.map(|label| (label, None)));
    world.publish("new", microphone("mic"));
    assert_eq!(world.plane.channels, [], "once is enough");
}

#[test]
fn what_is_reliable_waits_for_the_channel_to_open_and_what_is_lossy_does_not() {
    let mut world = World::new();
    world.join("alice");
    world.join_as(Joining::new("bob").unconnected()).unwrap();
    world.data("alice", "_reliable", chat("sure", 1, &[]));
    world.data("alice", "_lossy", chat("maybe", 0, &[]));
    world.connect("bob");
    assert_eq!(texts(&world, "bob"), ["sure"]);
}

#[test]
fn a_channel_that_never_opens_keeps_no_more_than_its_bound() {
    let mut world = World::new();
    world.join("alice");
    world.join_as(Joining::new("bob").unconnected()).unwrap();
    for sequence in 1..=100 {
        world.data("alice", "_reliable", chat(&"x".repeat(10_000), sequence, &[]));
    }
    assert!(world.room.counters.data_dropped > 70);
    world.connect("bob");
    let bytes: usize = world.clients["bob"].data.iter().map(|(_, payload)| payload.len()).sum();
    assert!((200_000..=256 * 1024).contains(&bytes), "{bytes}");
}

#[test]
fn who_comes_back_gets_what_it_says_it_missed() {
    let mut world = World::new();
    for identity in ["alice", "bob", "carol"] {
        world.join(identity);
    }
    world.data("alice", "_reliable", chat("1", 1, &[]));
    world.cut("bob");
    world.data("alice", "_reliable", chat("2", 2, &[]));
    world.data("alice", "_reliable", chat("not for bob", 3, &["carol"]));
    world.data("alice", "_reliable", chat("4", 4, &["bob"]));
    world.resume("bob");
    world.clients.get_mut("bob").unwrap().data.clear();
    let state = proto::DataChannelReceiveState { publisher_sid: world.clients["alice"].sid(), last_seq: 1 };
    let state = proto::SyncState { datachannel_receive_states: vec![state], ..Default::default() };
    world.says("bob", Request::SyncState(state.clone()));
    assert_eq!(texts(&world, "bob"), ["2", "4"]);
    world.advance(60 * SECOND);
    world.data("alice", "_reliable", chat("5", 5, &["carol"]));
    world.clients.get_mut("bob").unwrap().data.clear();
    world.says("bob", Request::SyncState(state));
    assert!(world.clients["bob"].data.is_empty(), "what is old is forgotten");
}

#[test]
fn garbage_and_other_channels_are_counted_and_dropped() {
    let mut world = World::new();
    world.join("alice");
    world.join("bob");
    world.data("alice", "_reliable", vec![0xff; 100]);
    world.data("alice", "_reliable", Vec::new());
    world.data("alice", "my own channel", chat("x", 1, &[]));
    world.data("alice", "_data_track", vec![0; 5]);
    assert_eq!(world.room.counters.data_dropped, 4);
    assert!(world.clients["bob"].data.is_empty());
    let peer = world.peers("alice")[0];
    for number in 0..1_000 {
        world.event(Event::ChannelOpen { peer, label: format!("channel {number}") });
    }
}

fn publish_data_track(world: &mut World, identity: &'static str, pub_handle: u32, name: &str) {
    let request = proto::PublishDataTrackRequest { pub_handle, name: name.to_owned(), ..Default::default() };
    world.says(identity, Request::PublishDataTrackRequest(request));
}

fn data_track_sid(world: &World, identity: &str) -> Option<String> {
    world.clients[identity].last(|message| match message {
        Response::PublishDataTrackResponse(response) => response.info.as_ref().map(|info| info.sid.clone()),
        _ => None,
    })
}

fn handles(world: &World, identity: &str) -> Vec<(u32, String)> {
    let handles = world.clients[identity].last(|message| match message {
        Response::DataTrackSubscriberHandles(handles) => Some(handles.sub_handles.clone()),
        _ => None,
    });
    let mut handles: Vec<_> = handles
        .unwrap_or_default()
        .into_iter()
        .map(|(handle, track)| (handle, track.publisher_identity))
        .collect();
    handles.sort();
    handles
}

/// A packet of a data track: flags, handle, sequence, frame number, timestamp, content.
fn track_packet(handle: u16) -> Vec<u8> {
    let mut packet = vec![0x18, 0];
    packet.extend(handle.to_be_bytes());
    packet.extend([0, 1, 0, 1, 0, 0, 0, 9]);
    packet.extend(b"content");
    packet
}

fn subscribe_data(world: &mut World, identity: &'static str, sid: &str, subscribe: bool) {
    let update = proto::update_data_subscription::Update {
        track_sid: sid.to_owned(),
        subscribe,
        ..Default::default()
    };
    let request = proto::UpdateDataSubscription { updates: vec![update] };
    world.says(identity, Request::UpdateDataSubscription(request));
}

#[test]
fn a_data_track_reaches_its_subscribers_under_their_own_handles() {
    let mut world = World::new();
    for identity in ["alice", "bob", "carol"] {
        world.join(identity);
    }
    publish_data_track(&mut world, "alice", 500, "pointer");
    let sid = data_track_sid(&world, "alice").unwrap();
    assert!(sid.starts_with("DTR_"));
    assert_eq!(world.clients["bob"].people["alice"].data_tracks[0].name, "pointer");
    subscribe_data(&mut world, "bob", &sid, true);
    let [(handle, publisher)] = &handles(&world, "bob")[..] else { panic!("one handle") };
    assert_eq!(publisher, "alice");
    world.data("alice", "_data_track", track_packet(500));
    let expected = ("_data_track".to_owned(), Bytes::from(track_packet(*handle as u16)));
    assert_eq!(world.clients["bob"].data, [expected], "all but the handle as it was");
    assert!(world.clients["carol"].data.is_empty());
    subscribe_data(&mut world, "bob", &sid, false);
    world.data("alice", "_data_track", track_packet(500));
    assert_eq!(world.clients["bob"].data.len(), 1);
    assert!(handles(&world, "bob").is_empty());
}

#[test]
fn data_tracks_are_refused_by_reason() {
    let mut world = World::new();
    world.join("alice");
    publish_data_track(&mut world, "alice", 1, "one");
    for (handle, name, reason) in [
        (0, "x", Reason::InvalidHandle),
        (65_536, "x", Reason::InvalidHandle),
        (2, "", Reason::InvalidName),
        (1, "x", Reason::DuplicateHandle),
        (2, "one", Reason::DuplicateName),
    ] {
        publish_data_track(&mut world, "alice", handle, name);
        assert_eq!(world.clients["alice"].verdict(), Some(reason));
    }
    publish_data_track(&mut world, "alice", 2, &"x".repeat(257));
    assert_eq!(world.clients["alice"].verdict(), Some(Reason::InvalidName));
    let request = proto::UnpublishDataTrackRequest { pub_handle: 9 };
    world.says("alice", Request::UnpublishDataTrackRequest(request));
    assert_eq!(world.clients["alice"].verdict(), Some(Reason::NotFound));
}

#[test]
fn a_data_track_ends_with_its_publisher_and_when_it_is_taken_back() {
    let mut world = World::new();
    world.join("alice");
    world.join_as(Joining::new("bob").with(|parameters| parameters.auto_subscribe_data = true)).unwrap();
    publish_data_track(&mut world, "alice", 1, "one");
    publish_data_track(&mut world, "alice", 2, "two");
    assert_eq!(handles(&world, "bob").len(), 2, "without asking");
    let request = proto::UnpublishDataTrackRequest { pub_handle: 1 };
    world.says("alice", Request::UnpublishDataTrackRequest(request));
    assert_eq!(handles(&world, "bob").len(), 1);
    assert_eq!(world.clients["bob"].people["alice"].data_tracks.len(), 1);
    world.says("alice", Request::Leave(proto::LeaveRequest::default()));
    assert!(handles(&world, "bob").is_empty());
}

#[test]
fn a_client_that_believes_in_a_data_track_that_is_not_starts_over() {
    let mut world = World::new();
    world.join("alice");
    publish_data_track(&mut world, "alice", 1, "one");
    let sid = data_track_sid(&world, "alice").unwrap();
    world.cut("alice");
    world.resume("alice");
    let state = |sid: &str| {
        let info = proto::DataTrackInfo { sid: sid.to_owned(), ..Default::default() };
        let published = proto::PublishDataTrackResponse { info: Some(info) };
        Request::SyncState(proto::SyncState { publish_data_tracks: vec![published], ..Default::default() })
    };
    world.says("alice", state(&sid));
    assert_eq!(world.clients["alice"].dismissal(), None);
    world.says("alice", state("DTR_none"));
    assert_eq!(world.clients["alice"].dismissal().unwrap().1, Action::Reconnect);
}
