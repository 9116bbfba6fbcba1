//! Logs on standard error: for people or for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{ConfigError, Log, LogFormat};

/// These write whole messages at their finer levels, and with them tokens and user ids: no setting lets them.
const TALKATIVE: [&str; 2] = ["tungstenite", "tokio_tungstenite"];

pub fn start(config: &Log) -> Result<(), ConfigError> {
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.level)?)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    // A second start within a process keeps the first: tests do that.
    let _ = match config.format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// The library complains of every answer that is no success, and of many that we take for one: what matters of them we say.
const GRUMBLING: &str = "matrix_sdk";

/// From `debug` or `info,weir_core=debug,dimpl=debug`. A level alone means our own modules; libraries say more than
/// `info` only where they are named.
pub fn filter(levels: &str) -> Result<EnvFilter, ConfigError> {
    directives(levels)
        .and_then(|directives| EnvFilter::try_new(directives).map_err(|error| error.to_string()))
        .map_err(|problem| ConfigError::Value {
            key: "log.level".to_owned(),
            value: levels.to_owned(),
            problem,
            remedy: "use off, error, warn, info, debug or trace, or levels by module such as info,weir_livekit=debug"
                .to_owned(),
        })
}

/// As the filter's own parser takes them; it would take a misspelt level for a module.
fn directives(levels: &str) -> Result<String, String> {
    let mut directives = Vec::new();
    for part in levels.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (module, level) = match part.split_once('=') {
            Some((module, level)) => (Some(module), level),
            None => (None, part),
        };
        let level: LevelFilter = level.parse().map_err(|_| format!("`{level}` is no level"))?;
        match module {
            Some(module) if TALKATIVE.iter().any(|talkative| module.starts_with(talkative)) => {}
            Some(module) => directives.push(format!("{module}={level}")),
            None => directives.push(format!("{},{GRUMBLING}=off,weir={level}", level.min(LevelFilter::INFO))),
        }
    }
    if directives.is_empty() {
        return Err("it names no level".to_owned());
    }
    Ok(directives.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_opens_our_own_modules_and_no_library_beyond_info() {
        assert_eq!(directives("trace").unwrap(), "info,matrix_sdk=off,weir=trace");
        assert_eq!(directives("warn").unwrap(), "warn,matrix_sdk=off,weir=warn");
        assert_eq!(
            directives("info, weir_core=debug,dimpl=debug").unwrap(),
            "info,matrix_sdk=off,weir=info,weir_core=debug,dimpl=debug"
        );
    }

    #[test]
    fn what_prints_tokens_is_never_opened() {
        let levels = "info,tungstenite=trace,tokio_tungstenite=debug,tungstenite::protocol=trace";
        assert_eq!(directives(levels).unwrap(), "info,matrix_sdk=off,weir=info");
    }

    #[test]
    fn a_misspelt_level_is_no_module() {
        for levels in ["loud", "info,weir_core=extreme", "", "info,weir_core", "="] {
            let error = filter(levels).unwrap_err().to_string();
            assert!(
                error.starts_with("log.level = ") && error.contains("remedy: use off"),
                "{levels}: {error}"
            );
        }
    }
}
