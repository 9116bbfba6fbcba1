//! Whole behaviours of a shard, through its inputs and outputs alone. The stage is the crate `weir-stage`.

#![expect(clippy::unwrap_used, reason = "tests may unwrap; clippy takes the helpers of these for other code")]

mod audio;
mod chaos;
mod codecs;
mod crowd;
mod data;
mod egress;
mod feedback;
mod forwarding;
mod hostile;
mod key_frames;
mod layers;
mod loss;
mod rate;
mod repair;
mod sessions;
mod structures;
