//! The command line.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};

use ipnet::IpNet;
use weir_core::shard::MAX_SHARDS;
use weir_matrix::appservice::Registration;
use weir_matrix::names::ServerName;

use crate::config::{self, Config, ConfigError};
use crate::{check, focus, logging};

/// The longest that a token made here is good for: ten years, in seconds.
const MAX_VALIDITY: u32 = 10 * 366 * 24 * 3600;

/// Good on loopback only, since it is published.
const DEV_SECRET: &str = "secret";

/// A Matrix conference focus: forwards the media of group calls. LiveKit clients use it as they are.
#[derive(Parser)]
#[command(name = "weir", version, max_term_width = 100)]
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
    /// Print an access token for one person and one room; without --key and --secret it is for `weir dev`
    Token(Token),
    /// Walk the path that a Matrix client walks to a call, and name what stops it
    Check(check::Check),
    /// Make the focus an application service of its homeserver
    Appservice(AppserviceCommand),
}

#[derive(Args)]
struct Dev {
    /// Address to listen on and to tell clients; other machines can connect only if it is not loopback.
    /// 0.0.0.0 is all of this machine's. Where others can connect, choose a --secret: everybody knows the default one
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "IP")]
    bind: IpAddr,
    /// Port for HTTP and WebSockets (TCP)
    #[arg(long, default_value_t = 7880, value_name = "PORT")]
    port: u16,
    /// Port for media (UDP)
    #[arg(long, default_value_t = 7882, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    udp_port: u16,
    /// Port for media of clients without UDP (TCP); 0 turns it off
    #[arg(long, default_value_t = 7881, value_name = "PORT")]
    tcp_port: u16,
    /// Port for metrics and health (TCP, loopback); 0 turns it off
    #[arg(long, default_value_t = 7889, value_name = "PORT")]
    admin_port: u16,
    /// API key
    #[arg(long, default_value = "devkey", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    /// Secret of the API key
    #[arg(long, default_value = DEV_SECRET, value_parser = NonEmptyStringValueParser::new())]
    secret: String,
    /// Name of a Matrix homeserver that is tried out beside it
    #[arg(long, default_value = "localhost", value_name = "NAME", value_parser = parse_server_name)]
    server_name: String,
    /// Where that homeserver is asked about its users; without it, by federation
    #[arg(long, value_name = "URL")]
    homeserver_url: Option<String>,
    /// Authorities (PEM) to trust for homeservers' certificates beside the public ones
    #[arg(long, value_name = "FILE")]
    authorities_file: Option<PathBuf>,
    /// Threads that forward media; 0 is one a core
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=i64::from(MAX_SHARDS)))]
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
    /// Check a configuration file, with the environment's overrides and the files that it names, and say what is wrong
    /// with it. Run it as weir's user. Whether ports are free and what homeservers answer is not tried
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

#[derive(Args)]
struct AppserviceCommand {
    #[command(subcommand)]
    command: AppserviceAction,
}

#[derive(Subcommand)]
enum AppserviceAction {
    /// Write a registration with new tokens, for the homeserver and for `matrix.appservice.registration`
    Generate(Generate),
}

#[derive(Args)]
struct Generate {
    /// The homeserver, by the name in its users' ids
    #[arg(long, value_name = "NAME", value_parser = parse_server_name)]
    server_name: String,
    /// Where the homeserver reaches this focus: http.bind, as seen from there
    #[arg(long, default_value = "http://127.0.0.1:7880", value_name = "URL", value_parser = parse_http_url)]
    url: String,
    /// The file to write; one that exists is left alone
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Have the homeserver pass requests for tokens on to this focus too (MSC4195), for matrix.appservice.tokens = true
    #[arg(long)]
    tokens: bool,
}

#[derive(Args)]
struct Token {
    /// API key
    #[arg(long, default_value = "devkey", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    /// Secret of the API key
    #[arg(long, default_value = DEV_SECRET, env = "WEIR_SECRET", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    secret: String,
    /// The room to join
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    room: String,
    /// Who joins
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    identity: String,
    /// How long the token is good for, in seconds
    #[arg(long, default_value_t = 6 * 3600, value_name = "SECONDS", value_parser = 1..=MAX_VALIDITY as i64)]
    valid_for: i64,
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
            let config = config::load(&path, std::env::vars())?;
            for (name, right) in config::overlooked(std::env::vars().map(|(name, _)| name)) {
                eprintln!("{name} is ignored: write {right}");
            }
            focus::check(&config)?;
            say(&format!(
                "{}: fine. Not tried: whether its ports are free, and what homeservers answer\n",
                path.display()
            ));
            Ok(())
        }
        Command::Config(_) => {
            say(config::DEFAULT);
            Ok(())
        }
        Command::Check(check) => check::run(check),
        Command::Appservice(AppserviceCommand { command: AppserviceAction::Generate(generate) }) => {
            generate_registration(&generate)
        }
        Command::Token(token) => {
            let Token { key, secret, room, identity, valid_for } = token;
            let valid_for = Duration::from_secs(valid_for.unsigned_abs());
            say(&format!(
                "{}
",
                mint(&key, &secret, &identity, &room, valid_for)?
            ));
            Ok(())
        }
    }
}

