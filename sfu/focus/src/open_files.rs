//! How many files the process may open: every connection is one.

use crate::ice_tcp;

/// Connections over HTTP that are no WebSockets yet; signalling takes no more of them at a time.
const HTTP: u64 = 8_192;
/// WebSockets of the people that a machine has room for, its own sockets and files, and those towards homeservers.
const OTHERS: u64 = 4_096;
/// With fewer, whoever opens connections without end keeps others out before our own bounds hold them up.
const NEEDED: u64 = HTTP + ice_tcp::MAX_CONNECTIONS as u64 + OTHERS;

/// Takes as many as the system lets us have, and says so if those are too few.
pub fn raise() {
    match weir_udp::raise_file_limit() {
        Ok(files) if files >= NEEDED => {}
        Ok(files) => tracing::warn!(
            files,
            needed = NEEDED,
            "too few files may be open for as many connections as are taken: raise the hard limit, under systemd with \
             LimitNOFILE={NEEDED}"
        ),
        Err(error) => tracing::warn!(%error, needed = NEEDED, "the limit of open files could not be raised"),
    }
}
