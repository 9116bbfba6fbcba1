//! The data channel establishment protocol ([RFC 8832](https://www.rfc-editor.org/rfc/rfc8832)).

/// The longest label or protocol that is taken, in bytes. LiveKit's are under 16.
const MAX_LABEL: usize = 256;

const ACK: u8 = 0x02;
const OPEN: u8 = 0x03;
const UNORDERED: u8 = 0x80;
const RELIABLE: u8 = 0x00;
const PARTIAL_RETRANSMITS: u8 = 0x01;
const PARTIAL_LIFETIME: u8 = 0x02;

/// How much a channel promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reliability {
    Reliable,
    Retransmits(u32),
    LifetimeMs(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub label: String,
    pub ordered: bool,
    pub reliability: Reliability,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Open(Open),
    Ack,
}

impl Message {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match *bytes.first()? {
            ACK => Some(Self::Ack),
            OPEN => {
                let fixed: &[u8; 12] = bytes.first_chunk()?;
                let parameter = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
                let label_len = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
                let label = bytes.get(12..12 + label_len)?;
                if label_len > MAX_LABEL {
                    return None;
                }
                let reliability = match fixed[1] & !UNORDERED {
                    RELIABLE => Reliability::Reliable,
                    PARTIAL_RETRANSMITS => Reliability::Retransmits(parameter),
                    PARTIAL_LIFETIME => Reliability::LifetimeMs(parameter),
                    _ => return None,
                };
                Some(Self::Open(Open {
                    label: std::str::from_utf8(label).ok()?.to_owned(),
                    ordered: fixed[1] & UNORDERED == 0,
                    reliability,
                }))
            }
            _ => None,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let Self::Open(open) = self else { return vec![ACK] };
        let (kind, parameter) = match open.reliability {
            Reliability::Reliable => (RELIABLE, 0),
            Reliability::Retransmits(most) => (PARTIAL_RETRANSMITS, most),
            Reliability::LifetimeMs(most) => (PARTIAL_LIFETIME, most),
        };
        let mut bytes = vec![OPEN, kind | if open.ordered { 0 } else { UNORDERED }, 0, 0];
        bytes.extend(parameter.to_be_bytes());
        bytes.extend((open.label.len() as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(open.label.as_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_no_prefix_of_it() {
        for reliability in [Reliability::Reliable, Reliability::Retransmits(0), Reliability::LifetimeMs(300)]
        {
            for ordered in [true, false] {
                let open = Message::Open(Open { label: "_lossy".into(), ordered, reliability });
                let bytes = open.to_bytes();
                assert_eq!(Message::parse(&bytes), Some(open));
                for len in 0..bytes.len() {
                    assert_eq!(Message::parse(&bytes[..len]), None);
                }
            }
        }
        assert_eq!(Message::parse(&[ACK]), Some(Message::Ack));
        assert_eq!(Message::parse(&[9]), None);
    }
}
