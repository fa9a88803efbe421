//! Parsers of the values of flags.

use crate::{grant, key, quantity};
use std::path::{Path, PathBuf};
use tidegate_wasm::Dir;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Parses a level or a filter. A word that is not a level would be a filter that matches no target,
/// so it is refused.
pub(super) fn filter(text: &str) -> Result<EnvFilter, String> {
    let is_known = text.contains('=')
        || text
            .split(',')
            .any(|part| part.trim().parse::<LevelFilter>().is_ok());
    let filter = EnvFilter::try_new(text).ok().filter(|_| is_known);
    filter.ok_or_else(|| "write error, warn, info, debug, trace or off, or a filter as in \"tidegate_edge=debug,info\"".into())
}

pub(super) fn tail_level(text: &str) -> Result<LevelFilter, String> {
    let level = text
        .parse()
        .ok()
        .filter(|level| (LevelFilter::ERROR..=LevelFilter::DEBUG).contains(level));
    level.ok_or_else(|| "write error, warn, info or debug".into())
}

/// Parses "name: value".
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| {
        format!("{text:?} is not a header: write it as in \"authorization: Bearer x\"")
    })?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn workers(text: &str) -> Result<usize, String> {
    quantity::count_to(key::WORKERS_MAX, text)
}

pub(super) fn instances(text: &str) -> Result<usize, String> {
    quantity::count_to(key::INSTANCES_MAX, text)
}

pub(super) fn dir(text: &str) -> Result<Dir, String> {
    grant::dir(text, Path::new(""))
}

pub(super) fn assets(text: &str) -> Result<PathBuf, String> {
    grant::assets(text, Path::new(""))
}
