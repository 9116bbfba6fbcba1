//! Logs on standard error: for people or for machines.

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, Log, LogFormat};

pub fn start(config: &Log) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| ConfigError::Value {
        key: "log.level".to_owned(),
        value: config.level.clone(),
        problem: error.to_string(),
        remedy:
            "use off, error, warn, info, debug or trace, or levels by module such as info,weir_livekit=debug"
                .to_owned(),
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start within a process keeps the first: tests do that.
    let _ = match config.format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}
