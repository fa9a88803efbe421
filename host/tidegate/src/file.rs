//! Parses `tidegate.toml` to a [`Config`]. An error has the line and the correction.

use crate::{
    config::Config,
    key::{KEYS, SettingKey, TomlValue},
};
use std::{borrow::Cow, fmt, ops::Range, path::Path};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Returns the defaults, overridden by the text of a `tidegate.toml`. Relative paths begin at
/// `base`.
pub(crate) fn parse(text: &str, base: &Path) -> Result<Config, SettingsError> {
    let at = |span: Range<usize>| {
        1 + text.as_bytes()[..span.start.min(text.len())]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
    };
    let bad = |error: toml::de::Error| SettingsError {
        line: at(error.span().unwrap_or_default()),
        what: error.message().replace('\n', ", "),
    };
    let file = DeTable::parse(text).map_err(bad)?;
    let mut config = Config::default();
    for (section, keys) in in_order(file.get_ref()) {
        let name = section.get_ref();
        if !KEYS.iter().any(|key| key.section == name) {
            return Err(SettingsError {
                line: at(section.span()),
                what: unknown_section(name),
            });
        }
        let DeValue::Table(keys) = keys.get_ref() else {
            return Err(SettingsError {
                line: at(section.span()),
                what: format!("{name:?} is a section: write [{name}] and its keys below"),
            });
        };
        for (key, value) in in_order(keys) {
            let key_name = key.get_ref();
            let known = SettingKey::find(name, key_name).ok_or_else(|| unknown_key(name, key_name));
            let outcome = known.and_then(|known| {
                let value =
                    read(value.get_ref()).and_then(|value| known.set(&mut config, value, base));
                value.map_err(|what| format!("{key_name}: {what}"))
            });
            outcome.map_err(|what| SettingsError {
                line: at(key.span()),
                what,
            })?;
        }
    }
    Ok(config)
}

/// Sets a key of `[limits]` from "KEY=VALUE".
pub(crate) fn set_limit(config: &mut Config, text: &str) -> Result<(), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("write \"KEY=VALUE\", as in \"message_bytes_max=4MiB\"")?;
    let key = SettingKey::find("limits", name).ok_or_else(|| unknown_key("limits", name))?;
    key.set(config, TomlValue::Text(value.into()), Path::new(""))
        .map_err(|what| format!("{name}: {what}"))
}

/// An error in a `tidegate.toml`, with its line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SettingsError {
    line: usize,
    what: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// Returns the entries in the order of the file, so that the first error is the one that is
/// reported.
fn in_order<'a, 'b>(
    table: &'a DeTable<'b>,
) -> Vec<(&'a Spanned<Cow<'b, str>>, &'a Spanned<DeValue<'b>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn read(value: &DeValue<'_>) -> Result<TomlValue, String> {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        _ => None,
    };
    let value = match value {
        DeValue::Boolean(flag) => Some(TomlValue::Flag(*flag)),
        DeValue::Array(items)
            if items
                .iter()
                .any(|item| matches!(item.get_ref(), DeValue::Table(_))) =>
        {
            let hosts = items
                .iter()
                .map(|item| text(item.get_ref()).or_else(|| host(item.get_ref())));
            hosts.collect::<Option<_>>().map(TomlValue::Hosts)
        }
        DeValue::Array(items) => items
            .iter()
            .map(|item| text(item.get_ref()))
            .collect::<Option<_>>()
            .map(TomlValue::List),
        other => text(other).map(TomlValue::Text),
    };
    value.ok_or_else(|| "write a string, a number, true, false, or a list of strings".into())
}

/// Converts `{ host = "db.internal", private = true }` to "db.internal::private". `private` is
/// optional.
fn host(value: &DeValue<'_>) -> Option<String> {
    let DeValue::Table(table) = value else {
        return None;
    };
    let (mut host, mut private) = (None, false);
    for (key, value) in table.iter() {
        match (&**key.get_ref(), value.get_ref()) {
            ("host", DeValue::String(text)) => host = Some(text),
            ("private", DeValue::Boolean(flag)) => private = *flag,
            _ => return None,
        }
    }
    host.map(|host| {
        if private {
            format!("{host}::private")
        } else {
            host.to_string()
        }
    })
}

fn unknown_section(name: &str) -> String {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!(
            "{name:?} belongs to a section: write it below [{}]",
            key.section
        );
    }
    let nearest = nearest(name, KEYS.iter().map(|key| key.section));
    format!("unknown section [{name}]: did you mean [{nearest}]?")
}