fn generate_registration(Generate { server_name, url, out, tokens }: &Generate) -> anyhow::Result<()> {
    let server = ServerName::parse(server_name).context("the server's name was checked")?;
    let registration = Registration::new(&server, url, [random_token(), random_token()]);
    let registration = if *tokens { registration.with_tokens() } else { registration };
    let (for_homeserver, for_weir) = match tokens {
        true => (
            "\n  experimental_features: { msc4512_enabled: true }  # beside what stands there\n  # and matrix_rtc.transports \
             with \"url\": matrix.url of weir, beside livekit_service_url",
            "\n  tokens = true",
        ),
        false => ("", ""),
    };
    registration.write(out).map_err(|error| ConfigError::File {
        key: "--out",
        path: out.clone(),
        remedy: match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                "use that one, since the homeserver may know it; or name another file, and restart both with it"
            }
            _ => "name a file in a directory that is there and that you may write",
        },
        error,
    })?;
    say(&format!(
        "{file} is written. It holds secrets, and only you can read it. Let the homeserver and weir, by a group that both \
         are in:\n  chgrp GROUP {file} && chmod 640 {file}\n\nSynapse, homeserver.yaml:\n  \
         app_service_config_files: [\"{file}\"]{for_homeserver}\nWeir:\n  [matrix]\n  homeserver_url = \"http://127.0.0.1:8008\"  # its \
         client-server API\n  [matrix.appservice]\n  registration = \"{file}\"{for_weir}\n\nThen restart weir, and after it the \
         homeserver.\n",
        file = out.display()
    ));
    Ok(())
}

fn parse_http_url(text: &str) -> Result<String, String> {
    let has_host =
        ["http://", "https://"].iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    if has_host { Ok(text.to_owned()) } else { Err("write for example http://127.0.0.1:7880".to_owned()) }
}

/// 256 bits in hexadecimal.
#[expect(clippy::disallowed_methods, reason = "here the randomness is drawn that tokens are made of")]
fn random_token() -> String {
    let bytes: [u8; 32] = rand::Rng::random(&mut rand::rng());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run_dev(dev: Dev) -> anyhow::Result<()> {
    let mut config = Config::default();
    config.http.bind = SocketAddr::new(dev.bind, dev.port);
    config.admin.bind = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), dev.admin_port);
    // Nobody can send to "all addresses": then clients are told each of them.
    config.media.bind = if dev.bind.is_unspecified() { Vec::new() } else { vec![dev.bind] };
    config.media.udp_port = dev.udp_port;
    config.media.tcp_port = dev.tcp_port;
    config.media.shards = dev.shards;
    config.keys = [(dev.key.clone(), dev.secret.clone())].into();
    config.log.level.clone_from(&dev.log);
    config.matrix = dev_matrix(&dev);
    config.room.auto_create = Some(true);
    logging::start(&config.log).map_err(by_flag)?;
    let room = "dev";
    let day = Duration::from_secs(24 * 3600);
    let mut tokens = Vec::new();
    for identity in ["alice", "bob"] {
        tokens.push((identity, mint(&dev.key, &dev.secret, identity, room, day)?));
    }
    let started = move |started: &focus::Started| say(&greeting(&dev, room, &tokens, started));
    focus::run(config, started).map_err(|error| match error.downcast::<ConfigError>() {
        Ok(error) => by_flag(error).into(),
        Err(error) => error,
    })
}

/// Everybody may begin calls, and nothing is checked or kept. Where nobody else can ask, homeservers of this machine are
/// asked too.
fn dev_matrix(dev: &Dev) -> config::Matrix {
    let mut matrix = config::Matrix {
        server_name: dev.server_name.clone(),
        homeserver_url: dev.homeserver_url.clone(),
        creators: vec!["*".to_owned()],
        publishers: vec!["*".to_owned()],
        membership: config::Membership::Off,
        state_directory: PathBuf::new(),
        ..config::Matrix::default()
    };
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    if dev.bind.is_loopback() {
        matrix.openid.allow_networks = vec![
            IpNet::new(loopback[0], 8).expect("an IPv4 address has 32 bits"),
            IpNet::new(loopback[1], 128).expect("an IPv6 address has 128 bits"),
        ];
    }
    matrix.openid.authorities_file.clone_from(&dev.authorities_file);
    matrix
}

fn parse_server_name(text: &str) -> Result<String, String> {
    ServerName::parse(text)
        .map(|name| name.to_string())
        .ok_or_else(|| "write it as in its users' ids".to_owned())
}

