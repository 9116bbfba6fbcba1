//! A client of the interop suite that is none of LiveKit's SDKs and no browser: webrtc-rs's sans-IO crate `rtc` underneath, and
//! LiveKit's signalling by hand over one peer connection. Driven like the suite's other programs: commands on standard
//! input, answers on standard output, one JSON a line.

mod clip;
mod clock;
mod codec;
mod command;
mod connection;
mod energy;
mod frame;
mod key_requests;
mod order;
mod publication;
mod remote;
mod room;
mod session;
mod signal;
mod vp9;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use command::{Command, CommandId, Track};
use session::{Input, Session};
use signal::Refused;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut session: Option<Session> = None;
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => {
                    let command: Command = serde_json::from_str(&line)?;
                    let id = command.id;
                    if let Some(result) = obey(&mut session, command).await.transpose() {
                        answer(id, result);
                    }
                    // What the command left to be sent.
                    turn(&mut session, Input::Due).await;
                }
                None => break,
            },
            input = input(&mut session) => turn(&mut session, input).await,
        }
    }
    if let Some(session) = &mut session {
        session.leave().await?;
    }
    Ok(())
}

async fn input(session: &mut Option<Session>) -> Input {
    match session {
        Some(session) if !session.is_over() => session.input().await,
        _ => std::future::pending().await,
    }
}

async fn turn(session: &mut Option<Session>, input: Input) {
    if let Some(session) = session.as_mut().filter(|session| !session.is_over()) {
        for (command, result) in session.turn(input).await {
            answer(command, result);
        }
    }
}

/// The answer, unless it comes later.
async fn obey(session: &mut Option<Session>, command: Command) -> Result<Option<Value>> {
    let Command { id, name, argument } = command;
    if name == "connect" {
        *session = Some(Session::connect(id, parse(argument)?).await?);
        return Ok(None);
    }
    let Some(session) = session else { return without_session(&name) };
    let answer = match name.as_str() {
        "publish" => {
            session.publish(id, &parse(argument)?)?;
            return Ok(None);
        }
        "unpublish" => session.unpublish(&parse::<Track>(argument)?.sid)?,
        "mute" => {
            let Track { sid, muted, .. } = parse(argument)?;
            session.mute(&sid, muted)?
        }
        "subscribe" => {
            let Track { sid, subscribed, .. } = parse(argument)?;
            session.subscribe(&sid, subscribed)
        }
        "quality" => {
            let Track { sid, quality, .. } = parse(argument)?;
            session.choose(&sid, quality)
        }
        "send" => session.send(parse(argument)?)?,
        "remote" => session.remote(),
        "participants" => session.participants(),
        "received" => session.received(),
        "events" => session.events(),
        "state" => session.state(),
        "disconnect" => session.leave().await?,
        _ => bail!("no command {name}"),
    };
    Ok(Some(answer))
}

fn without_session(name: &str) -> Result<Option<Value>> {
    match name {
        "remote" | "participants" | "received" | "events" => Ok(Some(json!([]))),
        "state" => Ok(Some(json!({ "state": "new" }))),
        _ => bail!("{name}: not connected"),
    }
}

fn parse<T: DeserializeOwned>(argument: Option<Value>) -> Result<T> {
    serde_json::from_value(argument.unwrap_or_else(|| json!({}))).context("the command's argument")
}

fn answer(id: CommandId, result: Result<Value>) {
    let answer = match result {
        Ok(ok) => json!({ "id": id, "ok": ok }),
        Err(error) => {
            let status = error.downcast_ref::<Refused>().map(|refused| refused.0);
            json!({ "id": id, "error": format!("{error:#}"), "status": status })
        }
    };
    println!("{answer}");
}
