//! Updates for open pages: the served version, changed assets, and the latest error.

use crate::assemble;
use serde_json::json;
use std::sync::Arc;
use tidegate_edge::DevChannel;

/// The state that pages compare with the state that they received before.
pub(crate) struct DevUpdates {
    channel: Arc<DevChannel>,
    /// Identifies the run of the command: its start, as Unix time in milliseconds.
    run: u64,
    pub(crate) version: u32,
    /// Number of changes of assets other than style sheets.
    pub(crate) assets: u32,
    /// Number of changes of style sheets.
    pub(crate) styles: u32,
    /// Report of the error that keeps the latest change from being served.
    pub(crate) error: Option<String>,
}

impl DevUpdates {
    pub(crate) fn new(channel: Arc<DevChannel>) -> DevUpdates {
        DevUpdates {
            channel,
            run: assemble::unix_ms(),
            version: 1,
            assets: 0,
            styles: 0,
            error: None,
        }
    }

    /// Sends the state to all open pages.
    pub(crate) fn send(&self) {
        let DevUpdates {
            run,
            version,
            assets,
            styles,
            error,
            ..
        } = self;
        let error = error.as_deref().map(plain);
        self.channel.publish(&json!({ "run": run, "version": version, "assets": assets, "styles": styles, "error": error }).to_string());
    }
}

/// Removes the colours of a terminal (ECMA-48: `ESC [ … letter`).
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| {
        plain
            + part
                .trim_start_matches(|char: char| char.is_ascii_digit() || char == ';')
                .get(1..)
                .unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn colours_are_removed() {
        assert_eq!(
            super::plain("\x1b[1m\x1b[38;5;9merror[E0425]\x1b[0m: a[0] and ü\x1b[0m"),
            "error[E0425]: a[0] and ü"
        );
        assert_eq!(super::plain("plain"), "plain");
    }
}
