//! What an operator sees of the focus's user.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

#[derive(Clone)]
pub struct Metrics {
    pub up: IntGauge,
    pub rooms: IntGauge,
    syncs: IntCounterVec,
    invitations: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let up = IntGauge::new(
            "weir_matrix_user_up",
            "1 while the homeserver tells the focus's user of its rooms; at 0, people who leave a room stay in its call.",
        )?;
        let rooms = IntGauge::new("weir_matrix_user_rooms", "Rooms that the focus's user is in.")?;
        let syncs = IntCounterVec::new(
            Opts::new(
                "weir_matrix_user_syncs_total",
                "Questions what is new in the rooms of the focus's user, by outcome: answered, failed, limited (by the \
                 homeserver), signed_out.",
            ),
            &["outcome"],
        )?;
        let invitations = IntCounterVec::new(
            Opts::new(
                "weir_matrix_user_invitations_total",
                "Invitations of the focus's user, by what came of them: accepted, foreign (the inviter's server is not \
                 listed), full (matrix.user.max_rooms), failed, dropped (too many at a time).",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(up.clone()))?;
        registry.register(Box::new(rooms.clone()))?;
        registry.register(Box::new(syncs.clone()))?;
        registry.register(Box::new(invitations.clone()))?;
        Ok(Self { up, rooms, syncs, invitations })
    }

    pub fn synced(&self, outcome: &str) {
        self.syncs.with_label_values(&[outcome]).inc();
    }

    pub fn invited(&self, outcome: &str) {
        self.invitations.with_label_values(&[outcome]).inc();
    }
}
