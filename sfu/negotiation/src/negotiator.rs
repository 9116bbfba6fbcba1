//! The descriptions of one peer connection, and which m-line carries what.

use std::io::Cursor;

use rtc_sdp::description::session::SessionDescription;
use weir_units::ids::SubscriptionId;
use weir_units::media::{
    Codec, DtlsRole, EgressMedia, IceCredentials, IngressMedia, MediaKind, Mid, PayloadFormat,
    RemoteTransport, Rid,
};

use crate::SdpError;
use crate::candidate::Candidate;
use crate::codecs::{self, CodecLine};
use crate::describe::{self, Session};
use crate::section::{Direction, Kind, RemoteSection};
use crate::transport::{self, Remote};

/// The longest description that is read. A client with 500 m-lines sends 600 KiB.
pub const MAX_SDP_BYTES: usize = 1024 * 1024;
/// The most m-lines of one peer connection; they never go away. Twice what a call of 100 needs.
pub const MAX_MEDIA: usize = 512;

/// What our descriptions say of ourselves.
#[derive(Clone, Debug)]
pub struct LocalParameters {
    pub ice: IceCredentials,
    /// SHA-256 of our certificate.
    pub fingerprint: [u8; 32],
    pub candidates: Vec<Candidate>,
    /// The largest data channel message we take, in bytes.
    pub max_message_size: u32,
}

/// What a client offered. M-lines it rejected itself are left out.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The client's ICE credentials are new: so must ours be ([`Negotiator::restart_ice`]).
    pub ice_restarted: bool,
    pub media: Vec<OfferedMedia>,
    pub has_data: bool,
}

/// An m-line of an offer.
#[derive(Clone, Debug)]
pub struct OfferedMedia {
    pub mid: Mid,
    pub kind: MediaKind,
    /// Whether the client wants to send on it.
    pub sends: bool,
    pub stream_id: Option<String>,
    pub track_id: Option<String>,
    /// What it has of what we forward, in its own order.
    pub codecs: Vec<Codec>,
    /// In ascending quality; empty without simulcast.
    pub rids: Vec<Rid>,
}

/// How an m-line that the client sends on is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngressPreference {
    /// Of video.
    pub codec: CodecChoice,
    /// Opus may pause in silence.
    pub dtx: bool,
    pub stereo: bool,
    pub red: bool,
}

/// Which of the video codecs that a client offers are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CodecChoice {
    /// The client's first.
    #[default]
    First,
    /// The client's first if this one is not offered.
    Named(Codec),
    /// All that we forward, in the client's order: its packets say which one it sends.
    Any,
}

/// A subscription that wants an m-line.
#[derive(Clone, Debug)]
pub struct Egress {
    pub subscription: SubscriptionId,
    pub kind: MediaKind,
    /// What the publication sends. The peer must take one of them.
    pub codecs: Vec<Codec>,
    pub stream_id: String,
    pub track_id: String,
    pub ssrc: u32,
    /// Used when the m-line has a retransmission format.
    pub rtx_ssrc: u32,
}

/// What has been agreed, for the forwarding plane: everything, not the difference.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub remote: Option<RemoteTransport>,
    pub ingress: Vec<IngressMedia>,
    pub egress: Vec<(SubscriptionId, EgressMedia)>,
    /// Subscriptions whose codec the peer does not take. They are forgotten.
    pub refused: Vec<SubscriptionId>,
    /// Which track each m-line that we send on carries.
    pub mid_to_track: Vec<(Mid, String)>,
}

/// A description to be sent, and what it settles.
#[derive(Clone, Debug)]
pub struct Description {
    pub sdp: String,
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(crate) enum Use {
    /// Nothing flows; free for a subscription if the peer receives.
    Idle,
    /// A subscription left it. A peer notices a new track only if the m-line was inactive in between.
    Freed,
    Ingress(IngressPreference),
    Egress(Egress),
    Data,
    Rejected,
}

#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub mid: Mid,
    pub kind: Kind,
    pub usage: Use,
    /// As the peer last described it; absent until it answers our first offer with it.
    pub remote: Option<RemoteSection>,
}

