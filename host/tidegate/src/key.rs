//! Every key of `tidegate.toml`: its section, its name and the field of [`Config`] that it sets.

use crate::{
    config::Config,
    grant,
    quantity::{self, Size, Time},
};
use std::{path::Path, time::Duration};
use tidegate_edge::{CacheRule, Hosts, Origins, is_web_origin};
use tidegate_wasm::{CertificateAuthority, Grant};

/// A key of `tidegate.toml`.
pub(crate) struct SettingKey {
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    field: KeyTarget,
}

/// The field that a key sets, and the syntax of its value.
enum KeyTarget {
    Bytes(fn(&mut Config) -> &mut usize),
    Count(fn(&mut Config) -> &mut usize),
    /// A number from 1 to this maximum.
    CountTo(usize, fn(&mut Config) -> &mut usize),
    Time(fn(&mut Config) -> &mut Duration),
    /// A number from this minimum on, or "auto".
    CountOrAuto(usize, fn(&mut Config) -> &mut Option<usize>),
    /// A duration; zero turns the limit off.
    TimeOrNone(fn(&mut Config) -> &mut Duration),
    /// A value with a parser of its own. Relative paths begin at the given directory.
    Own(fn(&mut Config, TomlValue, &Path) -> Result<(), String>),
}

/// A value as written in the file.
pub(crate) enum TomlValue {
    /// A string, or a number in its notation.
    Text(String),
    Flag(bool),
    List(Vec<String>),
    /// A list with hosts as tables, converted to text: `{ host = "db.internal", private = true }`
    /// is "db.internal::private".
    Hosts(Vec<String>),
}

/// Maximum of `workers`. More threads than cores bring no throughput.
pub(crate) const WORKERS_MAX: usize = 1024;
/// Maximum of `instances`. Each instance uses address space of a pool that is allocated at the
/// start.
pub(crate) const INSTANCES_MAX: usize = 100_000;

macro_rules! keys {
    ($([$section:ident] $($name:ident: $kind:ident($($field:expr),+),)*)*) => {
        &[$($(SettingKey { section: stringify!($section), name: stringify!($name), field: KeyTarget::$kind($($field),+) }),*),*]
    };
}

