//! The live log: what a server logs, for its owner who looks on, as lines of JSON. While nobody does, it costs nothing.

use crate::printable;
use serde_json::{Map, Value};
use std::{
    fmt,
    sync::{Arc, LazyLock},
};
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};
use tracing::{
    Event, Metadata, Subscriber,
    callsite::rebuild_interest_cache,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    fmt::{
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::{Context, Filter},
};

/// TailLayer that wait for somebody who reads slowly; the oldest are left out then, and counted.
const LINES_MAX: usize = 4096;
/// Bytes of one field; the rest is cut off.
const FIELD_BYTES_MAX: usize = 8 << 10;
/// The lowest level that can be asked for.
const LEVEL_MAX: LevelFilter = LevelFilter::DEBUG;

static LINES: LazyLock<Sender<Arc<Line>>> = LazyLock::new(|| broadcast::channel(LINES_MAX).0);

/// One event of the log.
struct Line {
    level: LevelFilter,
    fields: Map<String, Value>,
}

/// What somebody wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineFilter {
    /// This and what is worse.
    pub(crate) level: LevelFilter,
    /// A route's pattern.
    pub(crate) route: Option<String>,
    /// A connection's id.
    pub(crate) connection: Option<String>,
    /// "CLASS/NAME"
    pub(crate) room: Option<String>,
}

impl LineFilter {
    /// As a command to a server has it.
    pub(crate) fn to_json(&self) -> Value {
        serde_json::json!({ "level": self.level.to_string(), "route": self.route, "connection": self.connection, "room": self.room })
    }

    /// The same, read by the server.
    pub(crate) fn from_json(json: &Value) -> Option<LineFilter> {
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        Some(LineFilter {
            level: json["level"].as_str()?.parse().ok()?,
            route: text("route"),
            connection: text("connection"),
            room: text("room"),
        })
    }

    fn admits(&self, line: &Line) -> bool {
        let pairs = [
            ("route", &self.route),
            ("connection", &self.connection),
            ("room", &self.room),
        ];
        line.level <= self.level
            && pairs.iter().all(|(key, wanted)| {
                wanted
                    .as_deref()
                    .is_none_or(|wanted| line.fields.get(*key).is_some_and(|had| had == wanted))
            })
    }
}

/// Somebody who looks on.
pub(crate) struct Tail {
    wanted: LineFilter,
    lines: Receiver<Arc<Line>>,
    // Behind the receiver: dropped when that is gone.
    _interest: CallsiteRefresh,
}

impl Tail {
    pub(crate) fn open(wanted: LineFilter) -> Tail {
        let lines = LINES.subscribe();
        Tail {
            wanted,
            lines,
            _interest: CallsiteRefresh::new(),
        }
    }

    /// The next line of what is wanted, as JSON; none when there will be no more.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            match self.lines.recv().await {
                Ok(line) if self.wanted.admits(&line) => {
                    return Some(Value::Object(line.fields.clone()).to_string());
                }
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => {
                    let message =
                        format!("{count} lines were left out: they come faster than they are read");
                    return Some(serde_json::json!({ "level": "WARN", "target": "tail", "message": message }).to_string());
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Whoever logs asks anew whether anybody looks on, at the beginning and at the end of this.
struct CallsiteRefresh;

impl CallsiteRefresh {
    fn new() -> CallsiteRefresh {
        rebuild_interest_cache();
        CallsiteRefresh
    }
}

impl Drop for CallsiteRefresh {
    fn drop(&mut self) {
        rebuild_interest_cache();
    }
}

/// Where the log's events get into the lines.
pub(crate) struct TailLayer;

impl<S: Subscriber> Layer<S> for TailLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = FieldVisitor(Map::new());
        let mut time = String::new();
        _ = SystemTime.format_time(&mut Writer::new(&mut time));
        fields.put("time", time.into());
        fields.put("level", metadata.level().as_str().into());
        fields.put("target", metadata.target().into());
        event.record(&mut fields);
        // Nobody reads it any more: then there is nothing to say.
        _ = LINES.send(Arc::new(Line {
            level: LevelFilter::from_level(*metadata.level()),
            fields: fields.0,
        }));
    }
}

struct FieldVisitor(Map<String, Value>);

impl FieldVisitor {
    fn put(&mut self, name: &str, value: Value) {
        let value = match value {
            Value::String(text) if text.len() > FIELD_BYTES_MAX => {
                printable::cut(&text, FIELD_BYTES_MAX).into()
            }
            value => value,
        };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for FieldVisitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }
}

/// Lets our own events and the app's in, as long as somebody looks on.
pub(crate) struct TailFilter;

impl TailFilter {
    fn lets_in(metadata: &Metadata<'_>) -> bool {
        let is_ours =
            |target: &str| target.starts_with("tidegate") || matches!(target, "app" | "access");
        LINES.receiver_count() > 0 && *metadata.level() <= LEVEL_MAX && is_ours(metadata.target())
    }
}

impl<S> Filter<S> for TailFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        TailFilter::lets_in(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if TailFilter::lets_in(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if LINES.receiver_count() > 0 {
            LEVEL_MAX
        } else {
            LevelFilter::OFF
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_is_seen_by_who_wants_all_that_it_has() {
        let Value::Object(fields) = json!({ "route": "/chat/{room}", "connection": "00000000000000ff", "room": "chat/tea" })
        else {
            panic!()
        };
        let line = Line {
            level: LevelFilter::INFO,
            fields,
        };
        let cases = [
            (json!({ "level": "info" }), true),
            (json!({ "level": "debug" }), true),
            (json!({ "level": "warn" }), false),
            (json!({ "level": "info", "route": "/chat/{room}" }), true),
            (json!({ "level": "info", "route": "/chat" }), false),
            (
                json!({ "level": "info", "connection": "00000000000000ff", "room": "chat/tea" }),
                true,
            ),
            (
                json!({ "level": "info", "connection": "00000000000000ff", "room": "chat/milk" }),
                false,
            ),
        ];
        for (wanted, seen) in cases {
            let read = LineFilter::from_json(&wanted).unwrap();
            assert_eq!(read.admits(&line), seen, "{wanted}");
            assert_eq!(LineFilter::from_json(&read.to_json()), Some(read));
        }
        for bad in [json!({}), json!({ "level": "loud" }), json!(null)] {
            assert_eq!(LineFilter::from_json(&bad), None, "{bad}");
        }
    }
}
