//! Whole behaviours of a shard, through its inputs and outputs alone. Begin reading at [`common`].

mod common;
mod forwarding;
