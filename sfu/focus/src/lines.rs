//! The state of every line, for an operator who asks why somebody's picture is small.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};
use weir_core::shard::{LineState, PictureState};
use weir_units::media::Layer;

use crate::shards::{Control, ShardHandle};

/// A thread that does not answer within this is in more trouble than lines.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks all threads, one question at a time: the answer costs each of them a walk over its peers.
#[derive(Clone)]
pub struct Lines {
    shards: Vec<ShardHandle>,
    asking: Arc<Semaphore>,
}

impl Lines {
    pub fn new(shards: Vec<ShardHandle>) -> Self {
        Self { shards, asking: Arc::new(Semaphore::new(1)) }
    }

    /// `GET /debug/lines`.
    pub async fn answer(self) -> Response {
        let Ok(_turn) = self.asking.try_acquire() else {
            return (StatusCode::TOO_MANY_REQUESTS, "somebody else is asking; try again\n").into_response();
        };
        let mut all = Vec::new();
        for shard in &self.shards {
            let (asked, answer) = oneshot::channel();
            let lines = match shard.tell(Control::Lines(asked)) {
                true => tokio::time::timeout(PATIENCE, answer).await.ok().and_then(Result::ok),
                false => None,
            };
            let Some(lines) = lines else {
                let text = format!("shard {} does not answer\n", shard.index);
                return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
            };
            all.extend(lines.iter().map(|line| describe(shard.index, line)));
        }
        let json = [(header::CONTENT_TYPE, "application/json")];
        (json, format!("{:#}\n", json!({ "lines": all }))).into_response()
    }
}

fn describe(shard: u8, line: &LineState) -> Value {
    json!({
        "shard": shard,
        "conference": line.conference.0,
        "peer": line.peer.0,
        "available_bps": line.available,
        "target_bps": line.target,
        "acknowledged_bps": line.acknowledged,
        "because": line.because.name(),
        "queue_ms": millis(line.queue),
        "round_trip_ms": millis(line.round_trip),
        "loss": line.loss,
        "pictures": line.pictures.iter().map(picture).collect::<Vec<_>>(),
    })
}

fn picture(picture: &PictureState) -> Value {
    json!({
        "subscription": picture.subscription.0,
        "publication": picture.publication.0,
        "wished": layer(picture.wished),
        "granted": layer(picture.granted),
        "reason": picture.reason.name(),
        "encoding": picture.encoding,
    })
}

/// The best there is, whatever it is, has no number.
fn layer(layer: Option<Layer>) -> Value {
    let number = |number: u8| if number == u8::MAX { json!("best") } else { json!(number) };
    layer.map_or(
        Value::Null,
        |layer| json!({ "spatial": number(layer.spatial), "temporal": number(layer.temporal) }),
    )
}

fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}
