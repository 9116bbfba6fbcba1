//! A client that holds its view of the room by what it was sent.

use std::collections::BTreeMap;

use bytes::Bytes;
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use weir_livekit::ids::ConnectionId;
use weir_livekit::join::JoinParameters;
use weir_livekit::token::Claims;
use weir_negotiation::{LocalParameters, Negotiator};
use weir_units::media::IceCredentials;

use crate::sdp::{self, Line};

pub struct Client {
    pub connection: ConnectionId,
    pub claims: Claims,
    pub parameters: JoinParameters,
    /// All that came over the present connection, in order.
    pub heard: Vec<Response>,
    pub closed: bool,
    pub data: Vec<(String, Bytes)>,
    /// Everybody it knows of, itself included, by identity.
    pub people: BTreeMap<String, proto::ParticipantInfo>,
    /// User fragment of the peer connection that it offers.
    pub answered_ufrag: Option<String>,
    /// User fragment of the one it is offered.
    pub offered_ufrag: Option<String>,
    /// Which track (sid) comes on which m-line that it receives on.
    pub tracks: BTreeMap<String, String>,
    pub negotiates: bool,
    /// What it is sent is lost on the way, until it comes back.
    pub is_deaf: bool,
    /// Whether it offers the m-lines that it is asked for.
    pub adds_lines: bool,
    lines: Vec<Line>,
    offer_id: u32,
    ice_generation: u32,
    subscriber: Negotiator,
    reactions: Vec<Request>,
    /// Whether an m-line of the last description from the room sent.
    sending: BTreeMap<String, String>,
}

impl Client {
    pub fn new(
        connection: ConnectionId,
        claims: Claims,
        parameters: JoinParameters,
        negotiates: bool,
    ) -> Self {
        let local = LocalParameters {
            ice: IceCredentials {
                ufrag: "client".to_owned(),
                password: "a password of the client".to_owned(),
            },
            fingerprint: [3; 32],
            candidates: Vec::new(),
            max_message_size: 65_536,
        };
        let single = parameters.single_peer_connection;
        Self {
            connection,
            claims,
            parameters,
            heard: Vec::new(),
            closed: false,
            data: Vec::new(),
            people: BTreeMap::new(),
            answered_ufrag: None,
            offered_ufrag: None,
            tracks: BTreeMap::new(),
            negotiates,
            is_deaf: false,
            adds_lines: true,
            lines: if single { sdp::usual_lines() } else { vec![Line::data(0)] },
            offer_id: 0,
            ice_generation: 0,
            subscriber: Negotiator::new(local, 1),
            reactions: Vec::new(),
            sending: BTreeMap::new(),
        }
    }

    /// The offer that goes out with the join, whoever wrote it.
    pub fn expects_answer_to(&mut self, offer: Option<&proto::SessionDescription>) {
        if let Some(offer) = offer {
            self.offer_id = offer.id;
        }
    }

    pub fn is_single(&self) -> bool {
        self.parameters.single_peer_connection
    }

    pub fn has_ufrag(&self, ufrag: &str) -> bool {
        [&self.answered_ufrag, &self.offered_ufrag].into_iter().flatten().any(|known| known == ufrag)
    }

    /// As the room named it at the join.
    pub fn sid(&self) -> String {
        self.people[self.claims.identity()].sid.clone()
    }

    /// What it knows of itself.
    pub fn me(&self) -> &proto::ParticipantInfo {
        &self.people[self.claims.identity()]
    }

    pub fn knows(&self, identity: &str) -> bool {
        self.people.contains_key(identity)
    }

    /// Names of the tracks that come in.
    pub fn receives(&self) -> Vec<String> {
        let name = |sid: &String| {
            let tracks = self.people.values().flat_map(|person| &person.tracks);
            tracks.filter(|track| track.sid == *sid).map(|track| track.name.clone()).next()
        };
        let mut names: Vec<_> = self.tracks.values().filter_map(name).collect();
        names.sort();
        names
    }

    /// All messages that `pick` takes something from.
    pub fn all<T>(&self, pick: impl Fn(&Response) -> Option<T>) -> Vec<T> {
        self.heard.iter().filter_map(pick).collect()
    }

