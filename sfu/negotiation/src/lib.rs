//! SDP offers and answers: which m-line carries what.
//!
//! A [`Negotiator`] holds the descriptions of one peer connection. As the answerer (the client offers) it is driven by
//! [`Negotiator::handle_offer`], then wishes about what was offered ([`Negotiator::set_ingress`],
//! [`Negotiator::add_egress`]), then [`Negotiator::create_answer`]; as the offerer by [`Negotiator::create_offer`] and
//! [`Negotiator::handle_answer`]. Both end in an [`Outcome`]: plain values for the forwarding plane.
//!
//! The grammar is a library's (`rtc-sdp`); what an m-line means is decided here, since the client protocols dictate
//! msid, mids and the reuse of m-lines. Nothing here does I/O or keeps time.

mod candidate;
mod codecs;
mod describe;
mod negotiator;
mod section;
mod transport;

pub use candidate::{Candidate, Protocol};
pub use negotiator::{
    CodecChoice, Description, Egress, IngressPreference, LocalParameters, MAX_MEDIA, MAX_SDP_BYTES,
    Negotiator, Offer, OfferedMedia, Outcome,
};

/// A description that cannot be used. The client is told; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    #[error("the description has more than {MAX_SDP_BYTES} bytes")]
    TooLarge,
    #[error("the description has more than {MAX_MEDIA} m-lines")]
    TooManyMedia,
    #[error("the description is not SDP: {0}")]
    Syntax(String),
    #[error("m-line {index}: {what} is missing or malformed")]
    Attribute { index: usize, what: &'static str },
    #[error("m-line {index} changed from {was} to {is}")]
    MediaChanged { index: usize, was: String, is: String },
    #[error("m-lines disappeared: {was} became {is}")]
    MediaDisappeared { was: usize, is: usize },
    #[error("no answer is expected")]
    UnexpectedAnswer,
    #[error("an offer waits for its answer")]
    OfferPending,
    #[error("nothing was offered")]
    NoOffer,
}
