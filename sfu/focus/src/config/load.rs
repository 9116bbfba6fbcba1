//! Reading a configuration, and naming what is wrong with it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Config;

/// Overrides are variables of this prefix, with sections and keys parted by two underscores.
const ENVIRONMENT_PREFIX: &str = "WEIR__";
/// RFC 7518 §3.2: an HS256 key has at least 256 bits. 32 characters of anything random have about that.
const MIN_SECRET_CHARS: usize = 32;
/// As many shards as user fragments can tell apart.
const MAX_SHARDS: u8 = weir_core::shard::MAX_SHARDS;

/// What an operator has to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {error}\n  remedy: name a file that exists and that weir may read; `weir config --print-default` prints one to begin with", path = path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("the configuration is not TOML: {0}")]
    Syntax(String),
    #[error("{key} = {value}: {problem}\n  remedy: {remedy}")]
    Value { key: String, value: String, problem: String, remedy: String },
}

/// Reads the file, applies the environment, checks every value.
pub fn load(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
    parse(&text, environment)
}

pub(super) fn parse(
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax(error.to_string().trim_end().to_owned()))?;
    for (name, value) in environment {
        if let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) {
            override_key(&mut table, path, &value);
        }
    }
    let mut config: Config = deserialize(&table)?;
    if let Some(path) = config.key_file.clone() {
        config.keys.extend(read_key_file(&path)?);
    }
    check(&config)?;
    Ok(config)
}

/// `MEDIA__UDP_PORT` is `media.udp_port`. What is no TOML value is a string.
fn override_key(table: &mut toml::Table, path: &str, text: &str) {
    let value = format!("x = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("x"));
    let value = value.unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let mut parts: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    let Some(key) = parts.pop() else { return };
    let mut table = table;
    for part in parts {
        let entry = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if !entry.is_table() {
            *entry = toml::Value::Table(toml::Table::new());
        }
        table = entry.as_table_mut().expect("it has just been made one");
    }
    table.insert(key, value);
}

fn deserialize(table: &toml::Table) -> Result<Config, ConfigError> {
    serde_path_to_error::deserialize::<_, Config>(toml::Value::Table(table.clone())).map_err(|error| {
        let key = error.path().to_string();
        let problem = error.inner().message().trim().replace('\n', " ");
        let value = if key.starts_with("keys") || key.contains("credential") {
            "…".to_owned()
        } else {
            find(table, &key).map_or_else(|| "?".to_owned(), ToString::to_string)
        };
        let remedy = "`weir config --print-default` prints every key with its meaning and default".to_owned();
        ConfigError::Value { key, value, problem, remedy }
    })
}

fn find<'a>(table: &'a toml::Table, path: &str) -> Option<&'a toml::Value> {
    let path = path.split('[').next().unwrap_or(path);
    let mut parts = path.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = value.get(part)?;
    }
    Some(value)
}

fn read_key_file(path: &Path) -> Result<std::collections::BTreeMap<String, String>, ConfigError> {
    let file = |error| ConfigError::File { path: path.to_owned(), error };
    let wrong = |problem: String, remedy: String| ConfigError::Value {
        key: "key_file".to_owned(),
        value: path.display().to_string(),
        problem,
        remedy,
    };
    let mode = std::fs::metadata(path).map_err(file)?.permissions().mode();
    if mode & 0o077 != 0 {
        let problem = format!("others may read it (mode {:03o})", mode & 0o777);
        return Err(wrong(problem, format!("chmod 600 {}", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(file)?;
    let table: toml::Table = text
        .parse()
        .map_err(|_| wrong("it is not TOML".to_owned(), "write one `name = \"secret\"` a line".to_owned()))?;
    std::collections::BTreeMap::deserialize(toml::Value::Table(table)).map_err(|_| {
        wrong("a secret in it is not a string".to_owned(), "write one `name = \"secret\"` a line".to_owned())
    })
}

/// What a type cannot say.
fn check(config: &Config) -> Result<(), ConfigError> {
    let wrong = |key: &str, value: String, problem: &str, remedy: &str| {
        Err(ConfigError::Value {
            key: key.to_owned(),
            value,
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        })
    };
    if config.keys.is_empty() {
        return wrong(
            "keys",
            "{}".to_owned(),
            "without an API key nobody can join",
            "add a [keys] section with `name = \"secret\"`; `openssl rand -hex 32` makes a secret",
        );
    }
    for (name, secret) in &config.keys {
        if secret.chars().count() < MIN_SECRET_CHARS {
            return wrong(
                &format!("keys.{name}"),
                "…".to_owned(),
                "the secret has less than 32 characters: tokens could be forged",
                "`openssl rand -hex 32` makes a good one",
            );
        }
    }
    if config.media.udp_port == 0 {
        return wrong(
            "media.udp_port",
            "0".to_owned(),
            "clients must know where to send",
            "choose a port from 1 to 65535",
        );
    }
    if config.media.shards > MAX_SHARDS {
        return wrong(
            "media.shards",
            config.media.shards.to_string(),
            "that is more than a focus can have",
            &format!("choose from 1 to {MAX_SHARDS}, or 0 for one a core"),
        );
    }
    for (at, server) in config.ice_servers.iter().enumerate() {
        let known = |url: &String| {
            ["stun:", "stuns:", "turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme))
        };
        if server.urls.is_empty() || !server.urls.iter().all(known) {
            return wrong(
                &format!("ice_servers[{at}].urls"),
                format!("{:?}", server.urls),
                "clients take stun:, stuns:, turn: and turns: URLs only",
                "write for example \"turn:turn.example.org:3478?transport=udp\"",
            );
        }
    }
    Ok(())
}
