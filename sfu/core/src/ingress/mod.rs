//! What is noted of the packets that arrive: losses to ask for again, figures for reports, arrivals for the
//! publisher's bandwidth estimation, and whether a layer is alive.

pub mod activity;
pub mod nack;
pub mod stats;
pub mod structures;
pub mod twcc;
