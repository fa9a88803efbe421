//! Compares the guide's page of limits with the settings, the constants and the tests, or rewrites
//! it.
//!
//! A row has the bounded quantity, the effect beyond the limit, and the tests that cross the limit:
//! at least one of them is in `tidegate/tests`, so it crosses the limit from outside. Defaults come
//! from [`Config`] and from the constants. A limit without a row, a row without a limit, and a row
//! without such a test are errors.

mod app;
mod network;

use crate::{
    config::Config,
    key::{KEYS, SettingKey},
    quantity::{Size, Time},
    reference::assert_page_is,
};
use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, time::Duration};

const PAGE: &str = "../../docs/src/reference/limits.md";

const HEAD: &str = "\
# Limits

Every quantity that a client or an app can increase has a limit. Limits with a setting are set in
`tidegate.toml`, or for one run by `--limit KEY=VALUE` (keys of `[limits]`); the others are fixed. A
test crosses each limit from outside.

Numbers are HTTP statuses, except close codes of WebSockets, which are named so. An error to the app is
the error that its call returns; the app chooses the answer to the client.
";

/// A limit.
struct LimitRow {
    limit: LimitSource,
    /// The bounded quantity.
    what: &'static str,
    /// Effect beyond the limit, as the client, the app or the operator sees it.
    beyond: &'static str,
    /// Tests that cross it, as "FILE::FUNCTION", the file below `host`.
    tests: &'static [&'static str],
}

enum LimitSource {
    /// Section and name.
    Setting(&'static str, &'static str),
    /// Name and value.
    Fixed(&'static str, LimitValue),
}

enum LimitValue {
    Bytes(usize),
    Count(usize),
    Time(Duration),
}

const fn setting(
    section: &'static str,
    name: &'static str,
    what: &'static str,
    beyond: &'static str,
    tests: &'static [&'static str],
) -> LimitRow {
    LimitRow {
        limit: LimitSource::Setting(section, name),
        what,
        beyond,
        tests,
    }
}

const fn limit(
    name: &'static str,
    what: &'static str,
    beyond: &'static str,
    tests: &'static [&'static str],
) -> LimitRow {
    setting("limits", name, what, beyond, tests)
}

const fn fixed(
    name: &'static str,
    value: LimitValue,
    what: &'static str,
    beyond: &'static str,
    tests: &'static [&'static str],
) -> LimitRow {
    LimitRow {
        limit: LimitSource::Fixed(name, value),
        what,
        beyond,
        tests,
    }
}

/// Settings that are not limits.
const NO_LIMITS: [&str; 17] = [
    "listen",
    "assets",
    "assets_cache",
    "assets_links",
    "origins",
    "require_origin",
    "hosts",
    "trusted",
    "workers",
    "data",
    "file",
    "reuse_foreign",
    "env",
    "dirs",
    "outbound",
    "ca",
    "drop_oldest",
];

type Group = (&'static str, &'static [LimitRow]);

/// All limits, by group.
const GROUPS: &[Group] = &[
    network::CONNECTIONS,
    network::REQUESTS,
    network::WEBSOCKETS_AND_FEEDS,
    network::TOPICS,
    app::ROOMS,
    app::PAGES_AND_FORMS,
    app::THE_APP,
];

/// Returns the default of a setting with a parser of its own.
fn own(config: &Config, name: &str) -> String {
    match name {
        "outbound_bytes_max" => Size(config.app.outbound.body_bytes_max as usize).to_string(),
        name => panic!("{name} is not a quantity"),
    }
}

fn rows() -> impl Iterator<Item = &'static LimitRow> {
    GROUPS.iter().flat_map(|(_, rows)| rows.iter())
}

#[test]
fn the_guide_has_every_limit_with_its_default() {
    let mut page = HEAD.to_owned();
    let config = Config::default();
    for (name, rows) in GROUPS {
        _ = write!(
            page,
            "\n## {name}\n\n| limit | default | setting | beyond it |\n|---|---|---|---|\n"
        );
        for LimitRow {
            limit,
            what,
            beyond,
            ..
        } in *rows
        {
            let (default, set_by) = match limit {
                LimitSource::Setting(section, name) => {
                    let key = SettingKey::find(section, name)
                        .unwrap_or_else(|| panic!("there is no setting {section}.{name}"));
                    (
                        key.quantity(&config).unwrap_or_else(|| own(&config, name)),
                        format!("`[{section}] {name}`"),
                    )
                }
                LimitSource::Fixed(_, LimitValue::Bytes(bytes)) => {
                    (Size(*bytes).to_string(), "fixed".to_owned())
                }
                LimitSource::Fixed(_, LimitValue::Count(count)) => {
                    (count.to_string(), "fixed".to_owned())
                }
                LimitSource::Fixed(_, LimitValue::Time(time)) => {
                    (Time(*time).to_string(), "fixed".to_owned())
                }
            };
            _ = writeln!(page, "| {what} | {default} | {set_by} | {beyond} |");
        }
    }
    assert_page_is(PAGE, &page);
}

#[test]
fn every_limiting_setting_and_constant_has_a_row() {
    let set: BTreeSet<&str> = rows()
        .filter_map(|row| match row.limit {
            LimitSource::Setting(_, name) => Some(name),
            LimitSource::Fixed(..) => None,
        })
        .collect();
    for key in KEYS {
        assert_ne!(
            set.contains(key.name),
            NO_LIMITS.contains(&key.name),
            "[{}] {}: give it a row",
            key.section,
            key.name
        );
    }
    let fixed: BTreeSet<&str> = rows()
        .filter_map(|row| match row.limit {
            LimitSource::Fixed(name, _) => Some(name),
            LimitSource::Setting(..) => None,
        })
        .collect();
    let sources = [
        include_str!("../../hub/src/limits.rs"),
        include_str!("../../routing/src/room_class.rs"),
    ];
    let constants: BTreeSet<&str> = sources
        .into_iter()
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(constants, fixed, "the constants differ from the rows");
}

#[test]
fn every_limit_is_crossed_by_a_test_from_outside() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for row in rows() {
        let is_outside = |test: &&str| test.starts_with("tidegate/tests/");
        assert!(row.tests.iter().any(is_outside), "{}", row.what);
        for test in row.tests {
            let (file, function) = test.split_once("::").expect("FILE::FUNCTION");
            let source = fs::read_to_string(host.join(file))
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            let is_test = source.contains(&format!("fn {function}()"))
                && source.contains("#[test]") | source.contains("#[tokio::test]");
            assert!(is_test, "{}: there is no test {test}", row.what);
        }
    }
}
