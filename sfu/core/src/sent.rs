//! What was sent to a subscriber, and what its reports make of that.

/// Counts for sender reports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub packets: u32,
    pub octets: u32,
    /// Of the packets: what had been sent when the receiver last reported.
    accounted: u32,
    /// Numbers that had been left out by then, and how many of those of late it may not have missed yet.
    left_out: u32,
    not_missed: f64,
}

/// What became of packets that were sent, as their receiver reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Fate {
    pub sent: u32,
    /// By the line.
    pub lost: f64,
}

impl Fate {
    /// The share of them that was lost.
    pub fn share(&self) -> f64 {
        if self.sent > 0 { (self.lost / f64::from(self.sent)).min(1.0) } else { 0.0 }
    }
}

impl Sent {
    /// A receiver reports that it missed so many 256ths of what it expected since the report before. It expects the numbers
    /// that were left out, too, and misses them by the report after that at the latest; `left_out` counts them.
    pub fn judge(&mut self, fraction_lost: u8, left_out: u32) -> Fate {
        let sent = self.packets.wrapping_sub(std::mem::replace(&mut self.accounted, self.packets));
        let news = left_out.wrapping_sub(std::mem::replace(&mut self.left_out, left_out)) as i32;
        let missed = f64::from(fraction_lost) / 256.0 * (f64::from(sent) + f64::from(news)).max(0.0);
        let through_us = (self.not_missed + f64::from(news)).max(0.0);
        let lost = (missed - through_us).max(0.0);
        self.not_missed = (through_us - (missed - lost)).min(f64::from(news.max(0)));
        Fate { sent, lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of each block: packets sent, numbers left out less those given late, and how many are reported lost.
    fn lost(blocks: &[(u32, i32, u32)]) -> Vec<i64> {
        let (mut sent, mut left_out) = (Sent::default(), 0_u32);
        let judge = |&(packets, news, missed): &(u32, i32, u32)| {
            sent.packets = sent.packets.wrapping_add(packets);
            left_out = left_out.wrapping_add_signed(news);
            let fraction = (missed * 256).checked_div(packets.wrapping_add_signed(news)).unwrap_or(0);
            let fate = sent.judge(fraction.min(255) as u8, left_out);
            assert_eq!(fate.sent, packets);
            assert!((0.0..=1.0).contains(&fate.share()));
            fate.lost.round() as i64
        };
        blocks.iter().map(judge).collect()
    }

    #[test]
    fn what_the_line_loses_is_told_from_what_was_never_sent() {
        assert_eq!(lost(&[(100, 0, 0), (100, 0, 10)]), [0, 10]);
        assert_eq!(lost(&[(80, 20, 20), (80, 20, 30)]), [0, 10]);
        assert_eq!(lost(&[(0, 0, 0), (0, 5, 5), (3, -5, 0)]), [0; 3], "nothing was sent");
    }

    #[test]
    fn what_was_left_out_is_excused_with_the_report_after_at_the_latest() {
        assert_eq!(lost(&[(80, 20, 0), (100, 0, 20), (100, 0, 20)]), [0, 0, 20], "it was under way");
        assert_eq!(lost(&[(80, 20, 0), (100, 0, 0), (100, 0, 20)]), [0, 0, 20], "and was not missed");
        assert_eq!(lost(&[(80, 20, 0), (120, -20, 0), (100, 0, 20)]), [0, 0, 20], "and came");
    }
}
