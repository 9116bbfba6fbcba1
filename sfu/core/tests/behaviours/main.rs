//! Whole behaviours of a shard, through its inputs and outputs alone. Begin reading at [`common`].

mod audio;
mod common;
mod egress;
mod forwarding;
mod hostile;
mod key_frames;
mod layers;
mod loss;
mod repair;
mod sessions;
