//! LiveKit's signalling: protobuf in WebSocket messages.

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub use proto::signal_request::Message as Request;
pub use proto::signal_response::Message as Response;

/// Weir's own, and the last before data channels are negotiated beforehand.
const PROTOCOL: i32 = 17;

pub struct Signal {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// Why there is no session.
#[derive(Debug)]
pub struct Refused(pub u16);

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "refused with status {}", self.0)
    }
}

impl std::error::Error for Refused {}

impl Signal {
    /// Joins, without an offer yet.
    pub async fn join(url: &str, token: &str, auto_subscribe: bool) -> Result<(Self, proto::JoinResponse)> {
        let request = proto::JoinRequest {
            client_info: Some(proto::ClientInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                protocol: PROTOCOL,
                os: std::env::consts::OS.to_owned(),
                ..proto::ClientInfo::default()
            }),
            connection_settings: Some(proto::ConnectionSettings {
                auto_subscribe,
                ..proto::ConnectionSettings::default()
            }),
            ..proto::JoinRequest::default()
        };
        let wrapped =
            proto::WrappedJoinRequest { join_request: request.encode_to_vec(), ..Default::default() };
        let wrapped = BASE64_URL_SAFE.encode(wrapped.encode_to_vec()).replace('=', "%3D");
        let url = format!("{}/rtc/v1?access_token={token}&join_request={wrapped}", url.trim_end_matches('/'));
        let socket = match connect_async(url).await {
            Ok((socket, _)) => socket,
            Err(tungstenite::Error::Http(response)) => bail!(Refused(response.status().as_u16())),
            Err(error) => return Err(error.into()),
        };
        let mut signal = Self { socket };
        match signal.next().await? {
            Some(Response::Join(join)) => Ok((signal, join)),
            other => bail!("the first message is {other:?}"),
        }
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Response>> {
        loop {
            match self.socket.next().await {
                None => return Ok(None),
                Some(message) => {
                    if let Message::Binary(binary) = message? {
                        let response = proto::SignalResponse::decode(binary)?;
                        return Ok(Some(response.message.context("an empty response")?));
                    }
                }
            }
        }
    }

    pub async fn send(&mut self, request: Request) -> Result<()> {
        let request = proto::SignalRequest { message: Some(request) };
        Ok(self.socket.send(Message::binary(request.encode_to_vec())).await?)
    }

    pub async fn close(&mut self) {
        // The other side may have closed first.
        let _ = self.socket.close(None).await;
    }
}
