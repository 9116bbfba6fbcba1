pub mod srtp;
mod context;
pub use context::{ContextError, TransportContext};
