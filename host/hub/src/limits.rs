//! All limits of the system, with their defaults. Each is defined only here, and has one key in
//! `tidegate.toml`.

use std::time::Duration;

/// The limits that the host enforces. Take the default, and change the fields that you need.
///
/// ```
/// let limits = tidegate_hub::Limits { message_bytes_max: 16 << 20, ..Default::default() };
/// assert_eq!(limits.frame_bytes_max, 1 << 20);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Maximum bytes of the body of a request to an `http` route; beyond it 413.
    pub body_bytes_max: usize,
    /// Maximum bytes of one WebSocket message in either direction; beyond it 1009 for a client and
    /// `too-large` for an app.
    pub message_bytes_max: usize,
    /// Maximum bytes of the payload of one incoming WebSocket frame; beyond it 1009.
    pub frame_bytes_max: usize,
    /// Maximum number of frames of one incoming message; beyond it 1009.
    pub fragments_max: usize,
    /// Maximum bytes queued for one client.
    pub outbox_bytes_max: usize,
    /// Maximum number of messages queued for one client.
    pub outbox_messages_max: usize,
    /// Bytes of messages that wait for the app before the host stops reading a connection.
    pub inbox_bytes_max: usize,
    /// Number of messages that wait for the app before the host stops reading a connection.
    pub inbox_messages_max: usize,
    /// Maximum bytes of an app's attachment to one connection.
    pub attachment_bytes_max: usize,
    /// Maximum number of tags of one connection.
    pub tags_max: usize,
    /// Maximum bytes of one tag.
    pub tag_bytes_max: usize,
    /// Maximum number of topics that one connection or feed follows.
    pub follows_max: usize,
    /// Maximum bytes of the name of a topic.
    pub topic_bytes_max: usize,
    /// Maximum number of topics.
    pub topics_max: usize,
    /// Maximum number of publications that a topic keeps for clients that come back; zero for none.
    pub history_messages_max: usize,
    /// Maximum age of a publication that is kept.
    pub history_age_max: Duration,
    /// Maximum bytes of a message that is kept.
    pub history_message_bytes_max: usize,
    /// Maximum bytes of the publications, and of their records, that all topics together keep in
    /// memory; at most an eighth of `memory_max`. Those of rooms are in their storage.
    pub history_bytes_max: usize,
    /// Maximum number of WebSocket connections; beyond it 503.
    pub connections_max: usize,
    /// Maximum number of feeds; beyond it 503.
    pub feeds_max: usize,
    /// Maximum bytes of a key in a room's storage.
    pub room_key_bytes_max: usize,
    /// Maximum bytes of a value in a room's storage.
    pub room_value_bytes_max: usize,
    /// Maximum bytes of all keys and values of one room.
    pub room_bytes_max: usize,
    /// Maximum bytes that one event of a room may write, send and publish before its commit.
    pub room_event_bytes_max: usize,
    /// Maximum number of events that wait for one room; beyond it 503 and 1013.
    pub room_inbox_max: usize,
    /// Maximum bytes of the events that wait for one room; beyond it 503, 1013, or `busy` to a
    /// caller.
    pub room_inbox_bytes_max: usize,
    /// Maximum bytes of the events that wait for all rooms together; beyond it 503, 1013, or `busy`
    /// to a caller.
    pub rooms_inbox_bytes_max: usize,
    /// Maximum bytes of the payload of a call to a room, and of its answer.
    pub call_bytes_max: usize,
    /// Maximum number of awake rooms, at most a quarter of the instances. One more puts the room to
    /// sleep that was idle longest.
    pub rooms_awake_max: usize,
    /// Time without an event after which a room sleeps.
    pub room_idle_max: Duration,
    /// Time between two pings of the host; zero for no pings.
    pub ping_every: Duration,
    /// Time after a ping has left the host within which a byte must come. Otherwise the connection
    /// counts as gone (1006).
    pub pong_within: Duration,
    /// Maximum number of pings and pongs of one WebSocket in a second; beyond it 1008.
    pub control_frames_max: usize,
    /// Time without a byte from the client or on its way to it, then 1001; zero for no limit. A
    /// pong counts, so `ping_every` must be longer, or zero.
    pub idle_max: Duration,
    /// Maximum age of a connection, then 1001; zero for no limit.
    pub lifetime_max: Duration,
    /// Time for the peer's half of the close handshake, then the socket is dropped.
    pub close_within: Duration,
    /// Time for guards and `on-upgrade` together, then 503.
    pub upgrade_within: Duration,
    /// Time between two comments on a feed without other events, and between two signs of life of a
    /// page.
    pub comment_every: Duration,
    /// Time for which the shell of a page waits for first values.
    pub first_within: Duration,
    /// Time for a loader that is not live, then 504 or the like.
    pub loader_within: Duration,
    /// Maximum bytes of a form, its files included; beyond it 413.
    pub upload_bytes_max: usize,
    /// Time for an action and for the form that it reads, then 504.
    pub upload_within: Duration,
    /// Time for a guest after its response has ended or its client has left, then its instance is
    /// dropped.
    pub after_answer_max: Duration,
    /// Maximum anonymous memory of the whole process in bytes; zero for 75 % of the memory of the
    /// machine or of the control group. From 70 % of it idle instances and histories are dropped.
    /// From 85 % on, work that would hold memory is refused (503, 1013, or an error to the app),
    /// and small requests are served. From 92 % on, the largest connections, requests and instances
    /// are closed.
    pub memory_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes_max: 1 << 20,
            message_bytes_max: 1 << 20,
            frame_bytes_max: 1 << 20,
            fragments_max: 1024,
            outbox_bytes_max: 1 << 20,
            outbox_messages_max: 1024,
            inbox_bytes_max: 64 << 10,
            inbox_messages_max: 64,
            attachment_bytes_max: 16 << 10,
            tags_max: 10,
            tag_bytes_max: 256,
            follows_max: 128,
            topic_bytes_max: 256,
            topics_max: 100_000,
            history_messages_max: 256,
            history_age_max: Duration::from_secs(120),
            history_message_bytes_max: 64 << 10,
            history_bytes_max: 64 << 20,
            connections_max: 100_000,
            feeds_max: 100_000,
            room_key_bytes_max: 2 << 10,
            room_value_bytes_max: 2 << 20,
            room_bytes_max: 1 << 30,
            room_event_bytes_max: 16 << 20,
            room_inbox_max: 10_000,
            room_inbox_bytes_max: 16 << 20,
            rooms_inbox_bytes_max: 256 << 20,
            call_bytes_max: 1 << 20,
            rooms_awake_max: 500,
            room_idle_max: Duration::from_secs(10),
            ping_every: Duration::from_secs(30),
            pong_within: Duration::from_secs(10),
            control_frames_max: 100,
            idle_max: Duration::ZERO,
            lifetime_max: Duration::ZERO,
            close_within: Duration::from_secs(5),
            upgrade_within: Duration::from_secs(10),
            comment_every: Duration::from_secs(15),
            first_within: Duration::from_millis(50),
            loader_within: Duration::from_secs(30),
            upload_bytes_max: 100 << 20,
            upload_within: Duration::from_secs(600),
            after_answer_max: Duration::from_secs(10),
            memory_max: 0,
        }
    }
}

