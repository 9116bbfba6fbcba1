//! The LiveKit client protocol: rooms, participants and tracks as clients see them.
//!
//! [`room::Room`] is the state machine, sans-IO; [`server::Server`] its HTTP and WebSocket adapter. The forwarding
//! plane is reached through [`plane::Plane`], and those who stand above tokens through [`supervision`]; the focus
//! implements both.

#![expect(deprecated, reason = "clients in the field still send and read the protocol's deprecated fields")]

pub mod ids;
pub mod join;
pub mod plane;
pub mod room;
pub mod server;
pub mod supervision;
pub mod token;

pub use plane::{Link, Plane};
pub use room::{IceServer, Limits, RoomConfig};
pub use server::{Server, ServerConfig};
pub use supervision::Supervision;
