//! Every bound of the system, with its default. Each has one home here and one key in `tidegate.toml`.

use std::time::Duration;

/// The bounds that the host enforces. A plain struct: take the default and change what you must.
///
/// ```
/// let limits = tidegate_hub::Limits { message_bytes_max: 16 << 20, ..Default::default() };
/// assert_eq!(limits.frame_bytes_max, 1 << 20);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Body of a request to an `http` route; beyond it 413.
    pub body_bytes_max: usize,
    /// One WebSocket message, either way; beyond it 1009 for a client and `too-large` for an app.
    pub message_bytes_max: usize,
    /// Payload of one incoming WebSocket frame; beyond it 1009.
    pub frame_bytes_max: usize,
    /// Frames of one incoming message; beyond it 1009.
    pub fragments_max: usize,
    /// Bytes queued towards one client.
    pub outbox_bytes_max: usize,
    /// Messages queued towards one client.
    pub outbox_messages_max: usize,
    /// Bytes of messages that wait for the app before the host stops reading a connection.
    pub inbox_bytes_max: usize,
    /// Messages that wait for the app before the host stops reading a connection.
    pub inbox_messages_max: usize,
    /// An app's attachment to one connection.
    pub attachment_bytes_max: usize,
    /// Tags of one connection.
    pub tags_max: usize,
    /// One tag.
    pub tag_bytes_max: usize,
    /// Topics that one connection or feed follows.
    pub follows_max: usize,
    /// Name of a topic.
    pub topic_bytes_max: usize,
    /// Topics in all.
    pub topics_max: usize,
    /// Publications that a topic keeps for those who come back; zero for none.
    pub history_messages_max: usize,
    /// How long it keeps each of them.
    pub history_age_max: Duration,
    /// The longest message that is kept.
    pub history_message_bytes_max: usize,
    /// Bytes of the publications, and of the records of them, that all topics together keep in memory; at most an eighth of `memory_max`.
    /// Those of rooms are in their storage.
    pub history_bytes_max: usize,
    /// WebSocket connections in all; beyond it 503.
    pub connections_max: usize,
    /// Feeds in all; beyond it 503.
    pub feeds_max: usize,
    /// A key in a room's storage.
    pub room_key_bytes_max: usize,
    /// A value in a room's storage.
    pub room_value_bytes_max: usize,
    /// All keys and values of one room.
    pub room_bytes_max: usize,
    /// What one event of a room may write, send and publish before it is committed.
    pub room_event_bytes_max: usize,
    /// Events that wait for one room; beyond it 503 and 1013.
    pub room_inbox_max: usize,
    /// Bytes of the events that wait for one room; beyond it 503, 1013, or `busy` to a caller.
    pub room_inbox_bytes_max: usize,
    /// Bytes of the events that wait for all rooms together; beyond it 503, 1013, or `busy` to a caller.
    pub rooms_inbox_bytes_max: usize,
    /// Payload of a call to a room, and of its answer.
    pub call_bytes_max: usize,
    /// Rooms that are awake at a time, at most a quarter of the instances: one more puts the one to sleep that was idle longest.
    pub rooms_awake_max: usize,
    /// Without an event, then a room sleeps.
    pub room_idle_max: Duration,
    /// Between two pings of the host; zero for none.
    pub ping_every: Duration,
    /// From the moment when a ping has left the host until any byte comes, then the connection counts as gone (1006).
    pub pong_within: Duration,
    /// Pings and pongs of one WebSocket in a second; beyond it 1008.
    pub control_frames_max: usize,
    /// Without a byte from the client or on its way to it, then 1001; zero for no limit. A pong is one, so `ping_every` has to be longer, or
    /// zero.
    pub idle_max: Duration,
    /// A connection's age, then 1001; zero for no limit.
    pub lifetime_max: Duration,
    /// For the peer's half of the close handshake, then the socket is dropped.
    pub close_within: Duration,
    /// For guards and `on-upgrade` together, then 503.
    pub upgrade_within: Duration,
    /// Between two comments on a feed that is otherwise silent, and between two signs of life of a page.
    pub comment_every: Duration,
    /// How long the shell of a page waits for first values.
    pub first_within: Duration,
    /// For a loader that is not live to end, then 504 or its like.
    pub loader_within: Duration,
    /// A form in all, its files included; beyond it 413.
    pub upload_bytes_max: usize,
    /// For an action, and for the form that it reads, then 504.
    pub upload_within: Duration,
    /// Time for what a guest still does after its answer has ended, or after its client has left; then its instance is dropped.
    pub after_answer_max: Duration,
    /// Anonymous memory of the whole process, in bytes; zero for 75 % of the memory that the machine or the control group has.
    /// From 70 % of it idle instances and histories are dropped; from 85 % on, work that would hold memory is refused (503, 1013, or an
    /// error to the app), and small requests are served; from 92 % on the largest connections, requests and instances are closed.
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

