//! What the suite asks for, as it comes in.

use serde::Deserialize;
use serde_json::Value;

/// The number by which the suite knows a command.
pub type CommandId = u64;

#[derive(Deserialize)]
pub struct Command {
    pub id: CommandId,
    pub name: String,
    #[serde(default)]
    pub argument: Option<Value>,
}

#[derive(Deserialize)]
pub struct Track {
    pub sid: String,
    #[serde(default)]
    pub muted: bool,
    #[serde(default)]
    pub subscribed: bool,
    /// As LiveKit numbers them: from 0, the lowest, to 2.
    #[serde(default)]
    pub quality: i32,
}

#[derive(Deserialize)]
pub struct Connect {
    pub url: String,
    pub token: String,
    #[serde(default)]
    pub options: Options,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    pub auto_subscribe: bool,
    /// Counts the sound that comes, without decoding it: for crowds, in which that is most of the work.
    pub is_deaf: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { auto_subscribe: true, is_deaf: false }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Publish {
    /// `camera`, `screen` or `microphone`.
    pub source: String,
    pub codec: String,
    pub simulcast: bool,
    /// Of a microphone: nobody speaks, and sound goes as rarely as Opus sends it in silence (DTX).
    pub is_quiet: bool,
}

impl Default for Publish {
    fn default() -> Self {
        Self { source: "camera".to_owned(), codec: "vp8".to_owned(), simulcast: true, is_quiet: false }
    }
}

#[derive(Deserialize)]
pub struct Send {
    pub text: String,
    #[serde(default)]
    pub topic: Option<String>,
    /// Identities; everybody without them.
    #[serde(default)]
    pub to: Option<Vec<String>>,
    #[serde(default = "yes")]
    pub reliable: bool,
}

fn yes() -> bool {
    true
}
