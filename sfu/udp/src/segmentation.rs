//! Whether the kernel cuts messages into datagrams, or we do.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

/// So many destinations in a row take only what we have cut: then it is the device or the kernel that cannot. Fewer may be
/// to blame themselves; each more costs a call in vain for every run to it until then.
const MAX_REFUSALS: usize = 4;
/// Runs that we cut before the kernel is asked again: seconds of a large call, minutes of a small one. Asking in vain costs
/// a handful of calls.
pub(crate) const ASK_AGAIN_AFTER: u32 = 16_384;

/// What is known of it on one socket.
#[derive(Debug)]
pub(crate) struct Segmentation {
    /// Destinations for which the kernel has cut nothing since it last cut something. At most [`MAX_REFUSALS`].
    refused: RefCell<Vec<SocketAddr>>,
    /// Runs that we cut before it is asked again; 0 while it cuts.
    ours: Cell<u32>,
}

impl Default for Segmentation {
    fn default() -> Self {
        Self { refused: RefCell::new(Vec::with_capacity(MAX_REFUSALS)), ours: Cell::new(0) }
    }
}

impl Segmentation {
    pub fn is_on(&self) -> bool {
        self.ours.get() == 0
    }

    /// Whether the next run is the kernel's to cut.
    pub fn takes_next(&self) -> bool {
        let ours = self.ours.get();
        self.ours.set(ours.saturating_sub(1));
        ours == 0
    }

    /// The kernel has cut a message.
    pub fn on_cut(&self) {
        self.refused.borrow_mut().clear();
    }

    /// It has not, and took the datagrams one by one.
    pub fn on_refused(&self, to: SocketAddr) {
        let mut refused = self.refused.borrow_mut();
        if !refused.contains(&to) {
            refused.push(to);
        }
        if refused.len() == MAX_REFUSALS {
            refused.clear();
            self.give_up();
        }
    }

    pub fn give_up(&self) {
        self.ours.set(ASK_AGAIN_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u8) -> SocketAddr {
        ([192, 0, 2, number], 9).into()
    }

    #[test]
    fn only_several_destinations_in_a_row_tell_of_the_device() {
        let segmentation = Segmentation::default();
        let refuse = |hosts: &[u8]| hosts.iter().for_each(|number| segmentation.on_refused(host(*number)));
        refuse(&[1, 1, 1, 1, 1, 2, 3]);
        segmentation.on_cut();
        refuse(&[1, 2, 3, 3, 2, 1]);
        assert!(segmentation.is_on() && segmentation.takes_next());
        refuse(&[4]);
        assert!(!segmentation.is_on());
    }

    #[test]
    fn it_is_asked_again_after_a_while() {
        let segmentation = Segmentation::default();
        segmentation.give_up();
        let ours = (0..ASK_AGAIN_AFTER + 10).filter(|_| !segmentation.takes_next()).count();
        assert_eq!(ours, ASK_AGAIN_AFTER as usize);
        assert!(segmentation.is_on());
    }
}