/// Bytes of a close reason (RFC 6455 section 5.5: 125 for the frame, two of them the code).
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Fields of a form that the host reads before it calls its action.
pub const FORM_FIELDS_MAX: usize = 1000;

/// Bytes of a form that are there before its action starts, or all of it if it is shorter.
pub const FORM_BEGUN_BYTES: usize = 64 << 10;

/// The time for which `control_frames_max` counts.
pub const CONTROL_FRAMES_PERIOD: Duration = Duration::from_secs(1);

/// Frames of a WebSocket that are decoded before its connection turns to its calls and its outbox. A
/// message of many frames counts as all of them: empty ones cost a client next to nothing.
pub const TURN_FRAMES_MAX: usize = 256;

/// Bytes of frames with which a WebSocket's turn on its worker ends: a large message costs as much
/// as many small ones.
pub const TURN_BYTES_MAX: usize = 256 << 10;

/// What the host reads of a form of parts without finding one: the head of a part is no longer.
pub const PART_HEAD_BYTES_MAX: usize = 64 << 10;

/// Headers of an answer, those that guards add included; an app that gives more has failed (500).
pub const ANSWER_HEADERS_MAX: usize = 1000;

/// Bytes of names and values of the headers that one call of an app gives.
pub const ANSWER_HEADERS_BYTES_MAX: usize = 256 << 10;

/// Bytes of the context that one guard adds to a request; a guard that adds more has failed (500).
pub const GUARD_CONTEXT_BYTES_MAX: usize = 256 << 10;

/// Ids that one call of `websockets.ids` gives.
pub const IDS_PAGE_MAX: usize = 1000;

/// The text of an auto-response, and the one that it answers.
pub const AUTO_RESPONSE_BYTES_MAX: usize = 2048;

/// A room's name in its class.
pub const ROOM_NAME_BYTES_MAX: usize = 256;

/// Entries that one call of `room.entries` gives.
pub const ENTRIES_PAGE_MAX: usize = 1000;

/// Bytes of keys and values with which one call of `room.entries` ends.
pub const ENTRIES_PAGE_BYTES: usize = 1 << 20;

/// Tries of one alarm; the first retry comes after [`ALARM_RETRY`], each later one after twice the time.
pub const ALARM_ATTEMPTS_MAX: u32 = 6;

/// Between an alarm that failed and its first retry; at least this also before an alarm is tried again that the host could not call.
pub const ALARM_RETRY: Duration = Duration::from_secs(2);

/// An alarm is late if it is called so much after its time, or later: because the host was not running, the machine was suspended or
/// the clock was set.
pub const ALARMS_LATE: Duration = Duration::from_secs(1);

/// Late alarms that one tick calls, the longest due first: 100 a second with ticks of 100 ms. As many that are tried again.
pub const ALARMS_LATE_MAX: usize = 10;

/// The first pause before the host tries again what it could not do: each later one is twice as long, up to [`HOST_RETRY_MAX`].
pub const HOST_RETRY: Duration = Duration::from_millis(250);

/// The longest pause before the host tries again what it could not do.
pub const HOST_RETRY_MAX: Duration = Duration::from_secs(5);

/// Rooms whose pending events one tick tries again, the longest due first.
pub const ROOM_RETRIES_MAX: usize = 50;

/// An alarm of a room class that the served version doesn't have is looked at again after this.
pub const ALARM_OF_NOBODY: Duration = Duration::from_secs(10);

/// A room that fails to wake so many times in a row is closed for [`WAKE_PAUSE`].
pub const WAKE_FAILURES_MAX: u32 = 5;

/// How long a room that can't wake is closed.
pub const WAKE_PAUSE: Duration = Duration::from_secs(30);

/// Rooms whose failed wakes are remembered: for one more, the failures of the one that failed first are forgotten, and no other's.
pub const ROOMS_FAILING_MAX: usize = 1000;

/// Why the host did not take what an app gave it (WIT `types.limit-error`). Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// Longer than the limit for it. Send less.
    TooLarge,
    /// One more than the limit for it. Remove one first.
    TooMany,
    /// Of a form that the protocol does not allow.
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