impl Section {
    /// The payload formats that are answered or were agreed, best first.
    pub fn formats(&self) -> Vec<PayloadFormat> {
        let Some(remote) = &self.remote else { return Vec::new() };
        match (&self.usage, self.kind) {
            (Use::Ingress(preference), Kind::Media(kind)) => {
                ingress_formats(&remote.codecs, kind, *preference)
            }
            (Use::Egress(egress), Kind::Media(_)) => egress_formats(&remote.codecs, &egress.codecs),
            _ => Vec::new(),
        }
    }

    fn takes(&self, egress: &Egress) -> bool {
        matches!(self.usage, Use::Idle)
            && self.remote.as_ref().is_some_and(|remote| can_carry(remote, egress))
    }
}

/// See the crate's description.
#[derive(Clone, Debug)]
pub struct Negotiator {
    local: LocalParameters,
    session_id: u64,
    version: u64,
    sections: Vec<Section>,
    waiting: Vec<Egress>,
    /// M-lines, by their place, that our last description was the first to show as inactive. Free, if the peer saw it.
    released: Vec<usize>,
    remote: Option<Remote>,
    /// Never changes once agreed: the DTLS association outlives every renegotiation.
    role: Option<DtlsRole>,
    /// An offer of the client's is unanswered, or one of ours.
    offered: bool,
}

impl Negotiator {
    /// `session_id` is the `o=` line's: random, below 2^62.
    pub fn new(local: LocalParameters, session_id: u64) -> Self {
        Self {
            local,
            session_id,
            version: 0,
            sections: Vec::new(),
            waiting: Vec::new(),
            released: Vec::new(),
            remote: None,
            role: None,
            offered: false,
        }
    }

    pub fn local(&self) -> &LocalParameters {
        &self.local
    }

    pub fn restart_ice(&mut self, ice: IceCredentials) {
        self.local.ice = ice;
    }

    /// Takes the client's offer. What it no longer sends or receives loses its m-line.
    pub fn handle_offer(&mut self, sdp: &str) -> Result<Offer, SdpError> {
        let (remote, sections) = read(sdp, &self.sections)?;
        self.check(&sections)?;
        let ice_restarted = self.remote.as_ref().is_some_and(|known| known.ice != remote.ice);
        for (index, remote) in sections.into_iter().enumerate() {
            self.take_section(index, remote);
        }
        if self.role.is_none() {
            self.role = Some(remote.role_of_answerer());
        }
        self.remote = Some(remote);
        self.offered = true;
        let media = self.sections.iter().filter_map(|section| {
            let Kind::Media(kind) = section.kind else { return None };
            let remote = section.remote.as_ref().filter(|remote| !remote.rejected)?;
            Some(OfferedMedia {
                mid: section.mid,
                kind,
                sends: remote.direction.sends,
                stream_id: remote.stream_id.clone(),
                track_id: remote.track_id.clone(),
                codecs: codecs::supported(&remote.codecs, kind),
                rids: remote.rids.clone(),
            })
        });
        Ok(Offer {
            ice_restarted,
            media: media.collect(),
            has_data: self.sections.iter().any(|section| matches!(section.usage, Use::Data)),
        })
    }

    /// M-lines keep their place and kind for life, but for one that was rejected, whose place may be taken.
    fn check(&self, sections: &[RemoteSection]) -> Result<(), SdpError> {
        if sections.len() < self.sections.len() {
            return Err(SdpError::MediaDisappeared { was: self.sections.len(), is: sections.len() });
        }
        for (index, (known, remote)) in self.sections.iter().zip(sections).enumerate() {
            if known.kind != remote.kind && !matches!(known.usage, Use::Rejected) {
                let (was, is) = (format!("{:?}", known.kind), format!("{:?}", remote.kind));
                return Err(SdpError::MediaChanged { index, was, is });
            }
        }
        Ok(())
    }

