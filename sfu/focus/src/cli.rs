//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config};
use crate::{focus, logging};

/// A Matrix conference focus: forwards the media of group calls. LiveKit clients use it as they are.
#[derive(Parser)]
#[command(name = "weir", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start on loopback without any configuration; prints a URL, a key pair and two tokens
    Dev(Dev),
    /// Start with a configuration file
    Run {
        /// The configuration (TOML); `weir config --print-default` prints every key
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print or check a configuration
    Config(ConfigCommand),
    /// Print an access token for one person and one room
    Token(Token),
}

#[derive(Args)]
struct Dev {
    /// Address to listen on and to tell clients; other machines can connect only if it is not loopback
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "IP")]
    bind: IpAddr,
    /// Port for HTTP and WebSockets (TCP)
    #[arg(long, default_value_t = 7880)]
    port: u16,
    /// Port for media (UDP)
    #[arg(long, default_value_t = 7882)]
    udp_port: u16,
    /// Port for media of clients without UDP (TCP); 0 turns it off
    #[arg(long, default_value_t = 7881)]
    tcp_port: u16,
    /// Port for metrics and health (TCP, loopback); 0 turns it off
    #[arg(long, default_value_t = 7889)]
    admin_port: u16,
    /// API key
    #[arg(long, default_value = "devkey")]
    key: String,
    /// Secret of the API key
    #[arg(long, default_value = "secret")]
    secret: String,
    /// Threads that forward media; 0 is one a core
    #[arg(long, default_value_t = 0)]
    shards: u8,
    /// What to log: a level, or levels by module, such as `info,weir_core=debug`
    #[arg(long, default_value = "info")]
    log: String,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct ConfigCommand {
    /// Print every key with its meaning and default
    #[arg(long)]
    print_default: bool,
    /// Check a configuration file, with the environment's overrides, and say what is wrong with it
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

#[derive(Args)]
struct Token {
    /// API key
    #[arg(long, default_value = "devkey")]
    key: String,
    /// Secret of the API key
    #[arg(long, default_value = "secret", env = "WEIR_SECRET", hide_env_values = true)]
    secret: String,
    /// The room to join
    #[arg(long)]
    room: String,
    /// Who joins
    #[arg(long)]
    identity: String,
    /// How long the token is good for, in seconds
    #[arg(long, default_value_t = 6 * 3600, value_name = "SECONDS")]
    valid_for: u64,
}

pub fn run() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Dev(dev) => run_dev(dev),
        Command::Run { config } => {
            let config = config::load(&config, std::env::vars())?;
            logging::start(&config.log)?;
            for (name, right) in config::overlooked(std::env::vars().map(|(name, _)| name)) {
                tracing::warn!(
                    name,
                    right,
                    "an environment variable is ignored: two underscores part its words"
                );
            }
            focus::run(config, |_| {})
        }
        Command::Config(ConfigCommand { check: Some(path), .. }) => {
            config::load(&path, std::env::vars())?;
            for (name, right) in config::overlooked(std::env::vars().map(|(name, _)| name)) {
                eprintln!("{name} is ignored: write {right}");
            }
            println!("{}: fine", path.display());
            Ok(())
        }
        Command::Config(_) => {
            print!("{}", config::DEFAULT);
            Ok(())
        }
        Command::Token(token) => {
            let Token { key, secret, room, identity, valid_for } = token;
            println!("{}", mint(&key, &secret, &identity, &room, Duration::from_secs(valid_for))?);
            Ok(())
        }
    }
}

fn run_dev(dev: Dev) -> anyhow::Result<()> {
    let mut config = Config::default();
    config.http.bind = SocketAddr::new(dev.bind, dev.port);
    config.admin.bind = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), dev.admin_port);
    config.media.bind = vec![dev.bind];
    config.media.udp_port = dev.udp_port;
    config.media.tcp_port = dev.tcp_port;
    config.media.shards = dev.shards;
    config.keys = [(dev.key.clone(), dev.secret.clone())].into();
    config.log.level = dev.log;
    logging::start(&config.log)?;
    let room = "dev";
    let day = Duration::from_secs(24 * 3600);
    let tokens =
        ["alice", "bob"].map(|identity| (identity, mint(&dev.key, &dev.secret, identity, room, day)));
    focus::run(config, move |started| {
        println!("Weir runs on this machine, for trying out. It stops with Ctrl-C.\n");
        println!("  URL       ws://{}", started.http);
        println!("  API key   {}", dev.key);
        println!("  secret    {}", dev.secret);
        println!("  room      {room}\n");
        for (identity, token) in &tokens {
            if let Ok(token) = token {
                println!("  token for {identity}:\n{token}\n");
            }
        }
        println!(
            "Paste the URL and a token into any LiveKit client. More tokens: weir token --room {room} --identity carol"
        );
        if let Some(admin) = started.admin {
            println!("Metrics: http://{admin}/metrics");
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "a token is for now")]
fn mint(key: &str, secret: &str, identity: &str, room: &str, valid_for: Duration) -> anyhow::Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    weir_livekit::token::mint(key, secret, identity, room, now, now + valid_for.as_secs())
        .context("the token could not be signed")
}
