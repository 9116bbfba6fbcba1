//! A byte that says how the stream arrives in pieces, then the stream of an ICE-TCP connection.

use weir_transport::framing::{BadLength, Deframer, MAX_FRAME};

use crate::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let piece = 1 + usize::from(input.u8());
    let stream = input.rest();
    let (whole, whole_end) = frames(&[stream]);
    let (parted, parted_end) = frames(&stream.chunks(piece).collect::<Vec<_>>());
    assert_eq!(whole, parted, "the pieces a stream comes in do not matter");
    assert_eq!(whole_end, parted_end);
    let bytes: usize = whole.iter().map(|frame| 2 + frame.len()).sum();
    assert!(bytes <= stream.len());
    for frame in whole {
        assert!((1..=MAX_FRAME).contains(&frame.len()));
    }
}

fn frames(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<BadLength>) {
    let mut deframer = Deframer::default();
    let mut frames = Vec::new();
    for piece in pieces {
        deframer.push(piece);
        loop {
            match deframer.poll() {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(deframer.buffered() < 2 + MAX_FRAME, "no more than an incomplete frame waits");
    }
    (frames, None)
}