/// Maximum bytes of a close reason (RFC 6455 section 5.5: 125 for the frame, two of them the code).
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Maximum time for the next byte of an answer to a client that has ended its sending direction,
/// while a call waits for an instance. It is shorter than the time that such a call waits.
pub const HALF_CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// Maximum number of fields of a form that the host reads before it calls its action.
pub const FORM_FIELDS_MAX: usize = 1000;

/// Number of bytes of a form that are read before its action starts, or all of it if it is shorter.
pub const FORM_BEGUN_BYTES: usize = 64 << 10;

/// The period in which `control_frames_max` counts.
pub const CONTROL_FRAMES_PERIOD: Duration = Duration::from_secs(1);

/// Maximum number of frames of a WebSocket that are decoded before its connection turns to its
/// calls and its outbox. A message of many frames counts all of them: empty ones cost a client
/// almost nothing.
pub const TURN_FRAMES_MAX: usize = 256;

/// Bytes of frames at which a WebSocket's turn on its worker ends: a large message costs as much as
/// many small ones.
pub const TURN_BYTES_MAX: usize = 256 << 10;

/// Maximum bytes of a multipart form that are read without the end of a part's head.
pub const PART_HEAD_BYTES_MAX: usize = 64 << 10;

/// Maximum number of headers of a response, those of guards included. An app that returns more has
/// failed (500).
pub const ANSWER_HEADERS_MAX: usize = 1000;