fn greeting(dev: &Dev, room: &str, tokens: &[(&str, String)], started: &focus::Started) -> String {
    let Dev { key, secret, .. } = dev;
    let url = format!("ws://{}", started.reachable_http());
    let tokens = tokens
        .iter()
        .map(|(identity, token)| format!("  token for {identity}, good for a day:\n{token}\n\n"));
    let service = format!("http://{}{}", started.reachable_http(), config::Matrix::default().prefix);
    let metrics = started.admin.map(|admin| format!("Metrics: http://{admin}/metrics\n"));
    format!(
        "Weir runs on this machine, for trying out. It stops with Ctrl-C.\n{}\n  URL       {url}\n  API key   {key}\n  \
         secret    {secret}\n  room      {room}\n\n{}Paste the URL and a token into any LiveKit client. For more \
         people:\n  {}\nMatrix homeservers name it to their clients as livekit_service_url: {service}\n{}",
        caution(dev),
        tokens.collect::<String>(),
        more_tokens(dev, room),
        metrics.unwrap_or_default()
    )
}

/// What others may do who can connect.
fn caution(dev: &Dev) -> &'static str {
    match (dev.bind.is_loopback(), dev.secret == DEV_SECRET) {
        (true, _) => "",
        (false, true) => {
            "WARNING: others can reach it, and everybody knows its secret, so everybody may join any room. Choose \
             another with --secret; for more than trying out there is `weir run`.\n"
        }
        (false, false) => {
            "WARNING: others can reach it, and users of every homeserver may begin calls here. For more than trying \
             out there is `weir run`.\n"
        }
    }
}

/// Prints. Whoever has read enough, such as `head`, closes the pipe: no reason to fail.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The command that makes another token for the focus that runs.
fn more_tokens(dev: &Dev, room: &str) -> String {
    let defaults = (dev.key == "devkey", dev.secret == DEV_SECRET);
    let key = if defaults.0 { String::new() } else { format!(" --key {}", dev.key) };
    let secret = if defaults.1 { "" } else { " --secret …" };
    format!("weir token{key}{secret} --room {room} --identity carol")
}

/// Without a configuration file the keys are flags.
fn by_flag(error: ConfigError) -> ConfigError {
    const FLAGS: [(&str, &str); 9] = [
        ("http.bind", "--bind and --port"),
        ("admin.bind", "--admin-port"),
        ("media.bind", "--bind"),
        ("media.udp_port", "--udp-port"),
        ("media.tcp_port", "--tcp-port"),
        ("media.shards", "--shards"),
        ("log.level", "--log"),
        ("matrix.homeserver_url", "--homeserver-url"),
        ("matrix.openid.authorities_file", "--authorities-file"),
    ];
    match error {
        ConfigError::Value { key, value, problem, remedy } => {
            let flag = FLAGS.iter().find(|(known, _)| *known == key).map(|(_, flag)| (*flag).to_owned());
            ConfigError::Value { key: flag.unwrap_or(key), value, problem, remedy }
        }
        error => error,
    }
}

#[expect(clippy::disallowed_methods, reason = "a token is for now")]
fn mint(key: &str, secret: &str, identity: &str, room: &str, valid_for: Duration) -> anyhow::Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    weir_livekit::token::mint(key, secret, identity, room, now, now.saturating_add(valid_for.as_secs()))
        .context("the token could not be signed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<Cli, String> {
        Cli::try_parse_from(arguments.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn tokens_are_for_somebody_and_some_room_and_end_one_day() {
        assert!(parse("weir token --room x --identity y --valid-for 60").is_ok());
        for arguments in [
            "weir token --room x --identity ",
            "weir token --room  --identity y",
            "weir token --room x --identity y --secret ",
            "weir token --room x --identity y --valid-for 0",
            "weir token --room x --identity y --valid-for 18446744073709551615",
        ] {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn a_port_that_clients_cannot_be_told_is_refused() {
        assert!(parse("weir dev --udp-port 9000 --shards 26").is_ok());
        assert!(parse("weir dev --udp-port 0").is_err());
        assert!(parse("weir dev --shards 27").is_err());
    }

    #[test]
    fn where_others_can_connect_they_have_nothing_of_this_machine_asked_and_the_operator_is_warned() {
        let dev = |flags: &str| match parse(&format!("weir dev{flags}")).unwrap().command {
            Command::Dev(dev) => dev,
            _ => unreachable!("it was asked for"),
        };
        for flags in ["", " --bind ::1", " --bind 127.1.2.3"] {
            let dev = dev(flags);
            assert!(
                caution(&dev).is_empty() && !dev_matrix(&dev).openid.allow_networks.is_empty(),
                "{flags}"
            );
        }
        for (flags, remedy) in
            [(" --bind 0.0.0.0", "--secret"), (" --bind 192.0.2.1 --secret own", "weir run")]
        {
            let dev = dev(flags);
            assert!(caution(&dev).contains(remedy) && caution(&dev).contains("WARNING"), "{flags}");
            assert!(dev_matrix(&dev).openid.allow_networks.is_empty(), "{flags}");
        }
    }

    #[test]
    fn a_flag_is_named_where_there_is_no_file() {
        let error = ConfigError::Value {
            key: "media.udp_port".to_owned(),
            value: "127.0.0.1:7882".to_owned(),
            problem: "in use".to_owned(),
            remedy: "choose another port".to_owned(),
        };
        assert!(by_flag(error).to_string().starts_with("--udp-port = 127.0.0.1:7882"));
    }
}
