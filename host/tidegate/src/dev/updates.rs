//! What open pages are told: how far the app has come, and what keeps it from coming further.

use crate::assemble;
use serde_json::json;
use std::sync::Arc;
use tidegate_edge::Pages;

/// Counters that pages compare with what they heard before.
pub(crate) struct DevUpdates {
    pages: Arc<Pages>,
    run: u64,
    pub(crate) version: u32,
    /// Files other than styles that changed.
    pub(crate) assets: u32,
    pub(crate) styles: u32,
    /// Why the latest change is not served.
    pub(crate) error: Option<String>,
}

impl DevUpdates {
    pub(crate) fn new(pages: Arc<Pages>) -> DevUpdates {
        DevUpdates {
            pages,
            run: assemble::unix_ms(),
            version: 1,
            assets: 0,
            styles: 0,
            error: None,
        }
    }

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
        self.pages.tell(&json!({ "run": run, "version": version, "assets": assets, "styles": styles, "error": error }).to_string());
    }
}

/// Without the colours of a terminal (ECMA-48: `ESC [ … letter`).
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
    fn colours_are_for_terminals() {
        assert_eq!(
            super::plain("\x1b[1m\x1b[38;5;9merror[E0425]\x1b[0m: a[0] and ü\x1b[0m"),
            "error[E0425]: a[0] and ü"
        );
        assert_eq!(super::plain("plain"), "plain");
    }
}