    fn take_section(&mut self, index: usize, remote: RemoteSection) {
        if index == self.sections.len() {
            self.sections.push(Section {
                mid: remote.mid,
                kind: remote.kind,
                usage: Use::Idle,
                remote: None,
            });
        }
        let section = &mut self.sections[index];
        let old = match std::mem::replace(&mut section.usage, Use::Idle) {
            Use::Egress(egress) if section.mid != remote.mid || !can_carry(&remote, &egress) => {
                self.waiting.push(egress);
                Use::Freed
            }
            old => old,
        };
        section.usage = match (remote.kind, old) {
            _ if remote.rejected => Use::Rejected,
            (Kind::Other, _) => Use::Rejected,
            (Kind::Data, _) => Use::Data,
            (Kind::Media(_), Use::Ingress(preference)) if remote.direction.sends => Use::Ingress(preference),
            (Kind::Media(_), _) if remote.direction.sends => Use::Ingress(IngressPreference::default()),
            (Kind::Media(_), old @ (Use::Egress(_) | Use::Freed)) => old,
            (Kind::Media(_), _) => Use::Idle,
        };
        section.mid = remote.mid;
        section.kind = remote.kind;
        section.remote = Some(remote);
    }

    /// Says how an m-line the client sends on is to be answered. No effect on others.
    pub fn set_ingress(&mut self, mid: Mid, preference: IngressPreference) {
        let section = self.sections.iter_mut().find(|section| section.mid == mid);
        if let Some(Section { usage: Use::Ingress(current), .. }) = section {
            *current = preference;
        }
    }

    /// Puts a subscription on the waiting list for an m-line.
    pub fn add_egress(&mut self, egress: Egress) {
        self.waiting.push(egress);
    }

    /// The m-line, if it had one, becomes free after the next round.
    pub fn remove_egress(&mut self, subscription: SubscriptionId) {
        self.waiting.retain(|egress| egress.subscription != subscription);
        for section in &mut self.sections {
            if matches!(&section.usage, Use::Egress(egress) if egress.subscription == subscription) {
                section.usage = Use::Freed;
            }
        }
    }

    /// How many more m-lines of (audio, video) the client must offer for all that waits.
    pub fn missing_media(&self) -> (usize, usize) {
        let mut free: Vec<&Section> = self.sections.iter().collect();
        let (mut audios, mut videos) = (0, 0);
        for egress in &self.waiting {
            match free.iter().position(|section| section.takes(egress)) {
                Some(index) => {
                    free.swap_remove(index);
                }
                None if egress.kind == MediaKind::Audio => audios += 1,
                None => videos += 1,
            }
        }
        let room = MAX_MEDIA.saturating_sub(self.sections.len());
        audios = audios.min(room);
        (audios, videos.min(room - audios))
    }

    /// The client lost its signalling, and may never have seen what we last described. An offer of ours is void, and what
    /// was inactive for the first time is so once more: the next description says it all again.
    pub fn abandon_round(&mut self) {
        self.offered = false;
        for index in self.released.drain(..) {
            let usage = &mut self.sections[index].usage;
            if matches!(usage, Use::Idle) {
                *usage = Use::Freed;
            }
        }
    }

    /// Whether another round would change anything: something waits, or an m-line is to be freed.
    pub fn wants_round(&self) -> bool {
        !self.waiting.is_empty() || self.sections.iter().any(|section| matches!(section.usage, Use::Freed))
    }

    /// Answers the offer last taken, giving free m-lines to what waits.
    pub fn create_answer(&mut self) -> Result<Description, SdpError> {
        if !self.offered {
            return Err(SdpError::NoOffer);
        }
        self.offered = false;
        let refused = self.place();
        self.version += 1;
        let sdp = describe::answer(&self.session(), &self.sections);
        let outcome = self.outcome(refused);
        self.release();
        Ok(Description { sdp, outcome })
    }

    /// Gives each waiting subscription the first m-line that takes it; drops and names those whose codec the peer has
    /// on none of its m-lines of that kind. What it offers where it sends, or has rejected, says nothing about what it
    /// receives.
    fn place(&mut self) -> Vec<SubscriptionId> {
        let mut refused = Vec::new();
        for egress in std::mem::take(&mut self.waiting) {
            let takes_codec = |section: &Section| {
                section
                    .remote
                    .as_ref()
                    .is_some_and(|remote| !egress_formats(&remote.codecs, &egress.codecs).is_empty())
            };
            let of_kind = |section: &&Section| {
                let says = |remote: &RemoteSection| !remote.direction.sends && !remote.rejected;
                section.kind == Kind::Media(egress.kind) && section.remote.as_ref().is_some_and(says)
            };
            let place = self.sections.iter().position(|section| section.takes(&egress));
            match place {
                Some(index) => self.sections[index].usage = Use::Egress(egress),
                None if self.sections.iter().any(|section| of_kind(&section))
                    && !self.sections.iter().filter(of_kind).any(takes_codec) =>
                {
                    refused.push(egress.subscription);
                }
                None => self.waiting.push(egress),
            }
        }
        refused
    }

