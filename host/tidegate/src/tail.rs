//! The live log of a server, for `tidegate tail`: events of the log as lines of JSON.
//!
//! Owner: one broadcast channel of the process. [`TailLayer`] sends every event of the log to it;
//! each connected client has a [`Tail`], which filters the lines that it receives.
//!
//! States: without a client, [`TailFilter`] disables all call sites that no other layer wants, so
//! that an event costs one atomic load. The first and the last client rebuild the interest cache of
//! `tracing`, which enables and disables them.
//!
//! Invariant: logging never waits for a client. The channel keeps [`LINES_MAX`] lines; a slow
//! client loses the oldest, and receives a line with the number of lost ones.
//!
//! The control socket transports the lines; `command::tail` formats them for people.

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

/// Number of lines that the channel keeps for slow clients. Beyond it a client loses the oldest,
/// and receives their number.
const LINES_MAX: usize = 4096;
/// Number of bytes of a field; the rest is cut off.
const FIELD_BYTES_MAX: usize = 8 << 10;
/// The most verbose level that a client may request.
const LEVEL_MAX: LevelFilter = LevelFilter::DEBUG;

static LINES: LazyLock<Sender<Arc<Line>>> = LazyLock::new(|| broadcast::channel(LINES_MAX).0);

/// One event of the log.
struct Line {
    level: LevelFilter,
    fields: Map<String, Value>,
}

/// The filter of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineFilter {
    /// Minimum severity.
    pub(crate) level: LevelFilter,
    /// Pattern of a route.
    pub(crate) route: Option<String>,
    /// Id of a connection.
    pub(crate) connection: Option<String>,
    /// Room, as "CLASS/NAME".
    pub(crate) room: Option<String>,
}

impl LineFilter {
    /// Returns the form for a request to the control socket.
    pub(crate) fn to_json(&self) -> Value {
        serde_json::json!({ "level": self.level.to_string(), "route": self.route, "connection": self.connection, "room": self.room })
    }

    /// Parses that form. Returns none if it is invalid.
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

/// A client of the live log.
pub(crate) struct Tail {
    filter: LineFilter,
    lines: Receiver<Arc<Line>>,
    // After the receiver, since fields drop in order: the rebuild must see that the receiver is
    // gone.
    _refresh: CallsiteRefresh,
}

impl Tail {
    pub(crate) fn open(filter: LineFilter) -> Tail {
        let lines = LINES.subscribe();
        Tail {
            filter,
            lines,
            _refresh: CallsiteRefresh::new(),
        }
    }

    /// Returns the next line that passes the filter, as JSON; none at the end of the log.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            match self.lines.recv().await {
                Ok(line) if self.filter.admits(&line) => {
                    return Some(Value::Object(line.fields.clone()).to_string());
                }
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => {
                    let message =
                        format!("{count} lines were dropped: this client reads too slowly");
                    return Some(serde_json::json!({ "level": "WARN", "target": "tail", "message": message }).to_string());
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Makes `tracing` ask [`TailFilter`] again, when a client connects (`new`) and after it
/// disconnects (`drop`).
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

/// Sends the events of the log to the channel.
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
        // An error means that the last client has just left.
        _ = LINES.send(Arc::new(Line {
            level: LevelFilter::from_level(*metadata.level()),
            fields: fields.0,
        }));
    }
}

/// Collects the fields of an event.
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

/// Enables the events of Tidegate and of the app while a client is connected.
pub(crate) struct TailFilter;

impl TailFilter {
    fn is_enabled(metadata: &Metadata<'_>) -> bool {
        let is_ours =
            |target: &str| target.starts_with("tidegate") || matches!(target, "app" | "access");
        LINES.receiver_count() > 0 && *metadata.level() <= LEVEL_MAX && is_ours(metadata.target())
    }
}

impl<S> Filter<S> for TailFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        TailFilter::is_enabled(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if TailFilter::is_enabled(metadata) {
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
    fn a_filter_admits_lines_with_all_its_fields() {
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