/// Maximum bytes of names and values of the headers that one call of an app returns.
pub const ANSWER_HEADERS_BYTES_MAX: usize = 256 << 10;

/// Maximum bytes of the context that one guard adds to a request. A guard that adds more has failed
/// (500).
pub const GUARD_CONTEXT_BYTES_MAX: usize = 256 << 10;

/// Maximum number of ids that one call of `websockets.ids` returns.
pub const IDS_PAGE_MAX: usize = 1000;

/// Maximum bytes of the text of an auto-response, and of the text that it answers.
pub const AUTO_RESPONSE_BYTES_MAX: usize = 2048;

/// Maximum bytes of a room's name in its class.
pub const ROOM_NAME_BYTES_MAX: usize = 256;

/// Maximum number of entries that one call of `room.entries` returns.
pub const ENTRIES_PAGE_MAX: usize = 1000;

/// Bytes of keys and values at which one call of `room.entries` ends.
pub const ENTRIES_PAGE_BYTES: usize = 1 << 20;

/// Maximum number of tries of one alarm. The first retry comes after [`ALARM_RETRY`], each later
/// one after twice the time.
pub const ALARM_ATTEMPTS_MAX: u32 = 6;

/// Pause between an alarm that failed and its first retry. It is also the minimum before another
/// try of an alarm that the host could not call.
pub const ALARM_RETRY: Duration = Duration::from_secs(2);

/// An alarm that is called at least this long after its time is late. The host was not running, the
/// machine was suspended, or the clock was set.
pub const ALARMS_LATE: Duration = Duration::from_secs(1);

/// Maximum number of late alarms that one tick calls, the longest overdue first: 100 a second with
/// ticks of 100 ms. The same number of alarms that are tried again is called.
pub const ALARMS_LATE_MAX: usize = 10;

/// The first pause before the host tries again. Each later one is twice as long, up to
/// [`HOST_RETRY_MAX`].
pub const HOST_RETRY: Duration = Duration::from_millis(250);

/// The longest pause before the host tries again.
pub const HOST_RETRY_MAX: Duration = Duration::from_secs(5);

/// Maximum number of rooms whose pending events one tick tries again, the longest due first.
pub const ROOM_RETRIES_MAX: usize = 50;

/// Time after which an alarm of a room class that the served version does not have is tried again.
pub const ALARM_OF_NOBODY: Duration = Duration::from_secs(10);

/// Number of consecutive failed wakes after which a room is closed for [`WAKE_PAUSE`].
pub const WAKE_FAILURES_MAX: u32 = 5;

/// Time for which a room that fails to wake is closed.
pub const WAKE_PAUSE: Duration = Duration::from_secs(30);

/// Maximum number of rooms whose failed wakes are remembered. For one more, the failures of the
/// room that failed first are forgotten, and no others.
pub const ROOMS_FAILING_MAX: usize = 1000;

/// Reason why the host refused a value of an app (WIT `types.limit-error`). Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// The value is longer than its limit. Send less.
    TooLarge,
    /// One more would exceed the limit. Remove one first.
    TooMany,
    /// The protocol does not allow the value.
    NotValid,
}

impl std::fmt::Display for LimitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LimitError::TooLarge => "longer than the host's limit for it",
            LimitError::TooMany => "more than the host's limit for it",
            LimitError::NotValid => "of a form that the protocol does not allow",
        })
    }
}

impl std::error::Error for LimitError {}
