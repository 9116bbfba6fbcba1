//! The focus as an [application service](https://spec.matrix.org/latest/application-service-api/) of its homeserver,
//! which then tells it of every room that one of its users is in.
//!
//! [`Registration`] is the file that both read; [`Transactions`] takes what the homeserver pushes, and [`news`] reads it; [`Homeserver`] asks it
//! what a room's members are, and to push again what it could not push while we were away.

mod homeserver;
pub mod news;
mod registration;
mod transactions;

pub use homeserver::Homeserver;
pub use registration::{Registration, RegistrationError};
pub use transactions::{TABLES, Transactions};