    /// The newest message that `pick` takes something from.
    pub fn last<T>(&self, pick: impl Fn(&Response) -> Option<T>) -> Option<T> {
        self.heard.iter().rev().find_map(pick)
    }

    /// Why the room told it to go, and what to do next.
    pub fn dismissal(&self) -> Option<(proto::DisconnectReason, proto::leave_request::Action)> {
        self.last(|message| match message {
            Response::Leave(leave) => Some((leave.reason(), leave.action())),
            _ => None,
        })
    }

    /// The reason and message of the last answer to a request.
    pub fn verdict(&self) -> Option<proto::request_response::Reason> {
        self.last(|message| match message {
            Response::RequestResponse(response) => Some(response.reason()),
            _ => None,
        })
    }

    /// Names of the kinds of messages it heard, in order.
    pub fn kinds(&self) -> Vec<String> {
        let kind = |message: &Response| {
            let text = format!("{message:?}");
            text.split(['(', ' ']).next().unwrap_or_default().to_owned()
        };
        self.heard.iter().map(kind).collect()
    }

    pub fn reconnect(&mut self, connection: ConnectionId) {
        self.connection = connection;
        self.heard.clear();
        self.closed = false;
        self.is_deaf = false;
        self.reactions.clear();
    }

    /// What it wants to say next, in reaction to what it heard.
    pub fn react(&mut self) -> Option<(ConnectionId, Request)> {
        if self.reactions.is_empty() || self.closed {
            return None;
        }
        Some((self.connection, self.reactions.remove(0)))
    }

    pub fn hear(&mut self, message: Response) {
        if self.is_deaf {
            return;
        }
        assert!(!self.closed, "{} hears on a closed connection: {message:?}", self.claims.sub);
        assert!(self.dismissal().is_none(), "after a leave nothing more comes: {message:?}");
        match &message {
            Response::Join(join) => {
                for person in join.participant.iter().chain(&join.other_participants) {
                    self.meet(person.clone());
                }
            }
            Response::Update(update) => {
                for person in &update.participants {
                    self.meet(person.clone());
                }
            }
            Response::Answer(answer) => self.take_answer(answer),
            Response::Offer(offer) => self.take_offer(offer),
            Response::MediaSectionsRequirement(requirement) if self.negotiates => {
                let required = if self.adds_lines { *requirement } else { Default::default() };
                for _ in 0..required.num_audios {
                    self.lines.push(Line::receiving("audio", self.lines.len()));
                }
                for _ in 0..required.num_videos {
                    self.lines.push(Line::receiving("video", self.lines.len()));
                }
                let offer = self.next_offer();
                self.reactions.push(Request::Offer(offer));
            }
            _ => {}
        }
        self.heard.push(message);
    }

    fn meet(&mut self, person: proto::ParticipantInfo) {
        use proto::participant_info::State;
        if let Some(known) = self.people.get(&person.identity).filter(|known| known.sid == person.sid) {
            let grew = person.version > known.version || person == *known || self.is_snapshot_after_resume();
            assert!(grew, "{} went from version {} to {}", person.identity, known.version, person.version);
        }
        if person.state() == State::Disconnected {
            // Of an older session it says nothing about the newer.
            if self.people.get(&person.identity).is_some_and(|known| known.sid == person.sid) {
                self.people.remove(&person.identity);
            }
        } else {
            self.people.insert(person.identity.clone(), person);
        }
    }

    fn is_snapshot_after_resume(&self) -> bool {
        self.heard.iter().any(|message| matches!(message, Response::Reconnect(_)))
    }

