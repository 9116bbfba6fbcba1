//! Reading a configuration, and naming what is wrong with it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::check::check;
use super::explain::explain;
use super::{Config, every_key};

/// Overrides are variables of this prefix, with sections and keys parted by two underscores.
const ENVIRONMENT_PREFIX: &str = "WEIR__";

/// What an operator has to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{key}: {path}: {error}\n  remedy: {remedy}", path = path.display())]
    File { key: &'static str, path: PathBuf, error: std::io::Error, remedy: &'static str },
    #[error(
        "{file}, line {line} is not TOML: {problem}
  remedy: mend it; `weir config --print-default` shows how keys are written"
    )]
    Syntax { file: String, line: usize, problem: String },
    #[error("{key} = {value}: {problem}\n  remedy: {remedy}")]
    Value { key: String, value: String, problem: String, remedy: String },
}

/// Reads the file, applies the environment, checks every value.
pub fn load(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        key: "--config",
        path: path.to_owned(),
        error,
        remedy: "name a file that exists and that weir may read; `weir config --print-default` prints one to begin with",
    })?;
    parse(&path.display().to_string(), &text, environment)
}

pub(super) fn parse(
    file: &str,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // Not the line itself: a secret may stand there.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.split('\n').count();
        ConfigError::Syntax { file: file.to_owned(), line, problem: error.message().replace('\n', ", ") }
    })?;
    let mut overridden = Vec::new();
    for (name, value) in environment {
        if let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) {
            overridden.push((override_key(&mut table, path, &value), name));
        }
    }
    understand(&table).map_err(|error| name_variable(error, &overridden))
}

fn understand(table: &toml::Table) -> Result<Config, ConfigError> {
    let mut config: Config = serde_path_to_error::deserialize(toml::Value::Table(table.clone()))
        .map_err(|error| explain(table, &error.path().to_string(), error.inner().message()))?;
    if let Some(path) = config.key_file.clone() {
        config.keys.extend(read_key_file(&path)?);
    }
    check(&config)?;
    Ok(config)
}

/// `MEDIA__UDP_PORT` is `media.udp_port`. What is no TOML value is a string. Returns the key.
fn override_key(table: &mut toml::Table, path: &str, text: &str) -> String {
    let mut parts: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    // Names of API keys are the operator's, and secrets are text even if they look like numbers.
    let is_api_key = parts.len() == 2 && parts[0] == "keys";
    if is_api_key {
        path["keys__".len()..].clone_into(&mut parts[1]);
    }
    let value = if is_api_key {
        None
    } else {
        format!("x = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("x"))
    };
    let value = value.unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let full = parts.join(".");
    let Some(key) = parts.pop() else { return full };
    let mut table = table;
    for part in parts {
        let entry = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if !entry.is_table() {
            *entry = toml::Value::Table(toml::Table::new());
        }
        table = entry.as_table_mut().expect("it has just been made one");
    }
    table.insert(key, value);
    full
}

/// Whoever looks for the mistake in the file would not find it there.
fn name_variable(mut error: ConfigError, overridden: &[(String, String)]) -> ConfigError {
    if let ConfigError::Value { key, .. } = &mut error
        && let Some((_, name)) = overridden.iter().find(|(path, _)| key.starts_with(path.as_str()))
    {
        *key = format!("{key} (set by {name})");
    }
    error
}

/// Variables that look like overrides and are none, for want of an underscore: each with the right name. They are no
/// error, since container platforms set variables of their own that begin with a service's name.
pub fn overlooked(names: impl IntoIterator<Item = String>) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    list_keys(&every_key(), "", &mut keys);
    let meant = |name: &str| {
        let rest = name.strip_prefix("WEIR_")?.replace("__", "_");
        let key = keys.iter().find(|key| rest == key.replace("__", "_"))?;
        Some(format!("{ENVIRONMENT_PREFIX}{key}")).filter(|right| right != name)
    };
    names.into_iter().filter_map(|name| meant(&name).map(|right| (name, right))).collect()
}

/// All keys as variables name them, behind the prefix.
fn list_keys(table: &toml::Table, section: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        let key = format!("{section}{}", key.to_ascii_uppercase());
        match value.as_table() {
            Some(table) => list_keys(table, &format!("{key}__"), keys),
            None => keys.push(key),
        }
    }
}

fn read_key_file(path: &Path) -> Result<std::collections::BTreeMap<String, String>, ConfigError> {
    let file = |error| ConfigError::File {
        key: "key_file",
        path: path.to_owned(),
        error,
        remedy: "name a file that exists and that weir may read, or leave the key out and use [keys]",
    };
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
