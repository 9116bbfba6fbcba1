//! Which layer a subscription is granted, of what it wishes.

use weir_units::media::{Layer, Wish};

/// The layer to aim for; `None` sends nothing. Bandwidth enters here: until a peer's line is estimated, everybody is
/// granted what they ask for.
pub(crate) fn granted(wish: &Wish) -> Option<Layer> {
    wish.enabled.then_some(wish.max_layer)
}
