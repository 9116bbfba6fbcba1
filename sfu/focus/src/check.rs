//! `weir check`: what a client would meet on its way to a call, told to the operator.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use weir_check::{Hop, Options, Verdict, Web};

#[derive(Args)]
pub struct Check {
    /// The server name in your users' ids, such as example.org, or the URL of a homeserver
    #[arg(value_name = "SERVER_NAME", value_parser = NonEmptyStringValueParser::new())]
    server: String,
    /// An access token of a user there. Without one, what only users are told stays unchecked
    #[arg(long, env = "WEIR_ACCESS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    access_token: Option<String>,
    /// A room of that user, where the focus asks for membership; default: one that does not exist
    #[arg(long, value_name = "ROOM_ID")]
    room: Option<String>,
    /// Certificates of authorities to trust beside the public ones (PEM)
    #[arg(long, alias = "authorities", value_name = "FILE")]
    authorities_file: Option<PathBuf>,
}

pub fn run(check: Check) -> anyhow::Result<()> {
    let authorities = match &check.authorities_file {
        Some(path) => {
            std::fs::read(path).with_context(|| format!("--authorities-file: {}", path.display()))?
        }
        None => Vec::new(),
    };
    let web = Web::new(&authorities).context("--authorities-file")?;
    let options = Options { server: check.server, access_token: check.access_token, room: check.room };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let tell = |hop: &Hop, verdict: &Verdict| print!("{}", line(hop, verdict));
    match runtime.block_on(weir_check::walk(options, web, tell)) {
        Some(hop) => anyhow::bail!("clients get no further than this: {}", hop.name),
        None => Ok(()),
    }
}

fn line(hop: &Hop, verdict: &Verdict) -> String {
    let name = hop.name;
    match verdict {
        Verdict::Passed { detail, remarks } => {
            let remarks = remarks.iter().map(|remark| format!("        note: {remark}\n"));
            format!("ok      {name}: {detail}\n{}", remarks.collect::<String>())
        }
        Verdict::Failed { problem, remedy } => {
            format!("FAILED  {name}: {problem}\n        remedy: {remedy}\n")
        }
        Verdict::Unknown { why } => format!("?       {name}: {why}\n"),
    }
}
