//! Identifiers that the control plane hands out and the forwarding plane echoes.
//!
//! They are unique for the life of the process and never reused, so a late event about something that is gone
//! names nothing rather than something else.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(/// What one focus forwards together.
    ConferenceId);
id!(/// One peer connection: one ICE and DTLS transport. A participant has one, or two in dual mode.
    PeerId);
id!(/// One source that a participant offers, with its encodings.
    PublicationId);
id!(/// One participant's wish for a publication.
    SubscriptionId);
