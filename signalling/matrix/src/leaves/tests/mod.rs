mod properties;
mod stories;
pub(super) mod world;
