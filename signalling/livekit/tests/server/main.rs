//! The HTTP and WebSocket adapter over connections in memory, in virtual time.

#![expect(clippy::unwrap_used, reason = "what helps tests is test code as well")]

mod harness;

mod admission;
mod sockets;
mod supervision;
