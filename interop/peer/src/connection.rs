//! The peer connection: one for both directions, the client offering always (`/rtc/v1`). Browsers and SDKs of the suite
//! cover the other way, with two connections.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::BytesMut;
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::interceptor::{NackGeneratorBuilder, NackResponderBuilder, Registry, Slot};
use rtc::peer_connection::configuration::interceptor_registry::{
    configure_rtcp_reports, configure_simulcast_extension_headers, configure_twcc,
};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::{
    CandidateConfig, CandidateHostConfig, RTCIceCandidate, RTCIceCandidateInit,
};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpHeaderExtensionCapability, RtpCodecKind};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverId, RTCRtpTransceiverInit};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use crate::codec::Codec;
use crate::key_requests::KeyRequests;
use crate::publication::{AUDIO_LEVEL, Publication};

/// The crate's generator knows nothing of retransmission streams and would ask for what came long ago, again and again.
const MOST_REQUESTS_PER_PACKET: u16 = 3;

/// Streams that nobody ever promises are forgotten from here on.
const MOST_HASTY: usize = 64;

pub struct Connection {
    pub pc: RTCPeerConnection,
    pub reliable: RTCDataChannelId,
    pub lossy: RTCDataChannelId,
    pub key_requests: Receiver<u32>,
    local: SocketAddr,
    /// Candidates that came before the first answer.
    early: Vec<RTCIceCandidateInit>,
    /// The SSRCs of the last answer.
    promised: BTreeSet<u32>,
    /// Streams whose first packets came before the answer that names them: the crate drops such packets.
    hasty: BTreeSet<u32>,
}

impl Connection {
    pub fn new(local: SocketAddr, now: Instant) -> Result<Self> {
        let mut media = MediaEngine::default();
        for parameters in Codec::Opus.parameters() {
            media.register_codec(parameters, RtpCodecKind::Audio)?;
        }
        for parameters in Codec::VIDEO.iter().flat_map(|codec| codec.parameters()) {
            media.register_codec(parameters, RtpCodecKind::Video)?;
        }
        configure_simulcast_extension_headers(&mut media)?;
        let level = RTCRtpHeaderExtensionCapability { uri: AUDIO_LEVEL.to_owned() };
        media.register_header_extension(level, RtpCodecKind::Audio, None)?;
        let (sender, key_requests) = channel();
        let registry = configure_twcc(configure_rtcp_reports(Registry::new()), &mut media)?
            .with(Slot::NackResponder, NackResponderBuilder::new().build())
            .with(
                Slot::NackGenerator,
                NackGeneratorBuilder::new().with_max_nacks_per_packet(MOST_REQUESTS_PER_PACKET).build(),
            )
            .with(Slot::from(500), KeyRequests::new(sender)); // before those that keep what they understand
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_media_engine(media)
            .with_setting_engine(SettingEngineBuilder::new().build())
            .with_interceptor_registry(registry)
            .build(now)?;
        let host = CandidateHostConfig {
            base_config: CandidateConfig {
                network: "udp".to_owned(),
                address: local.ip().to_string(),
                port: local.port(),
                component: 1,
                ..CandidateConfig::default()
            },
            ..CandidateHostConfig::default()
        };
        pc.add_local_candidate(RTCIceCandidate::from(&host.new_candidate_host()?).to_json()?)?;
        let unreliable = || RTCDataChannelInit {
            ordered: false,
            max_retransmits: Some(0),
            ..RTCDataChannelInit::default()
        };
        let reliable = pc.create_data_channel("_reliable", None)?.id();
        let lossy = pc.create_data_channel("_lossy", Some(unreliable()))?.id();
        pc.create_data_channel("_data_track", Some(unreliable()))?;
        Ok(Self {
            pc,
            reliable,
            lossy,
            key_requests,
            local,
            early: Vec::new(),
            promised: BTreeSet::new(),
            hasty: BTreeSet::new(),
        })
    }

    /// Room for what others publish.
    pub fn add_receivers(&mut self, audios: u32, videos: u32) -> Result<()> {
        for (kind, count) in [(RtpCodecKind::Audio, audios), (RtpCodecKind::Video, videos)] {
            for _ in 0..count {
                self.pc.add_transceiver_from_kind(kind, None)?;
            }
        }
        Ok(())
    }

