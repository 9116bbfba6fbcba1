//! A deserialiser's complaint in an operator's words.

use super::{ConfigError, every_key};

/// What was expected, as the library says it; what that is; and what to write instead.
const EXPECTED: [(&str, &str, &str); 9] = [
    ("u8", "a number from 0 to 255", "write a number in that range, without quotes"),
    ("u16", "a number from 0 to 65535", "write a number in that range, without quotes"),
    ("u32", "a number from 0 to 4294967295", "write a number in that range, without quotes"),
    ("usize", "a number from 0 on", "write a number in that range, without quotes"),
    ("a boolean", "true or false", "write true or false, without quotes"),
    ("a string", "a text", "put it in quotes; in the environment, in two pairs: '\"…\"'"),
    ("path string", "a text", "put it in quotes; in the environment, in two pairs: '\"…\"'"),
    ("a sequence", "a list", "put it in square brackets: [\"…\"]"),
    ("a map", "a section", "write its name in square brackets on a line of its own, and its keys below"),
];

/// `key` is where the deserialiser stopped, `message` what it says.
pub(super) fn explain(table: &toml::Table, key: &str, message: &str) -> ConfigError {
    let message = message.trim().replace('\n', " ");
    let (problem, remedy) = reword(key, &message);
    // A secret may stand below a name that is misspelt, so what is unknown is not repeated.
    let may_be_secret = key.starts_with("keys") || key.starts_with("ice_servers") && !key.contains(".urls");
    let is_shown = !message.starts_with("unknown field") && !may_be_secret;
    let value = find(table, key).filter(|value| is_shown && is_plain(value));
    ConfigError::Value {
        key: key.to_owned(),
        value: value.map_or_else(|| "…".to_owned(), ToString::to_string),
        problem,
        remedy,
    }
}

fn reword(key: &str, message: &str) -> (String, String) {
    let (complaint, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    if complaint.starts_with("unknown field") {
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let name = key.rsplit('.').next().unwrap_or(key);
        let list = known.join(", ");
        let places = places(&every_key(), "", name);
        let remedy = match nearest(name, &known) {
            _ if !places.is_empty() => {
                format!("{name} is a key of {}; the keys here are {list}", places.join(" and "))
            }
            Some(meant) => format!("perhaps you mean {meant}; the keys here are {list}"),
            None => format!("the keys here are {list}"),
        };
        return ("there is no such key".to_owned(), remedy);
    }
    if complaint.starts_with("unknown variant") {
        return ("that is no choice".to_owned(), format!("choose {}", expected.replace('`', "\"")));
    }
    if message.starts_with("missing field") {
        return (message.to_owned(), "add it, or take the section out".to_owned());
    }
    match message {
        "invalid socket address syntax" => (
            "that is no IP address with a port".to_owned(),
            "write for example \"127.0.0.1:7880\" or \"[::1]:7880\"; names are not looked up".to_owned(),
        ),
        "invalid IP address syntax" if key.contains("networks") => {
            ("that is no network".to_owned(), "write for example \"10.0.0.0/8\" or \"::1/128\"".to_owned())
        }
        "invalid IP address syntax" => (
            "that is no IP address".to_owned(),
            "write for example \"192.0.2.1\" or \"2001:db8::1\"; names are not looked up".to_owned(),
        ),
        _ => {
            let expected = if expected.starts_with("struct ") { "a map" } else { expected };
            match EXPECTED.iter().find(|(theirs, ..)| *theirs == expected) {
                Some((_, ours, remedy)) => (format!("it must be {ours}"), (*remedy).to_owned()),
                None => (
                    message.to_owned(),
                    "`weir config --print-default` prints every key with its meaning and default".to_owned(),
                ),
            }
        }
    }
}

/// Where a key of this name belongs, below `section`.
fn places(table: &toml::Table, section: &str, name: &str) -> Vec<String> {
    // Names of API keys are the operator's.
    let tables = table.iter().filter(|(key, _)| !section.is_empty() || *key != "keys");
    let here = match section {
        "" => "the top, above the first [section]".to_owned(),
        section => format!("[{section}]"),
    };
    let is_here = table.get(name).is_some_and(|value| !value.is_table());
    let below = tables.filter_map(|(key, value)| {
        let section = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        Some(places(value.as_table()?, &section, name))
    });
    is_here.then_some(here).into_iter().chain(below.flatten()).collect()
}

/// The value at a path such as `media.bind[0]`.
fn find<'a>(table: &'a toml::Table, path: &str) -> Option<&'a toml::Value> {
    let mut parts = path.split('.').flat_map(|part| part.split('[')).map(|part| part.trim_end_matches(']'));
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = match value {
            toml::Value::Array(values) => values.get(part.parse::<usize>().ok()?)?,
            value => value.get(part)?,
        };
    }
    Some(value)
}

fn is_plain(value: &toml::Value) -> bool {
    match value {
        toml::Value::Table(_) => false,
        toml::Value::Array(values) => values.iter().all(is_plain),
        _ => true,
    }
}

/// The name that takes the fewest changes of a letter, if they are few.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distances = known.iter().map(|other| (distance(name, other), *other));
    distances
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, other)| other)
}

/// After Levenshtein.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
