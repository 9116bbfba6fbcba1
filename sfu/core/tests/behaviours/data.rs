//! Data channel messages from one peer to another, through a control plane that passes on what it is told.

use bytes::Bytes;
use weir_core::stats::Drop;
use weir_stage::stage::{CONFERENCE, Stage, context, ms, secs};
use weir_transport::SendOutcome;
use weir_transport::testing::{Client, ClientEvent};
use weir_units::command::Command;
use weir_units::event::Event;

const LABEL: &str = "_reliable";

/// Peers with an open channel each. The second is the one that the others talk to.
fn stage(peers: usize) -> Stage {
    let mut stage = Stage::new(11);
    for _ in 0..peers {
        let at = stage.join();
        let now = stage.now;
        stage.clients[at].client.open_channel(now, LABEL, true, None);
    }
    stage.run(secs(2));
    stage
}

/// The control plane: what the others say goes to the second.
fn pass_on(stage: &mut Stage) -> usize {
    let to = stage.clients[1].id;
    let mut passed = 0;
    for (_, event) in std::mem::take(&mut stage.events) {
        if let Event::Data { label, payload, binary, .. } = event {
            passed += 1;
            stage.command(Command::SendData { peer: to, label, payload, binary });
        }
    }
    passed
}

fn message(number: usize) -> Bytes {
    Bytes::from([format!("{number:08}").into_bytes(), vec![b'.'; 15_000]].concat())
}

fn got(stage: &Stage, client: usize) -> Vec<Bytes> {
    let message = |event: &ClientEvent| match event {
        ClientEvent::Message { payload, .. } => Some(payload.clone()),
        _ => None,
    };
    stage.clients[client].events.iter().filter_map(message).collect()
}

#[test]
fn senders_wait_for_a_receiver_that_takes_less_than_they_send_and_nothing_is_lost() {
    let mut stage = stage(3);
    let count = 500; // of each: 15 MB together, nearly four times what is queued for a peer
    let mut sent = [0; 3];
    for _ in 0..20_000 {
        for sender in [0, 2] {
            while sent[sender] < count {
                let (now, number) = (stage.now, sender * 10_000 + sent[sender]);
                if stage.clients[sender].client.send(now, LABEL, message(number), true) != SendOutcome::Queued
                {
                    break;
                }
                sent[sender] += 1;
            }
        }
        stage.run(ms(10));
        pass_on(&mut stage);
        if got(&stage, 1).len() == 2 * count {
            break;
        }
    }
    assert_eq!(stage.dropped(Drop::ChannelFull), 0);
    let got = got(&stage, 1);
    for first in [0, 20_000] {
        let expected: Vec<Bytes> = (first..first + count).map(message).collect();
        let theirs: Vec<Bytes> = got.iter().filter(|message| expected.contains(message)).cloned().collect();
        assert!(theirs == expected, "{} of {count}", theirs.len());
    }
}

#[test]
fn messages_wait_while_the_control_plane_lags_and_come_when_it_does_not() {
    let mut stage = stage(2);
    let now = stage.now;
    stage.shard.hold_data(now, CONFERENCE, true);
    for number in 0..100 {
        stage.clients[0].client.send(now, LABEL, message(number), true);
    }
    stage.run(secs(5));
    assert_eq!(pass_on(&mut stage), 0);
    let now = stage.now;
    stage.shard.hold_data(now, CONFERENCE, false);
    for _ in 0..3_000 {
        stage.run(ms(10));
        pass_on(&mut stage);
    }
    assert!(got(&stage, 1) == (0..100).map(message).collect::<Vec<_>>(), "{} of 100", got(&stage, 1).len());
}

#[test]
fn a_peer_that_takes_nothing_holds_the_others_for_seconds_only() {
    let mut stage = stage(3);
    // The third starts over without a word: it understands nothing of what comes for it, and that piles up.
    let now = stage.now;
    let local = stage.clients[2].client.description(None).ice;
    stage.clients[2].client = Client::new(&context(), local, now);
    let peer = stage.clients[2].id;
    for number in 0..200 {
        let payload = message(number);
        stage.command(Command::SendData { peer, label: LABEL.to_owned(), payload, binary: true });
    }
    stage.clients[2].is_alive = false;
    stage.clients[0].client.send(now, LABEL, "hello".into(), true);
    stage.run(secs(4));
    assert_eq!(pass_on(&mut stage), 0, "waited for");
    stage.run(secs(6));
    assert_eq!(pass_on(&mut stage), 1, "waited for in vain");
}