/// All keys, in the order of the documentation.
pub(crate) const KEYS: &[SettingKey] = keys! {
    [server]
    listen: Own(|config, value, _| put(&mut config.listen, value.text()?.parse())),
    assets: Own(|config, value, base| put(&mut config.edge.assets, grant::assets(&value.text()?, base).map(Some))),
    assets_cache: Own(|config, value, _| put(&mut config.edge.assets_cache, value.list()?.iter().map(|rule| CacheRule::parse(rule)).collect())),
    assets_links: Own(|config, value, _| put(&mut config.edge.assets_links, value.flag())),
    hosts: Own(|config, value, _| put(&mut config.edge.hosts, hosts(&value.list_or_one()?))),
    trusted: Own(|config, value, _| put(&mut config.edge.trusted, value.list_or_one()?.iter().map(|text| text.parse()).collect())),
    origins: Own(|config, value, _| put(&mut config.edge.origins, origins(&value.list_or_one()?))),
    require_origin: Own(|config, value, _| put(&mut config.edge.require_origin, value.flag())),
    workers: CountTo(WORKERS_MAX, |config| &mut config.workers),
    drain: TimeOrNone(|config| &mut config.edge.drain_within),
    data: Own(|config, value, base| put(&mut config.data, value.text().map(|path| base.join(path)))),

    [limits]
    body_bytes_max: Bytes(|config| &mut config.limits.body_bytes_max),
    message_bytes_max: Bytes(|config| &mut config.limits.message_bytes_max),
    frame_bytes_max: Bytes(|config| &mut config.limits.frame_bytes_max),
    fragments_max: Count(|config| &mut config.limits.fragments_max),
    outbox_bytes_max: Bytes(|config| &mut config.limits.outbox_bytes_max),
    outbox_messages_max: Count(|config| &mut config.limits.outbox_messages_max),
    inbox_bytes_max: Bytes(|config| &mut config.limits.inbox_bytes_max),
    inbox_messages_max: Count(|config| &mut config.limits.inbox_messages_max),
    attachment_bytes_max: Bytes(|config| &mut config.limits.attachment_bytes_max),
    tags_max: Count(|config| &mut config.limits.tags_max),
    tag_bytes_max: Bytes(|config| &mut config.limits.tag_bytes_max),
    follows_max: Count(|config| &mut config.limits.follows_max),
    topic_bytes_max: Bytes(|config| &mut config.limits.topic_bytes_max),
    topics_max: Count(|config| &mut config.limits.topics_max),
    history_messages_max: Count(|config| &mut config.limits.history_messages_max),
    history_age_max: Time(|config| &mut config.limits.history_age_max),
    history_message_bytes_max: Bytes(|config| &mut config.limits.history_message_bytes_max),
    history_bytes_max: Bytes(|config| &mut config.limits.history_bytes_max),
    connections_max: Count(|config| &mut config.limits.connections_max),
    feeds_max: Count(|config| &mut config.limits.feeds_max),
    sockets_max: CountOrAuto(1, |config| &mut config.edge.sockets_max),
    sockets_per_address_max: CountOrAuto(0, |config| &mut config.edge.sockets_per_address_max),
    ping_every: TimeOrNone(|config| &mut config.limits.ping_every),
    pong_within: Time(|config| &mut config.limits.pong_within),
    control_frames_max: Count(|config| &mut config.limits.control_frames_max),
    idle_max: TimeOrNone(|config| &mut config.limits.idle_max),
    lifetime_max: TimeOrNone(|config| &mut config.limits.lifetime_max),
    close_within: Time(|config| &mut config.limits.close_within),
    upgrade_within: Time(|config| &mut config.limits.upgrade_within),
    comment_every: Time(|config| &mut config.limits.comment_every),
    first_within: Time(|config| &mut config.limits.first_within),
    loader_within: Time(|config| &mut config.limits.loader_within),
    upload_bytes_max: Bytes(|config| &mut config.limits.upload_bytes_max),
    upload_within: Time(|config| &mut config.limits.upload_within),
    after_answer_max: Time(|config| &mut config.limits.after_answer_max),
    room_key_bytes_max: Bytes(|config| &mut config.limits.room_key_bytes_max),
    room_value_bytes_max: Bytes(|config| &mut config.limits.room_value_bytes_max),
    room_bytes_max: Bytes(|config| &mut config.limits.room_bytes_max),
    room_event_bytes_max: Bytes(|config| &mut config.limits.room_event_bytes_max),
    room_inbox_max: Count(|config| &mut config.limits.room_inbox_max),
    room_inbox_bytes_max: Bytes(|config| &mut config.limits.room_inbox_bytes_max),
    rooms_inbox_bytes_max: Bytes(|config| &mut config.limits.rooms_inbox_bytes_max),
    call_bytes_max: Bytes(|config| &mut config.limits.call_bytes_max),
    rooms_awake_max: Count(|config| &mut config.limits.rooms_awake_max),
    room_idle_max: Time(|config| &mut config.limits.room_idle_max),
    memory_max: Bytes(|config| &mut config.limits.memory_max),
    header_bytes_max: Bytes(|config| &mut config.edge.header_bytes_max),
    header_within: Time(|config| &mut config.edge.header_within),
    idle_within: Time(|config| &mut config.edge.idle_within),
    body_within: Time(|config| &mut config.edge.body_within),
    read_within: Time(|config| &mut config.edge.read_within),
    write_within: Time(|config| &mut config.edge.write_within),
    bytes_per_second_min: Bytes(|config| &mut config.edge.bytes_per_second_min),
    half_close_within: Time(|config| &mut config.edge.half_close_within),
    linger_within: Time(|config| &mut config.edge.linger_within),
    linger_bytes_max: Bytes(|config| &mut config.edge.linger_bytes_max),

    [app]
    memory: Bytes(|config| &mut config.app.memory_bytes_max),
    instances: CountTo(INSTANCES_MAX, |config| &mut config.app.instances_max),
    cpu: Time(|config| &mut config.app.cpu_max),
    wall: Time(|config| &mut config.app.wall_max),
    output_rate: Bytes(|config| &mut config.app.output_rate),
    instance_output_rate: Bytes(|config| &mut config.app.instance_output_rate),
    file: Own(|config, value, _| put(&mut config.app.component_bytes_max, quantity::size(&value.text()?).map(|bytes| bytes as u64))),
    outbound_silence_max: Time(|config| &mut config.app.outbound.silence_max),
    outbound_bytes_max: Own(|config, value, _| put(&mut config.app.outbound.body_bytes_max, quantity::size(&value.text()?).map(|bytes| bytes as u64))),
    outbound_requests_max: Count(|config| &mut config.app.outbound.requests_max),
    reuse_foreign: Own(|config, value, _| put(&mut config.app.reuse_foreign, value.flag())),

    [grants]
    env: Own(|config, value, _| value.list()?.iter().try_for_each(|text| grant::env(text).map(|env| config.grant_env(env)))),
    dirs: Own(|config, value, base| add(&mut config.app.dirs, value.list()?.iter().map(|text| grant::dir(text, base)))),
    outbound: Own(|config, value, _| add(&mut config.app.outbound.grants, value.hosts()?.iter().map(|text| Grant::parse(text)))),
    ca: Own(|config, value, base| put(&mut config.app.outbound.authorities, CertificateAuthority::read(&base.join(value.text()?)))),

    [topics]
    drop_oldest: Own(|config, value, _| put(&mut config.topics.drop_oldest, value.list())),
};

