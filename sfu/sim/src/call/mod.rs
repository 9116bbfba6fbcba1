//! Whole calls: the real forwarding plane between scripted clients, and what its subscribers see and hear.
//!
//! Publishers' cameras are encoders of three simulcast layers with three temporal layers each; they send beside audio. The
//! viewers sit behind one line, as in an office. Everything below the cameras is the shard's own: what is asserted after
//! a run is that no receiver could find anything wrong, and that nobody was sent more than was wished.

pub mod camera;
pub mod figures;
pub mod play;
pub mod plot;
pub mod recording;
pub mod scenario;