fn unknown_key(section: &str, name: &str) -> String {
    if let Some(elsewhere) = KEYS.iter().find(|key| key.name == name) {
        return format!(
            "unknown key {name:?} in [{section}]: it belongs to [{}]",
            elsewhere.section
        );
    }
    let nearest = nearest(
        name,
        KEYS.iter()
            .filter(|key| key.section == section)
            .map(|key| key.name),
    );
    format!("unknown key {name:?} in [{section}]: did you mean {nearest:?}?")
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    known
        .min_by_key(|known| strsim::damerau_levenshtein(name, known))
        .expect("every section has keys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};
    use std::{
        env, fs,
        time::{Duration, Instant},
    };
    use tidegate_edge::Origins;
    use tidegate_hub::Limits;

    fn read(text: &str) -> Result<Config, SettingsError> {
        parse(text, Path::new(env!("CARGO_MANIFEST_DIR")))
    }

    #[test]
    fn every_error_has_its_line_and_a_correction() {
        let cases = [
            (
                "[server]\nlisen = \"x\"",
                "2: unknown key \"lisen\" in [server]: did you mean \"listen\"?",
            ),
            (
                "[limits]\n\nmesage_bytes_max = 1",
                "3: unknown key \"mesage_bytes_max\" in [limits]: did you mean \"message_bytes_max\"?",
            ),
            (
                "[app]\nlisten = \"x\"",
                "2: unknown key \"listen\" in [app]: it belongs to [server]",
            ),
            (
                "[limit]\n",
                "1: unknown section [limit]: did you mean [limits]?",
            ),
            (
                "listen = \"127.0.0.1:80\"",
                "1: \"listen\" belongs to a section: write it below [server]",
            ),
            (
                "server = 1",
                "1: \"server\" is a section: write [server] and its keys below",
            ),
            (
                "[server]\nlisten = \"here\"",
                "2: listen: \"here\" is not an address: write host and port, as in \"127.0.0.1:8080\" or \"[::1]:8080\"",
            ),
            (
                "[server]\nworkers = 0",
                "2: workers: 0 is not from 1 to 1024",
            ),
            (
                "[server]\nrequire_origin = \"yes\"",
                "2: require_origin: write true or false",
            ),
            (
                "[limits]\nbody_bytes_max = true",
                "2: body_bytes_max: write one value, as a string or a number",
            ),
            (
                "[limits]\nbody_bytes_max = -1",
                "2: body_bytes_max: \"-1\" is not a size: write a number of bytes, or one with KiB, MiB or GiB, as in \"64 MiB\"",
            ),
            (
                "[limits]\nping_every = 30",
                "2: ping_every: \"30\" is not a duration: write a number with ms, s, m, h or d, as in \"30s\"",
            ),
            (
                "[limits]\ntags_max = 1.5",
                "2: tags_max: \"1.5\" is not a whole number: write one, as in \"1000\"",
            ),
            (
                "[limits]\ntags_max = { a = 1 }",
                "2: tags_max: write a string, a number, true, false, or a list of strings",
            ),
            (
                "[server]\nassets_cache = [\"max-age=1\"]",
                "2: assets_cache: \"max-age=1\" is no rule: write a path and a value of Cache-Control, as in \"/downloads/* public, max-age=3600\"",
            ),
            (
                "[topics]\ndrop_oldest = \"a\"",
                "2: drop_oldest: write a list of strings, as in [\"one\", \"two\"]",
            ),
            (
                "[grants]\nenv = [\"TIDEGATE_NEVER_SET\"]",
                "2: env: TIDEGATE_NEVER_SET is not set in this environment: set it, or write \"TIDEGATE_NEVER_SET=VALUE\"",
            ),
            (
                "[grants]\noutbound = [\"https://a.example/path\"]",
                "2: outbound: \"https://a.example/path\" is not a host: write [SCHEME://]HOST[:PORT][::private], as in \"api.example.com\" \
                 (https, port 443) or \"http://db.internal:8080::private\"",
            ),
            (
                "[grants]\noutbound = [{ name = \"a.example\" }]",
                "2: outbound: write a string, a number, true, false, or a list of strings",
            ),
            (
                "[grants]\nenv = [{ host = \"a.example\" }]",
                "2: env: write a list of strings, as in [\"one\", \"two\"]",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                read(text).map(drop).map_err(|wrong| wrong.to_string()),
                Err(expected.to_owned()),
                "{text:?}"
            );
        }
        for (text, line) in [
            ("[server\n", 1),
            ("[server]\nlisten = \n", 2),
            ("[app]\ncpu = \"1s\"\ncpu = \"2s\"\n", 3),
        ] {
            assert_eq!(
                read(text).map(drop).map_err(|wrong| wrong.line),
                Err(line),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_file_overrides_the_keys_that_it_names() {
        let config = read(
            r#"
            [server]
            listen = "0.0.0.0:80"
            assets = "src"
            assets_cache = ["*.html no-store"]
            assets_links = true
            origins = ["https://a.example"]
            require_origin = true
            workers = 3
            drain = "1m"
            [limits]
            message_bytes_max = "4 MiB"
            tags_max = 0
            ping_every = "0s"
            [app]
            memory = 1_000_000
            [grants]
            env = ["A=1", "A=2"]
            dirs = ["src::/src"]
            outbound = ["a.example", { host = "http://db.internal:1", private = true }, { host = "b.example" }]
            [topics]
            drop_oldest = ["prices/*"]
            "#,
        )
        .unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:80");
        assert_eq!(config.workers, 3);
        assert_eq!(
            config.edge.assets,
            Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        );
        assert_eq!(
            (config.edge.assets_cache.len(), config.edge.assets_links),
            (1, true)
        );
        assert_eq!(
            config.edge.origins,
            Origins::List(vec!["https://a.example".into()])
        );
        assert_eq!(
            (config.edge.require_origin, config.edge.drain_within),
            (true, Duration::from_secs(60))
        );
        let limits = Limits {
            message_bytes_max: 4 << 20,
            tags_max: 0,
            ping_every: Duration::ZERO,
            ..Limits::default()
        };
        assert_eq!(config.limits, limits);
        assert_eq!(config.app.memory_bytes_max, 1_000_000);
        assert_eq!(config.app.env, [("A".to_owned(), "2".to_owned())]);
        let grants: Vec<String> = config
            .app
            .outbound
            .grants
            .iter()
            .map(|grant| grant.to_string())
            .collect();
        assert_eq!(
            grants,
            [
                "https://a.example:443",
                "http://db.internal:1::private",
                "https://b.example:443"
            ]
        );
        assert_eq!(
            (config.app.dirs.len(), config.topics.drop_oldest.len()),
            (1, 1)
        );
    }

    #[test]
    fn the_reference_file_names_every_key_with_its_default() {
        let text = include_str!("../tidegate.toml");
        let config = read(text).unwrap_or_else(|wrong| panic!("tidegate.toml:{wrong}"));
        for key in KEYS {
            assert_eq!(
                key.quantity(&config),
                key.quantity(&Config::default()),
                "{}",
                key.name
            );
            let section = text
                .split("\n[")
                .find(|section| section.starts_with(&format!("{}]", key.section)));
            let named = section.unwrap().lines().any(|line| {
                line.trim_start_matches("# ")
                    .starts_with(&format!("{} = ", key.name))
            });
            assert!(named, "[{}] {}", key.section, key.name);
        }
    }

    #[test]
    fn a_limit_is_set_by_a_flag() {
        let mut config = Config::default();
        set_limit(&mut config, "tags_max=3").unwrap();
        assert_eq!(config.limits.tags_max, 3);
        assert_eq!(
            set_limit(&mut config, "tag_max=3").unwrap_err(),
            "unknown key \"tag_max\" in [limits]: did you mean \"tags_max\"?"
        );
        assert!(
            set_limit(&mut config, "tags_max").is_err()
                && set_limit(&mut config, "tags_max=x").is_err()
        );
    }

    /// Mutates the texts of `fuzz/corpus/settings` for `TIDEGATE_FUZZ_SECONDS`. This is a proptest
    /// instead of a fuzz target, because the settings depend on wasmtime, which should not be built
    /// with coverage.
    #[test]
    fn any_text_is_settings_or_is_refused_on_one_of_its_lines() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/settings");
        let kept = fs::read_dir(corpus)
            .unwrap()
            .map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
        let kept: Vec<String> = kept.collect();
        let pieces: Vec<String> = kept
            .iter()
            .flat_map(|text| text.split_inclusive(['\n', ' ', '=', '"', '[']))
            .map(str::to_owned)
            .collect();
        let change = (
            any::<usize>(),
            0_usize..40,
            prop_oneof![select(pieces), "\\PC{0,6}"],
        );
        let altered = (select(kept), vec(change, 0..8)).prop_map(|(mut text, changes)| {
            for (at, length, piece) in changes {
                let from = at % (text.len() + 1);
                let to = (from + length).min(text.len());
                text.replace_range(
                    text.floor_char_boundary(from)..text.floor_char_boundary(to),
                    &piece,
                );
            }
            text
        });
        let seconds = env::var("TIDEGATE_FUZZ_SECONDS")
            .map_or(1, |seconds| seconds.parse().expect("a number of seconds"));
        let (began, mut count) = (Instant::now(), 0);
        while count == 0 || began.elapsed() < Duration::from_secs(seconds) {
            let mut runner = TestRunner::new(ProptestConfig {
                cases: 200,
                failure_persistence: None,
                ..ProptestConfig::default()
            });
            let outcome = runner.run(&altered, |text| {
                is_read_or_refused(&text);
                Ok(())
            });
            outcome.unwrap_or_else(|failed| panic!("{failed}"));
            count += 200;
        }
        println!("fuzz: settings   {count:9} inputs in {seconds} s");
    }

    fn is_read_or_refused(text: &str) {
        match read(text) {
            Ok(config) => {
                for key in KEYS {
                    let Some(written) = key.quantity(&config) else {
                        continue;
                    };
                    let mut again = Config::default();
                    key.set(&mut again, TomlValue::Text(written.clone()), Path::new(""))
                        .unwrap_or_else(|why| panic!("{}: {why}", key.name));
                    assert_eq!(key.quantity(&again), Some(written), "{}", key.name);
                }
            }
            Err(wrong) => assert!(
                (1..=text.lines().count() + 1).contains(&wrong.line) && !wrong.what.is_empty(),
                "{wrong}"
            ),
        }
    }
}