    pub fn add_sender(&mut self, publication: &Publication) -> Result<RTCRtpTransceiverId> {
        let kind = if publication.codec.is_video() { RtpCodecKind::Video } else { RtpCodecKind::Audio };
        let encodings = publication.encoding_parameters();
        let stream = format!("stream-{}", publication.cid);
        let track = rtc::media_stream::MediaStreamTrack::new(
            stream.clone(),
            publication.cid.clone(),
            publication.cid.clone(),
            kind,
            encodings.clone(),
        );
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Sendonly,
            streams: vec![stream],
            send_encodings: encodings,
        };
        let transceiver = self.pc.add_transceiver_from_track(track, Some(init))?;
        let mut added = self.pc.rtp_transceiver(transceiver).context("the transceiver just added")?;
        added.set_codec_preferences(publication.codec.parameters())?;
        Ok(transceiver)
    }

    pub fn offer(&mut self, now: Instant) -> Result<String> {
        let offer = self.pc.create_offer(None)?;
        self.pc.set_local_description(now, offer)?;
        Ok(self.pc.local_description().context("it was just set")?.sdp)
    }

    pub fn answered(&mut self, now: Instant, sdp: String) -> Result<()> {
        let ssrcs =
            sdp.lines().filter_map(|line| line.strip_prefix("a=ssrc:")?.split(' ').next()?.parse().ok());
        self.promised = ssrcs.collect();
        self.pc.set_remote_description(now, RTCSessionDescription::answer(sdp)?)?;
        for candidate in std::mem::take(&mut self.early) {
            self.pc.add_remote_candidate(candidate)?;
        }
        Ok(())
    }

    /// As LiveKit trickles it: JSON of a browser's candidate.
    pub fn add_candidate(&mut self, json: &str) -> Result<()> {
        let candidate: RTCIceCandidateInit = serde_json::from_str(json)?;
        if self.pc.remote_description().is_some() {
            self.pc.add_remote_candidate(candidate)?;
        } else {
            self.early.push(candidate);
        }
        Ok(())
    }

    pub fn received(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if let Some(ssrc) = ssrc_of(datagram).filter(|ssrc| !self.promised.contains(ssrc))
            && self.hasty.len() < MOST_HASTY
        {
            self.hasty.insert(ssrc);
        }
        let transport = TransportContext {
            local_addr: self.local,
            peer_addr: from,
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        // A datagram that cannot be read is as good as lost.
        let _ = self.pc.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(datagram) });
    }

    /// Whether the stream's first packets were dropped. Asked once.
    pub fn was_hasty(&mut self, ssrc: u32) -> bool {
        self.hasty.remove(&ssrc)
    }

    pub fn send_rtp(&mut self, now: Instant, track: &str, packet: rtc::rtp::Packet) -> Result<()> {
        let message = RTCMessage::RtpPacket(track.to_owned(), packet);
        Ok(self.pc.handle_write(TaggedRTCMessage { now, message })?)
    }

    pub fn ask_for_key_frame(&mut self, now: Instant, track: &str, media_ssrc: u32) -> Result<()> {
        let loss = PictureLossIndication { sender_ssrc: 0, media_ssrc };
        let message = RTCMessage::RtcpPacket(track.to_owned(), vec![Box::new(loss)]);
        Ok(self.pc.handle_write(TaggedRTCMessage { now, message })?)
    }

    pub fn send_data(&mut self, now: Instant, reliable: bool, data: &[u8]) -> Result<()> {
        let id = if reliable { self.reliable } else { self.lossy };
        let mut channel = self.pc.data_channel(id).context("the data channel is closed")?;
        Ok(channel.send(now, BytesMut::from(data))?)
    }
}

/// Of an RTP datagram; SRTP leaves the header readable. Told from others as RFC 7983 and RFC 5761 tell them.
fn ssrc_of(datagram: &[u8]) -> Option<u32> {
    let is_rtp = (128..192).contains(datagram.first()?) && !(192..224).contains(datagram.get(1)?);
    let ssrc = datagram.get(8..12).filter(|_| is_rtp)?;
    Some(u32::from_be_bytes(ssrc.try_into().ok()?))
}
