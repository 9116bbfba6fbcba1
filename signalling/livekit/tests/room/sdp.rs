//! Offers as clients write them, and what of the room's descriptions a client acts on.

use std::collections::BTreeMap;

use livekit_protocol as proto;

const HEAD: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
const FINGERPRINT: &str =
    "sha-256 36:B2:CE:88:8E:B1:C6:64:F4:77:22:EB:40:CA:2F:DE:A2:4B:1B:46:E0:80:58:C6:42:A8:4A:58:67:73:25:4D";

/// An m-line of a client's.
#[derive(Clone)]
pub struct Line {
    pub mid: usize,
    kind: &'static str,
    direction: &'static str,
    /// The client's own name of the track that it sends.
    pub track: Option<String>,
    rids: &'static [&'static str],
    /// The video codecs it has, best first.
    codecs: &'static [&'static str],
}

impl Line {
    pub fn data(mid: usize) -> Self {
        Self { mid, kind: "application", direction: "sendrecv", track: None, rids: &[], codecs: &[] }
    }

    pub fn receiving(kind: &'static str, mid: usize) -> Self {
        Self { mid, kind, direction: "recvonly", track: None, rids: &[], codecs: &["VP8", "VP9", "H264"] }
    }

    pub fn sending(track: &proto::AddTrackRequest, mid: usize) -> Self {
        let is_video = track.r#type() == proto::TrackType::Video;
        let kind = if is_video { "video" } else { "audio" };
        let layers = track.simulcast_codecs.first().map_or(track.layers.len(), |codec| codec.layers.len());
        let rids: &[&str] = match layers {
            2 => &["q", "h"],
            3 => &["q", "h", "f"],
            _ => &[],
        };
        let codec = track.simulcast_codecs.first().map(|codec| codec.codec.as_str());
        let codecs: &[&str] = match codec {
            Some("av1") => &["AV1"],
            _ => &["VP8", "VP9", "H264"],
        };
        Self { mid, kind, direction: "sendonly", track: Some(track.cid.clone()), rids, codecs }
    }

    pub fn stop(&mut self) {
        self.direction = "inactive";
        self.track = None;
    }

    fn to_sdp(&self, generation: u32) -> String {
        let mut text = match self.kind {
            "application" => "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000\r\n\
                a=max-message-size:262144\r\n"
                .to_owned(),
            "audio" => "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=rtpmap:111 opus/48000/2\r\n\
                a=rtpmap:63 red/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=fmtp:63 111/111\r\n\
                a=rtcp-fb:111 nack\r\n"
                .to_owned(),
            _ => video(self.codecs),
        };
        text += &format!(
            "c=IN IP4 0.0.0.0\r\na=setup:actpass\r\na=mid:{}\r\na=ice-ufrag:client{generation}\r\n\
             a=ice-pwd:p4m+QG1pUAKTuSxxGSBALrPr\r\na=fingerprint:{FINGERPRINT}\r\na=rtcp-mux\r\n\
             a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n",
            self.mid
        );
        if self.kind != "application" {
            text += &format!("a={}\r\n", self.direction);
        }
        if let Some(track) = &self.track {
            text += &format!("a=msid:- {track}\r\n");
        }
        for rid in self.rids.iter().filter(|_| self.track.is_some()) {
            text += &format!("a=rid:{rid} send\r\n");
        }
        if !self.rids.is_empty() && self.track.is_some() {
            text += &format!("a=simulcast:send {}\r\n", self.rids.join(";"));
        }
        text
    }
}

fn video(codecs: &[&str]) -> String {
    let types: Vec<(usize, &str)> = codecs
        .iter()
        .map(|codec| match *codec {
            "VP8" => (96, *codec),
            "VP9" => (98, *codec),
            "H264" => (108, *codec),
            _ => (35, *codec),
        })
        .collect();
    let list: Vec<String> = types.iter().map(|(number, _)| format!("{number} {}", number + 1)).collect();
    let mut text = format!("m=video 9 UDP/TLS/RTP/SAVPF {}\r\n", list.join(" "));
    for (number, codec) in types {
        text += &format!(
            "a=rtpmap:{number} {codec}/90000\r\na=rtcp-fb:{number} nack\r\na=rtcp-fb:{number} nack pli\r\n\
             a=rtpmap:{} rtx/90000\r\na=fmtp:{} apt={number}\r\n",
            number + 1,
            number + 1
        );
        match codec {
            "VP9" => text += "a=fmtp:98 profile-id=0\r\n",
            "H264" => text += "a=fmtp:108 packetization-mode=1;profile-level-id=42e01f\r\n",
            _ => {}
        }
    }
    text
}

/// What clients offer with the join: data, and three m-lines of each kind for what others send.
pub fn usual_lines() -> Vec<Line> {
    let data = [Line::data(0)];
    let audio = (1..4).map(|mid| Line::receiving("audio", mid));
    let video = (4..7).map(|mid| Line::receiving("video", mid));
    data.into_iter().chain(audio).chain(video).collect()
}

pub fn offer(lines: &[Line], generation: u32) -> String {
    let lines: Vec<String> = lines.iter().map(|line| line.to_sdp(generation)).collect();
    format!("{HEAD}{}", lines.concat())
}

pub fn ufrag(description: &str) -> Option<String> {
    description.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).map(str::to_owned)
}

/// Stream and track by mid, of the m-lines that are sent on.
pub fn sent(description: &str) -> BTreeMap<String, (String, String)> {
    let mut sent = BTreeMap::new();
    for section in description.split("m=").skip(1) {
        let value = |name: &str| section.lines().find_map(|line| line.strip_prefix(name));
        let sends = section.lines().any(|line| line == "a=sendonly" || line == "a=sendrecv");
        if let (true, Some(mid), Some(msid)) = (sends, value("a=mid:"), value("a=msid:")) {
            let (stream, track) = msid.split_once(' ').expect("an msid has a stream and a track");
            sent.insert(mid.to_owned(), (stream.to_owned(), track.to_owned()));
        }
    }
    sent
}
