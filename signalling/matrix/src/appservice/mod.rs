//! The focus as an [application service](https://spec.matrix.org/latest/application-service-api/) of its homeserver,
//! which then tells it of every room that one of its users is in.
//!
//! [`Registration`] is the file that both read, and [`HsToken`] what the homeserver shows; [`Transactions`] takes what it
//! pushes, and [`news`] reads it; [`Homeserver`] asks it what a room's members are, to push again what it could not push
//! while we were away, and to pass requests for tokens on to other homeservers.

mod homeserver;
mod hs_token;
pub mod news;
mod registration;
mod transactions;

pub use homeserver::Homeserver;
pub use hs_token::{HsToken, Shown};
pub use registration::{Registration, RegistrationError};
pub use transactions::{TABLES, Transactions};