impl SettingKey {
    /// Returns the key with this section and name.
    pub(crate) fn find(section: &str, name: &str) -> Option<&'static SettingKey> {
        KEYS.iter()
            .find(|key| key.section == section && key.name == name)
    }

    /// Sets the value in `config`. The error is the correction of an invalid value.
    pub(crate) fn set(
        &self,
        config: &mut Config,
        value: TomlValue,
        base: &Path,
    ) -> Result<(), String> {
        match self.field {
            KeyTarget::Bytes(field) => *field(config) = quantity::size(&value.text()?)?,
            KeyTarget::Count(field) => *field(config) = quantity::count(&value.text()?)?,
            KeyTarget::CountTo(max, field) => {
                *field(config) = quantity::count_to(max, &value.text()?)?
            }
            KeyTarget::CountOrAuto(min, field) => {
                *field(config) = quantity::count_or_auto(min, &value.text()?)?
            }
            KeyTarget::Time(field) => *field(config) = quantity::time_above_zero(&value.text()?)?,
            KeyTarget::TimeOrNone(field) => *field(config) = quantity::time(&value.text()?)?,
            KeyTarget::Own(set) => set(config, value, base)?,
        }
        Ok(())
    }

    /// Returns the value in `config` in the syntax of [`set`](SettingKey::set); none if it is not a
    /// quantity.
    pub(crate) fn quantity(&self, config: &Config) -> Option<String> {
        let mut config = config.clone();
        match self.field {
            KeyTarget::Bytes(field) => Some(Size(*field(&mut config)).to_string()),
            KeyTarget::Count(field) | KeyTarget::CountTo(_, field) => {
                Some(field(&mut config).to_string())
            }
            KeyTarget::CountOrAuto(_, field) => {
                Some(field(&mut config).map_or_else(|| "auto".into(), |count| count.to_string()))
            }
            KeyTarget::Time(field) | KeyTarget::TimeOrNone(field) => {
                Some(Time(*field(&mut config)).to_string())
            }
            KeyTarget::Own(_) => None,
        }
    }
}

impl TomlValue {
    fn text(self) -> Result<String, String> {
        match self {
            TomlValue::Text(text) => Ok(text),
            TomlValue::Flag(_) | TomlValue::List(_) | TomlValue::Hosts(_) => {
                Err("write one value, as a string or a number".into())
            }
        }
    }

    fn flag(self) -> Result<bool, String> {
        match self {
            TomlValue::Flag(flag) => Ok(flag),
            TomlValue::Text(_) | TomlValue::List(_) | TomlValue::Hosts(_) => {
                Err("write true or false".into())
            }
        }
    }

    fn list(self) -> Result<Vec<String>, String> {
        match self {
            TomlValue::List(list) => Ok(list),
            TomlValue::Text(_) | TomlValue::Flag(_) | TomlValue::Hosts(_) => {
                Err("write a list of strings, as in [\"one\", \"two\"]".into())
            }
        }
    }

    fn hosts(self) -> Result<Vec<String>, String> {
        match self {
            TomlValue::Hosts(hosts) => Ok(hosts),
            other => other.list(),
        }
    }

    fn list_or_one(self) -> Result<Vec<String>, String> {
        match self {
            TomlValue::Text(text) => Ok(vec![text]),
            other => other.list(),
        }
    }
}

fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

fn add<T>(
    field: &mut Vec<T>,
    mut values: impl Iterator<Item = Result<T, String>>,
) -> Result<(), String> {
    values.try_for_each(|value| value.map(|value| field.push(value)))
}