    /// The description just made shows freed m-lines as inactive: the next may have them carry something.
    fn release(&mut self) {
        self.released.clear();
        for (index, section) in self.sections.iter_mut().enumerate() {
            if matches!(section.usage, Use::Freed) {
                section.usage = Use::Idle;
                self.released.push(index);
            }
        }
    }

    /// Offers what waits and what flows. `with_data` adds an application m-line, for life.
    pub fn create_offer(&mut self, with_data: bool) -> Result<String, SdpError> {
        if self.offered {
            return Err(SdpError::OfferPending);
        }
        let has_data = self.sections.iter().any(|section| section.kind == Kind::Data);
        if with_data && !has_data {
            self.push_section(Kind::Data, Use::Data);
        }
        for egress in std::mem::take(&mut self.waiting) {
            let kind = Kind::Media(egress.kind);
            let free = |section: &Section| section.kind == kind && matches!(section.usage, Use::Idle);
            match self.sections.iter().position(free) {
                Some(index) => self.sections[index].usage = Use::Egress(egress),
                None if self.sections.len() < MAX_MEDIA => self.push_section(kind, Use::Egress(egress)),
                None => self.waiting.push(egress),
            }
        }
        self.version += 1;
        self.offered = true;
        let sdp = describe::offer(&self.session(), &self.sections);
        self.release();
        Ok(sdp)
    }

    fn push_section(&mut self, kind: Kind, usage: Use) {
        let mid = Mid::new(&self.sections.len().to_string()).expect("a number below MAX_MEDIA is a token");
        self.sections.push(Section { mid, kind, usage, remote: None });
    }

    /// Takes the client's answer to our offer.
    pub fn handle_answer(&mut self, sdp: &str) -> Result<Outcome, SdpError> {
        if !self.offered {
            return Err(SdpError::UnexpectedAnswer);
        }
        let (remote, sections) = read(sdp, &self.sections)?;
        self.check(&sections)?;
        if sections.len() > self.sections.len() {
            return Err(SdpError::TooManyMedia);
        }
        self.offered = false;
        self.role.get_or_insert(remote.role_of_offerer());
        self.remote = Some(remote);
        self.released.clear(); // the client has seen them inactive
        let mut refused = Vec::new();
        for (section, remote) in self.sections.iter_mut().zip(sections) {
            let carries = remote.direction.receives && !remote.rejected;
            section.remote = Some(remote);
            if let Use::Egress(egress) = &section.usage
                && (!carries || section.formats().is_empty())
            {
                refused.push(egress.subscription);
                section.usage = Use::Idle;
            }
        }
        Ok(self.outcome(refused))
    }

    fn session(&self) -> Session<'_> {
        Session { local: &self.local, session_id: self.session_id, version: self.version, role: self.role }
    }

    fn outcome(&self, refused: Vec<SubscriptionId>) -> Outcome {
        let mut outcome = Outcome { refused, ..Outcome::default() };
        for section in &self.sections {
            let (Some(remote), Kind::Media(kind)) = (&section.remote, section.kind) else { continue };
            let formats = section.formats();
            if formats.is_empty() {
                continue;
            }
            let has_nack = |format: &PayloadFormat| {
                let mut lines = remote.codecs.iter().filter(|line| line.payload_type == format.payload_type);
                lines.any(|line| line.has_feedback("nack"))
            };
            match &section.usage {
                Use::Ingress(_) => outcome.ingress.push(IngressMedia {
                    mid: section.mid,
                    kind,
                    extensions: remote.ingress_extensions(kind),
                    encodings: remote.encodings(),
                    nack: match kind {
                        MediaKind::Audio => formats.first().is_some_and(has_nack),
                        MediaKind::Video => formats.iter().all(has_nack),
                    },
                    is_screen: false, // no description says so
                    formats,
                }),
                Use::Egress(egress) => {
                    let has_rtx = formats.iter().any(|format| format.rtx_payload_type.is_some());
                    let media = EgressMedia {
                        mid: section.mid,
                        kind,
                        extensions: remote.egress_extensions(kind, &formats),
                        formats,
                        ssrc: egress.ssrc,
                        rtx_ssrc: has_rtx.then_some(egress.rtx_ssrc),
                    };
                    outcome.egress.push((egress.subscription, media));
                    outcome.mid_to_track.push((section.mid, egress.track_id.clone()));
                }
                Use::Idle | Use::Freed | Use::Data | Use::Rejected => {}
            }
        }
        let data = self.sections.iter().filter(|section| matches!(section.usage, Use::Data));
        let max_message_size = data.filter_map(|section| section.remote.as_ref()?.max_message_size).next();
        outcome.remote = self.remote.as_ref().zip(self.role).map(|(remote, local_role)| RemoteTransport {
            ice: remote.ice.clone(),
            fingerprint: remote.fingerprint,
            local_role,
            max_message_size,
        });
        outcome
    }
}

