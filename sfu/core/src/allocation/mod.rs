//! Which layer each subscription of a peer is granted, of what it wishes and what the line carries.
//!
//! Pure and deterministic: [`share`] is given a budget and [`Claim`]s in order of importance, and gives each a rung of its
//! [`Ladder`] and a [`Reason`]. Everybody's least comes before more for anybody; then the more important climb first, and
//! equals climb in turn.

mod ladder;
mod rates;
mod share;
mod standing;

use weir_units::media::{Layer, Wish};

pub(crate) use ladder::Ladder;
pub(crate) use rates::{Costs, LayerRates};
pub(crate) use share::{Budget, Claim, Importance, share};
pub(crate) use standing::Standing;

/// Why a subscription is granted what it is. The names are metric labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// Nobody looks.
    #[default]
    Off,
    /// It is all that is wished.
    Wish,
    /// It is all that is wished, and nobody knows what the line carries.
    Unmeasured,
    /// More was wished, and the line does not carry it.
    Line,
    /// The line may carry more, but it did so before and then did not.
    Patience,
    /// Nothing: the line does not carry the least there is.
    Paused,
}

impl Reason {
    pub const ALL: [Self; 6] =
        [Self::Off, Self::Wish, Self::Unmeasured, Self::Line, Self::Patience, Self::Paused];

    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Wish => "wish",
            Self::Unmeasured => "unmeasured",
            Self::Line => "line",
            Self::Patience => "patience",
            Self::Paused => "paused",
        }
    }
}

/// What a subscription may be sent at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    pub layer: Option<Layer>,
    pub reason: Reason,
}

impl Grant {
    /// All that is wished, by a peer of whose line nothing is known.
    pub fn all_of(wish: &Wish) -> Self {
        match wish.enabled {
            true => Self { layer: Some(wish.max_layer), reason: Reason::Unmeasured },
            false => Self::default(),
        }
    }

    /// What becomes of it while nothing is sent, as of a source that is muted: what the line did not carry, it is not to
    /// be sent in one go when the source comes back.
    pub fn kept(self, wish: &Wish) -> Self {
        let within = |layer: Layer| Layer {
            spatial: layer.spatial.min(wish.max_layer.spatial),
            temporal: layer.temporal.min(wish.max_layer.temporal),
        };
        match self.reason {
            Reason::Line | Reason::Patience if wish.enabled => Self { layer: self.layer.map(within), ..self },
            Reason::Paused if wish.enabled => Self { layer: Some(Layer { spatial: 0, temporal: 0 }), ..self },
            _ => Self::all_of(wish),
        }
    }
}

/// Memory for sharing out, kept so that none is allocated each time. Bound: the subscriptions of one peer.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    pub claims: Vec<Claim>,
    /// Some that are wished have no price yet.
    pub expects_more: bool,
}