/// Parses the patterns of served hosts: at least one.
fn hosts(list: &[String]) -> Result<Hosts, String> {
    match list {
        [] => Err("an empty list refuses every request: name a host, as in \"example.org\", or write \"*\" for any".into()),
        list => list.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Hosts::List),
    }
}

/// Parses the origins that may open a WebSocket: "same-origin", "any", or a list of origins in the
/// form that browsers send.
pub(crate) fn origins(list: &[String]) -> Result<Origins, String> {
    match list {
        [] => Ok(Origins::SameOrigin),
        [only] if only == "same-origin" => Ok(Origins::SameOrigin),
        [only] if only == "any" => Ok(Origins::Any),
        list => list
            .iter()
            .map(|text| origin(text))
            .collect::<Result<_, _>>()
            .map(Origins::List),
    }
}

fn origin(text: &str) -> Result<String, String> {
    if text == "same-origin" || text == "any" {
        return Err(format!(
            "{text:?} must be the only value: remove the other origins, or {text:?}"
        ));
    }
    if is_web_origin(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is not an origin: write scheme and host, as in \"https://example.org\""
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_hubs_limits_has_a_key_of_its_name() {
        let debug = format!("{:#?}", tidegate_hub::Limits::default());
        let fields: Vec<&str> = debug
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .map(|(name, _)| name)
            .collect();
        assert!(fields.len() > 20);
        for field in fields {
            assert!(SettingKey::find("limits", field).is_some(), "{field}");
        }
    }

    #[test]
    fn each_limit_sets_the_field_of_its_name_and_reads_it_back() {
        for key in KEYS.iter().filter(|key| key.section == "limits") {
            let mut config = Config::default();
            let text = if matches!(key.field, KeyTarget::Time(_) | KeyTarget::TimeOrNone(_)) {
                "77s"
            } else {
                "77"
            };
            key.set(&mut config, TomlValue::Text(text.into()), Path::new(""))
                .unwrap();
            let set = [" ", " Some("].map(|before| format!(" {}:{before}77", key.name));
            assert!(
                set.iter().any(|set| format!("{config:?}").contains(set)),
                "{}",
                key.name
            );
            assert!(
                key.quantity(&config).unwrap().starts_with("77"),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn zero_is_valid_only_where_it_turns_a_limit_off() {
        for (name, zero_is_fine) in [
            ("comment_every", false),
            ("pong_within", false),
            ("ping_every", true),
            ("idle_max", true),
        ] {
            let key = SettingKey::find("limits", name).unwrap();
            assert_eq!(
                key.set(
                    &mut Config::default(),
                    TomlValue::Text("0s".into()),
                    Path::new("")
                )
                .is_ok(),
                zero_is_fine,
                "{name}"
            );
        }
    }

    #[test]
    fn hosts_are_patterns_and_at_least_one() {
        for (texts, valid) in [
            (&["a.example", "*.a.example", "[::1]"][..], true),
            (&["*"], true),
            (&[], false),
            (&["a.example", "a:80"], false),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| text.to_string()).collect();
            assert_eq!(hosts(&texts).is_ok(), valid, "{texts:?}");
        }
    }

    #[test]
    fn origins_are_a_keyword_or_a_list_of_origins() {
        let list = |texts: &[&str]| {
            Some(Origins::List(
                texts.iter().map(|text| text.to_string()).collect(),
            ))
        };
        let cases: [(&[&str], Option<Origins>); 15] = [
            (&[], Some(Origins::SameOrigin)),
            (&["same-origin"], Some(Origins::SameOrigin)),
            (&["any"], Some(Origins::Any)),
            (
                &["https://a.example", "http://localhost:3000"],
                list(&["https://a.example", "http://localhost:3000"]),
            ),
            (&["any", "https://a.example"], None),
            (&["a.example"], None),
            (&["https://"], None),
            (&["https://a.example/"], None),
            (&["https://*.example"], None),
            (&["wss://a.example"], None),
            (&["https://a.example:99999"], None),
            (&["https://a.example:"], None),
            (&["https://user@a.example"], None),
            (&["https://a.example#x"], None),
            (&["null"], None),
        ];
        for (texts, expected) in cases {
            let texts: Vec<String> = texts.iter().map(|text| text.to_string()).collect();
            assert_eq!(origins(&texts).ok(), expected, "{texts:?}");
        }
    }
}
