//! What one peer's line can carry, from transport-wide feedback; and, roughly, from what other peers report ([`Reported`]).
//!
//! Congestion control as the field knows it (draft-ietf-rmcat-gcc and what its authors run since), in small parts that
//! can be tested and explained one by one. Sans-IO: no clock, socket, randomness or queue of packets; time is passed
//! in, and nothing is allocated for a packet once the buffers have grown. This crate knows [`weir_rtp`]'s feedback and
//! nothing else of ours; what is sent at the rate, and which layers, is decided elsewhere.
//!
//! ```text
//!  on_sent ──► history ◄── on_feedback
//!                 │ each packet: sent, arrived or lost
//!     ┌───────────┼──────────┬──────────────┬────────────┐
//!  grouping    queue    acknowledged      loss         probe
//!     │        delay         │              │            │
//!   trend        │           │              │            │
//!     └──────────┴────► control ◄───────────┼────────────┘ proven rates
//!                           └──────► target ┘ min
//! ```
//!
//! Drive an [`Estimator`] so: [`Estimator::on_sent`] numbers each packet that leaves; [`Estimator::on_feedback`] takes
//! what comes back; then ask [`Estimator::target`] for the [`Pacer`], which says when packets may go,
//! [`Estimator::sustainable`] for choosing layers, and [`Estimator::poll_probe`]; and call
//! [`Estimator::handle_timeout`] when [`Estimator::next_timeout`] says so.
//!
//! What peers say is bounded: numbers that were never sent count for nothing, arrivals prove at most the rate that was
//! sent, the estimate stays within a small multiple of what was proven, and feedback beyond what can be due is not
//! read.

mod acknowledged;
mod bit_rate;
mod control;
mod dips;
mod estimator;
mod grouping;
mod history;
mod limited;
mod loss;
mod pacer;
mod probe;
mod queue;
mod reported;
mod round_trip;
mod time;
mod trend;

pub use bit_rate::BitRate;
pub use estimator::{Because, Disbelieved, Estimator, Explanation, Limits};
pub use history::{FIRST_NUMBER, MAX_SENT};
pub use pacer::{Class, Pacer};
pub use probe::{ClusterId, ProbeCluster, ProbeReason, ProbeResult};
pub use reported::Reported;
pub use time::Time;