fn ingress_formats(
    lines: &[CodecLine],
    kind: MediaKind,
    preference: IngressPreference,
) -> Vec<PayloadFormat> {
    match kind {
        MediaKind::Audio => {
            let Some(opus) = codecs::best(lines, Codec::Opus) else { return Vec::new() };
            let red = codecs::best_red(lines, opus.payload_type).filter(|_| preference.red);
            red.into_iter().chain([opus]).collect()
        }
        MediaKind::Video => {
            let mut answered = codecs::supported(lines, kind);
            match preference.codec {
                CodecChoice::Any => {}
                CodecChoice::Named(codec) if answered.contains(&codec) => answered = vec![codec],
                CodecChoice::First | CodecChoice::Named(_) => answered.truncate(1),
            }
            answered.into_iter().filter_map(|codec| codecs::best(lines, codec)).collect()
        }
    }
}

fn egress_formats(lines: &[CodecLine], wanted: &[Codec]) -> Vec<PayloadFormat> {
    let mut formats = Vec::new();
    for codec in wanted {
        let format = match codec {
            Codec::Red => {
                codecs::best(lines, Codec::Opus).and_then(|opus| codecs::best_red(lines, opus.payload_type))
            }
            codec => codecs::best(lines, *codec),
        };
        formats.extend(format);
    }
    formats
}

/// Whether the peer receives there, and something that the subscription has.
fn can_carry(remote: &RemoteSection, egress: &Egress) -> bool {
    remote.kind == Kind::Media(egress.kind)
        && remote.direction.receives
        && !remote.direction.sends
        && !remote.rejected
        && !egress_formats(&remote.codecs, &egress.codecs).is_empty()
}

/// `known` is what the m-lines were so far.
fn read(sdp: &str, known: &[Section]) -> Result<(Remote, Vec<RemoteSection>), SdpError> {
    if sdp.len() > MAX_SDP_BYTES {
        return Err(SdpError::TooLarge);
    }
    let session = SessionDescription::unmarshal(&mut Cursor::new(sdp.as_bytes()))
        .map_err(|error| SdpError::Syntax(error.to_string()))?;
    if session.media_descriptions.len() > MAX_MEDIA {
        return Err(SdpError::TooManyMedia);
    }
    let remote = transport::read(&session)?;
    let mut sections = Vec::with_capacity(session.media_descriptions.len());
    for (index, media) in session.media_descriptions.iter().enumerate() {
        let known = known.get(index).map(|section| section.mid);
        let section = RemoteSection::read(&session, media, index, known)?;
        if sections.iter().any(|other: &RemoteSection| other.mid == section.mid) {
            return Err(SdpError::Attribute { index, what: "a unique a=mid" });
        }
        sections.push(section);
    }
    Ok((remote, sections))
}

impl Section {
    /// What our description says of it.
    pub fn direction(&self) -> Direction {
        match self.usage {
            Use::Ingress(_) if !self.formats().is_empty() => Direction { sends: false, receives: true },
            Use::Egress(_) => Direction { sends: true, receives: false },
            _ => Direction::INACTIVE,
        }
    }
}

#[cfg(test)]
mod tests;