    fn take_answer(&mut self, answer: &proto::SessionDescription) {
        assert_eq!(answer.r#type, "answer");
        if self.is_single() {
            assert_eq!(answer.id, self.offer_id, "an answer of another offer is ignored by clients");
        }
        self.answered_ufrag = sdp::ufrag(&answer.sdp);
        if self.is_single() {
            self.take_media(&answer.sdp);
        }
    }

    fn take_offer(&mut self, offer: &proto::SessionDescription) {
        assert!(!self.is_single(), "a client with one peer connection is never offered anything");
        self.offered_ufrag = sdp::ufrag(&offer.sdp);
        self.take_media(&offer.sdp);
        if self.negotiates {
            let answer = self.answer(offer);
            self.reactions.push(Request::Answer(answer));
        }
    }

    fn answer(&mut self, offer: &proto::SessionDescription) -> proto::SessionDescription {
        self.subscriber.handle_offer(&offer.sdp).expect("the room's offers are SDP");
        let answer = self.subscriber.create_answer().unwrap();
        proto::SessionDescription {
            r#type: "answer".to_owned(),
            sdp: answer.sdp,
            id: offer.id,
            ..Default::default()
        }
    }

    /// The answer to the last offer, for clients that do not answer by themselves.
    pub fn late_answer(&mut self) -> proto::SessionDescription {
        let offer = self.last(|message| match message {
            Response::Offer(offer) => Some(offer.clone()),
            _ => None,
        });
        self.answer(&offer.expect("there was an offer"))
    }

    /// As browsers do: a track begins where an m-line begins to be sent on, under the name it has then.
    fn take_media(&mut self, description: &str) {
        let sending = sdp::sent(description);
        for (mid, (stream, track)) in &sending {
            let owner = stream.split('|').next().unwrap_or_default();
            let is_known = self.people.values().any(|person| person.sid == owner);
            assert!(
                is_known,
                "{track} comes before its participant {owner} is known: it is dropped for good"
            );
            if let Some(before) = self.sending.get(mid) {
                assert_eq!(before, track, "m-line {mid} carries another track without having been inactive");
            }
        }
        self.sending = sending.into_iter().map(|(mid, (_, track))| (mid, track)).collect();
        self.tracks = self.sending.clone();
    }

    pub fn next_offer(&mut self) -> proto::SessionDescription {
        self.offer_id += 1;
        proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp: sdp::offer(&self.lines, self.ice_generation),
            id: self.offer_id,
            ..Default::default()
        }
    }

    /// An offer with new ICE credentials.
    pub fn restart_offer(&mut self) -> proto::SessionDescription {
        self.ice_generation += 1;
        self.next_offer()
    }

    /// An offer with one more m-line, on which the track is sent.
    pub fn offer_with(&mut self, track: &proto::AddTrackRequest) -> proto::SessionDescription {
        let line = Line::sending(track, self.lines.len());
        self.lines.push(line);
        self.next_offer()
    }

    /// An offer in which the track's m-line carries another.
    pub fn offer_instead(&mut self, cid: &str, track: &proto::AddTrackRequest) -> proto::SessionDescription {
        let line = self.lines.iter_mut().find(|line| line.track.as_deref() == Some(cid));
        let line = line.expect("the track has an m-line");
        *line = Line::sending(track, line.mid);
        self.next_offer()
    }

    /// An offer in which the track's m-line is inactive.
    pub fn offer_without(&mut self, cid: &str) -> proto::SessionDescription {
        let line = self.lines.iter_mut().find(|line| line.track.as_deref() == Some(cid));
        line.expect("the track has an m-line").stop();
        self.next_offer()
    }

    pub fn mid_of(&self, cid: &str) -> Option<String> {
        self.lines.iter().find(|line| line.track.as_deref() == Some(cid)).map(|line| line.mid.to_string())
    }

    /// The newest sid it was told for its own track.
    pub fn published_sid(&self, cid: &str) -> Option<String> {
        self.last(|message| match message {
            Response::TrackPublished(published) if published.cid == cid => {
                published.track.as_ref().map(|track| track.sid.clone())
            }
            _ => None,
        })
    }
}

impl Client {
    /// A client that is nowhere: for offers that are made before there is one.
    pub fn nobody() -> Self {
        Self::with_lines(sdp::usual_lines())
    }

    /// As [`Self::nobody`], with other m-lines than usual.
    pub fn with_lines(lines: Vec<Line>) -> Self {
        let parameters = JoinParameters { single_peer_connection: true, ..JoinParameters::default() };
        Self { lines, ..Self::new(ConnectionId(0), Claims::default(), parameters, false) }
    }

    pub fn into_lines(self) -> Vec<Line> {
        self.lines
    }

    pub fn set_lines(&mut self, lines: Vec<Line>) {
        self.lines = lines;
    }
}
