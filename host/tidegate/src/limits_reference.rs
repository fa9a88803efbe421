//! Compares the guide's page of limits with the settings, the constants and the tests, or rewrites
//! it.
//!
//! A row has the bounded quantity, the effect beyond the limit, and the tests that cross the limit:
//! those in `tidegate/tests` from outside, the others in the crate that enforces it. Defaults come
//! from [`Config`] and from the constants. A limit without a row, a row without a limit, and a row
//! without a test are errors.

use crate::{
    config::Config,
    key::{KEYS, SettingKey},
    quantity::{Size, Time},
};
use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::Path, time::Duration};
use tidegate_hub::limits::*;
use tidegate_routing::ROOM_CLASS_BYTES_MAX;

const PAGE: &str = "../../docs/src/reference/limits.md";

const HEAD: &str = "\
# Limits

Every quantity that a client or an app can increase has a limit. Limits with a setting are set in
`tidegate.toml`, or for one run by `--limit KEY=VALUE` (keys of `[limits]`); the others are fixed. A
test crosses each limit from outside, except for the retries of rooms and alarms, whose pauses are
long: their tests are in the part of the server that enforces them.

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
    (
        "Connections",
        &[
            limit(
                "sockets_max",
                "Sockets of clients, and static files that are being sent to them. `auto`: the open files of the process (RLIMIT_NOFILE), less 512; half of them, if there are fewer than 1,024",
                "503 with `Retry-After`, and the connection is closed without being read; counted as `refused_sockets`",
                &["tidegate/tests/hostile/caps.rs::the_socket_cap_counts_every_kind_of_socket"],
            ),
            limit(
                "sockets_per_address_max",
                "Sockets of one IPv4 address, or of one /64 network of IPv6. `auto`: 1,024 for public addresses, no bound for loopback and private ones. A number holds for every address, 0 for no bound",
                "503 with `Retry-After`, and the connection is closed; counted as `refused_address`",
                &["tidegate/tests/hostile/caps.rs::a_configured_cap_for_each_address_holds"],
            ),
            limit(
                "connections_max",
                "WebSockets in all",
                "503 with `Retry-After`; counted as `refused_websockets`",
                &[
                    "tidegate/tests/hostile/caps.rs::websockets_and_feeds_beyond_their_limits_are_refused_and_counted",
                ],
            ),
            limit(
                "feeds_max",
                "Feeds in all",
                "503 with `Retry-After`; counted as `refused_feeds`",
                &[
                    "tidegate/tests/hostile/caps.rs::websockets_and_feeds_beyond_their_limits_are_refused_and_counted",
                ],
            ),
            limit(
                "read_within",
                "Time for the next byte of a body, a form or a WebSocket message that the host reads",
                "408, or the connection is closed; counted as `stalled_uploads`",
                &[
                    "tidegate/tests/hostile/progress.rs::a_client_that_sends_slowly_is_refused_or_closed_and_counted",
                ],
            ),
            limit(
                "write_within",
                "Time for the client to take one more byte of what waits for it",
                "the connection is closed; counted as `stalled_readers`",
                &[
                    "tidegate/tests/hostile/progress.rs::a_client_that_reads_too_slowly_is_closed_and_counted",
                ],
            ),
            limit(
                "bytes_per_second_min",
                "Bytes a second that a client moves at least while the host waits for it, on average over `read_within` or `write_within`",
                "as for those two",
                &[
                    "tidegate/tests/hostile/progress.rs::a_client_that_reads_too_slowly_is_closed_and_counted",
                ],
            ),
            limit(
                "half_close_within",
                "Time for a client that sends nothing more (it closed that direction) to get one more byte of its answer",
                "it counts as gone, and the connection is closed",
                &[
                    "tidegate/tests/web/close.rs::a_half_closed_client_that_stops_reading_is_dropped",
                ],
            ),
            limit(
                "linger_within",
                "Time in which bytes of a client are read and dropped after the last answer of its connection, so that the answer arrives",
                "the connection is closed",
                &["tidegate/tests/web/close.rs::data_after_the_last_answer_is_bounded"],
            ),
            limit(
                "linger_bytes_max",
                "Bytes of a client that are read and dropped after, or while, its last answer is written",
                "the connection is closed",
                &["tidegate/tests/web/close.rs::data_after_the_last_answer_is_bounded"],
            ),
            setting(
                "server",
                "drain",
                "Time for what is open to end when the server stops",
                "what is still open is cut off",
                &["tidegate/tests/drain.rs::requests_that_do_not_end_are_cut_off_at_the_deadline"],
            ),
        ],
    ),
    (
        "Requests",
        &[
            limit(
                "header_bytes_max",
                "Head of a request",
                "431, or 414 if its first line is too long",
                &["tidegate/tests/hostile/limits.rs::the_bytes_of_head_and_body_are_bounded"],
            ),
            limit(
                "header_within",
                "Time for a head to come, from its first byte",
                "the connection is closed; counted as `late_heads`",
                &["tidegate/tests/hostile/limits.rs::an_unfinished_head_or_body_times_out"],
            ),
            limit(
                "idle_within",
                "Time between two requests of a connection",
                "the connection is closed",
                &["tidegate/tests/hostile/limits.rs::an_unfinished_head_or_body_times_out"],
            ),
            limit(
                "body_bytes_max",
                "Body of a request to an `http` route",
                "413",
                &[
                    "tidegate/tests/hostile/limits.rs::the_bytes_of_head_and_body_are_bounded",
                    "edge/tests/http.rs::a_body_without_a_length_is_still_bounded",
                ],
            ),
            limit(
                "body_within",
                "Time for such a body to come",
                "408",
                &["tidegate/tests/hostile/limits.rs::an_unfinished_head_or_body_times_out"],
            ),
            limit(
                "after_answer_max",
                "Time for what an app still does after an answer has ended, or its client has left",
                "the instance is dropped; earlier if a request waits for an instance, except for an eighth of all that work after whole answers",
                &[
                    "tidegate/tests/hostile/instances.rs::work_after_an_answer_is_bounded_and_does_not_delay_it",
                    "tidegate/tests/hostile/instances.rs::work_after_answers_leaves_instances_to_waiting_requests",
                ],
            ),
        ],
    ),
    (
        "WebSockets and feeds",
        &[
            limit(
                "message_bytes_max",
                "One WebSocket message, either way",
                "close 1009; an error to the app for a message of its own",
                &[
                    "tidegate/tests/hostile/limits.rs::an_oversized_message_is_closed_with_1009",
                    "tidegate/tests/hostile/limits.rs::a_message_from_the_app_is_bounded",
                ],
            ),
            limit(
                "frame_bytes_max",
                "Payload of one frame that comes in",
                "close 1009",
                &["tidegate/tests/hostile/limits.rs::an_oversized_message_is_closed_with_1009"],
            ),
            limit(
                "fragments_max",
                "Frames of one message that comes in",
                "close 1009",
                &["tidegate/tests/hostile/limits.rs::an_oversized_message_is_closed_with_1009"],
            ),
            limit(
                "control_frames_max",
                "Pings and pongs of a client in a second",
                "close 1008; counted as `control_floods`",
                &[
                    "tidegate/tests/hostile/progress.rs::a_flood_of_pings_or_pongs_is_closed_with_1008",
                ],
            ),
            fixed(
                "TURN_FRAMES_MAX",
                LimitValue::Count(TURN_FRAMES_MAX),
                "Frames of a WebSocket that are read before its calls and its outbox have their turn",
                "the rest waits",
                &[
                    "tidegate/tests/hostile/fairness.rs::a_flooding_client_does_not_starve_others",
                    "edge/src/websocket/wire.rs::frames_are_counted_however_few_messages_they_are",
                ],
            ),
            fixed(
                "TURN_BYTES_MAX",
                LimitValue::Bytes(TURN_BYTES_MAX),
                "Bytes that a WebSocket moves before other connections of its worker have their turn",
                "the rest waits",
                &["tidegate/tests/hostile/fairness.rs::a_flooding_client_does_not_starve_others"],
            ),
            fixed(
                "CONTROL_FRAMES_PERIOD",
                LimitValue::Time(CONTROL_FRAMES_PERIOD),
                "The time for which `control_frames_max` counts",
                "",
                &[
                    "tidegate/tests/hostile/progress.rs::a_flood_of_pings_or_pongs_is_closed_with_1008",
                ],
            ),
            limit(
                "inbox_messages_max",
                "Messages that wait for the app",
                "the host stops reading the connection until the app has had them",
                &[
                    "tidegate/tests/hostile/limits.rs::a_client_that_sends_faster_than_the_app_reads_waits",
                ],
            ),
            limit(
                "inbox_bytes_max",
                "Bytes of messages that wait for the app",
                "the host stops reading the connection until the app has had them",
                &[
                    "tidegate/tests/hostile/limits.rs::a_client_that_sends_faster_than_the_app_reads_waits",
                ],
            ),
            limit(
                "outbox_messages_max",
                "Messages queued towards one client",
                "`full` to the app; a publication closes the client with 1013, or drops its oldest (`drop_oldest`)",
                &["tidegate/tests/hostile/limits.rs::a_full_outbox_returns_an_error_to_the_app"],
            ),
            limit(
                "outbox_bytes_max",
                "Bytes queued towards one client",
                "as for messages",
                &["tidegate/tests/hostile/limits.rs::a_full_outbox_returns_an_error_to_the_app"],
            ),
            limit(
                "attachment_bytes_max",
                "An app's attachment to one connection",
                "an error to the app",
                &[
                    "tidegate/tests/hostile/limits.rs::connection_tags_attachments_and_topics_are_bounded",
                ],
            ),
            limit(
                "tags_max",
                "Tags of one connection",
                "an error to the app",
                &[
                    "tidegate/tests/hostile/limits.rs::connection_tags_attachments_and_topics_are_bounded",
                ],
            ),
            limit(
                "tag_bytes_max",
                "One tag",
                "an error to the app",
                &[
                    "tidegate/tests/hostile/limits.rs::connection_tags_attachments_and_topics_are_bounded",
                ],
            ),
            limit(
                "upgrade_within",
                "Time for guards and the app to decide about an upgrade",
                "503",
                &["tidegate/tests/faults.rs::a_slow_on_upgrade_is_a_fault_and_a_503"],
            ),
            limit(
                "ping_every",
                "Time between two pings of the host",
                "a ping; 0 for none",
                &["tidegate/tests/hostile/limits.rs::a_client_that_answers_no_ping_is_dropped"],
            ),
            limit(
                "pong_within",
                "Time for any byte to come after a ping",
                "the connection is dropped; the app hears 1006",
                &["tidegate/tests/hostile/limits.rs::a_client_that_answers_no_ping_is_dropped"],
            ),
            limit(
                "idle_max",
                "Time without a byte from the client or on its way to it; an answered ping is one, so the bound needs a longer or no `ping_every`. \
                 0 for no bound",
                "close 1001",
                &[
                    "tidegate/tests/hostile/limits.rs::a_websocket_has_a_lifetime_and_an_idle_timeout",
                    "tidegate/tests/hostile/progress.rs::a_websocket_is_idle_only_while_no_byte_moves_either_way",
                ],
            ),
            limit(
                "lifetime_max",
                "Age of a WebSocket; 0 for no bound",
                "close 1001",
                &[
                    "tidegate/tests/hostile/limits.rs::a_websocket_has_a_lifetime_and_an_idle_timeout",
                ],
            ),
            limit(
                "close_within",
                "Time for the client's half of the close handshake",
                "the socket is dropped",
                &[
                    "tidegate/tests/drain.rs::a_client_that_ignores_the_close_frame_is_dropped_and_on_close_reports_it",
                ],
            ),
            limit(
                "comment_every",
                "Time between two comments on a silent feed, and between two signs of life of a page that streams",
                "a comment",
                &["tidegate/tests/topics.rs::comments_keep_a_silent_feed_open"],
            ),
            fixed(
                "CLOSE_REASON_BYTES_MAX",
                LimitValue::Bytes(CLOSE_REASON_BYTES_MAX),
                "Reason of a close (RFC 6455 section 5.5)",
                "an error to the app",
                &[
                    "tidegate/tests/hostile/limits.rs::connection_tags_attachments_and_topics_are_bounded",
                ],
            ),
            fixed(
                "AUTO_RESPONSE_BYTES_MAX",
                LimitValue::Bytes(AUTO_RESPONSE_BYTES_MAX),
                "Text of an auto-response, and the one that it answers",
                "an error to the app",
                &[
                    "tidegate/tests/hostile/limits.rs::connection_tags_attachments_and_topics_are_bounded",
                ],
            ),
            fixed(
                "IDS_PAGE_MAX",
                LimitValue::Count(IDS_PAGE_MAX),
                "Ids of connections that one call of the app gets",
                "the app asks for the next page",
                &["tidegate/tests/hostile/limits.rs::listings_of_entries_and_ids_are_paged"],
            ),
        ],
    ),
    (
        "Topics",
        &[
            limit(
                "topics_max",
                "Topics in all",
                "the one without followers that was not published to lately is forgotten; an error to the app if all have followers",
                &["tidegate/tests/hostile/caps.rs::a_new_topic_evicts_one_unused_topic"],
            ),
            limit(
                "topic_bytes_max",
                "Name of a topic",
                "an error to the app",
                &[
                    "tidegate/tests/hostile/limits.rs::connection_tags_attachments_and_topics_are_bounded",
                ],
            ),
            limit(
                "follows_max",
                "Topics that one connection or feed follows",
                "an error to the app",
                &[
                    "tidegate/tests/hostile/limits.rs::connection_tags_attachments_and_topics_are_bounded",
                ],
            ),
            limit(
                "history_messages_max",
                "Publications that a topic keeps for clients that come back",
                "the client receives a gap notice",
                &["tidegate/tests/hostile/limits.rs::a_history_is_bounded_in_messages_and_bytes"],
            ),
            limit(
                "history_message_bytes_max",
                "A publication that is kept",
                "it is not kept: the client receives a gap notice",
                &["tidegate/tests/hostile/limits.rs::a_history_is_bounded_in_messages_and_bytes"],
            ),
            limit(
                "history_bytes_max",
                "Publications that all topics together keep in memory; those of rooms are in their storage",
                "the topic's oldest are forgotten: the client receives a gap notice",
                &["tidegate/tests/hostile/limits.rs::a_history_is_bounded_in_messages_and_bytes"],
            ),
            limit(
                "history_age_max",
                "Age of a publication that is kept",
                "the client receives a gap notice",
                &["tidegate/tests/hostile/limits.rs::a_history_expires"],
            ),
        ],
    ),
    (
        "Rooms",
        &[
            limit(
                "room_key_bytes_max",
                "A key in a room's storage",
                "an error to the app",
                &["tidegate/tests/hostile/limits.rs::storage_and_effects_of_a_room_are_bounded"],
            ),
            limit(
                "room_value_bytes_max",
                "A value in a room's storage",
                "an error to the app",
                &["tidegate/tests/hostile/limits.rs::storage_and_effects_of_a_room_are_bounded"],
            ),
            limit(
                "room_bytes_max",
                "All keys and values of one room",
                "an error to the app",
                &["tidegate/tests/hostile/limits.rs::storage_and_effects_of_a_room_are_bounded"],
            ),
            limit(
                "room_event_bytes_max",
                "Bytes that one event of a room writes, sends and publishes before its commit",
                "an error to the app",
                &["tidegate/tests/hostile/limits.rs::storage_and_effects_of_a_room_are_bounded"],
            ),
            limit(
                "room_inbox_max",
                "Events that wait for one room",
                "503, or close 1013",
                &["tidegate/tests/hostile/limits.rs::events_queued_for_a_room_are_bounded"],
            ),
            limit(
                "room_inbox_bytes_max",
                "Bytes of the events that wait for one room",
                "503, close 1013, or `busy` to a caller",
                &["tidegate/tests/hostile/memory.rs::bytes_queued_for_a_room_are_bounded"],
            ),
            limit(
                "rooms_inbox_bytes_max",
                "Bytes of the events that wait for all rooms together",
                "503, close 1013, or `busy` to a caller",
                &["tidegate/tests/hostile/memory.rs::bytes_queued_for_a_room_are_bounded"],
            ),
            limit(
                "call_bytes_max",
                "Payload of a call to a room, and of its answer",
                "an error to the caller",
                &[
                    "tidegate/tests/hostile/limits.rs::connection_tags_attachments_and_topics_are_bounded",
                ],
            ),
            limit(
                "rooms_awake_max",
                "Rooms that are awake at a time; at most half of the instances",
                "the room that was idle longest sleeps",
                &["tidegate/tests/rooms.rs::a_room_never_has_two_instances"],
            ),
            limit(
                "room_idle_max",
                "Time without an event before a room sleeps",
                "its instance is dropped; its connections stay",
                &["tidegate/tests/rooms.rs::a_room_sleeps_and_wakes_while_connections_stay_open"],
            ),
            fixed(
                "ROOM_CLASS_BYTES_MAX",
                LimitValue::Bytes(ROOM_CLASS_BYTES_MAX),
                "Name of a room class",
                "the app is refused when it is loaded",
                &["tidegate/tests/check.rs::every_code_is_triggered_and_reported"],
            ),
            fixed(
                "ROOM_NAME_BYTES_MAX",
                LimitValue::Bytes(ROOM_NAME_BYTES_MAX),
                "Name of a room in its class",
                "400, or an error to the caller",
                &[
                    "tidegate/tests/hostile/limits.rs::connection_tags_attachments_and_topics_are_bounded",
                ],
            ),
            fixed(
                "ENTRIES_PAGE_MAX",
                LimitValue::Count(ENTRIES_PAGE_MAX),
                "Entries that one call of the app gets",
                "the app asks for the next page; the SDK does so by itself",
                &["tidegate/tests/hostile/limits.rs::listings_of_entries_and_ids_are_paged"],
            ),
            fixed(
                "ENTRIES_PAGE_BYTES",
                LimitValue::Bytes(ENTRIES_PAGE_BYTES),
                "Bytes of keys and values with which such a call ends",
                "the app asks for the next page; the SDK does so by itself",
                &["tidegate/tests/hostile/limits.rs::listings_of_entries_and_ids_are_paged"],
            ),
            fixed(
                "WAKE_FAILURES_MAX",
                LimitValue::Count(WAKE_FAILURES_MAX as usize),
                "Wakes of a room that fail in a row",
                "the room is closed for a while: 503, or close 1013",
                &["tidegate/tests/rooms.rs::a_room_that_fails_to_wake_is_refused_for_a_pause"],
            ),
            fixed(
                "WAKE_PAUSE",
                LimitValue::Time(WAKE_PAUSE),
                "Time for which such a room is closed",
                "it is tried again",
                &[
                    "hub/tests/rooms/main.rs::a_room_that_traps_on_wake_five_times_in_a_row_is_closed_for_thirty_seconds",
                ],
            ),
            fixed(
                "ROOMS_FAILING_MAX",
                LimitValue::Count(ROOMS_FAILING_MAX),
                "Rooms whose failed wakes are remembered",
                "the failures of the room that failed first are forgotten",
                &[
                    "hub/tests/rooms/main.rs::names_of_rooms_that_cannot_wake_push_out_one_failing_room_each",
                ],
            ),
            fixed(
                "ALARM_ATTEMPTS_MAX",
                LimitValue::Count(ALARM_ATTEMPTS_MAX as usize),
                "Tries of one alarm",
                "it is given up, and logged",
                &[
                    "hub/tests/rooms/main.rs::an_alarm_that_fails_is_tried_again_after_2_4_8_16_and_32_seconds_and_then_given_up",
                ],
            ),
            fixed(
                "ALARM_RETRY",
                LimitValue::Time(ALARM_RETRY),
                "Time before the first retry of an alarm; twice as long before each later one",
                "",
                &[
                    "hub/tests/rooms/main.rs::an_alarm_that_fails_is_tried_again_after_2_4_8_16_and_32_seconds_and_then_given_up",
                ],
            ),
            fixed(
                "ALARMS_LATE",
                LimitValue::Time(ALARMS_LATE),
                "Time after which an alarm that was not called is late",
                "late alarms are spread",
                &[
                    "hub/src/rooms/alarms.rs::those_that_are_late_are_spread_and_those_in_time_do_not_wait_for_them",
                ],
            ),
            fixed(
                "ALARMS_LATE_MAX",
                LimitValue::Count(ALARMS_LATE_MAX),
                "Late alarms that are called in a tenth of a second, and as many that are tried again",
                "they wait, the longest due first",
                &[
                    "hub/src/rooms/alarms.rs::those_that_are_late_are_spread_and_those_in_time_do_not_wait_for_them",
                ],
            ),
            fixed(
                "HOST_RETRY",
                LimitValue::Time(HOST_RETRY),
                "First pause before the host tries again what it could not do: each later one is twice as long",
                "",
                &[
                    "tidegate/tests/hostile/events.rs::an_on_close_waits_for_an_instance_and_runs_once",
                ],
            ),
            fixed(
                "HOST_RETRY_MAX",
                LimitValue::Time(HOST_RETRY_MAX),
                "The longest such pause",
                "",
                &[
                    "hub/src/rooms/room.rs::pending_events_are_tried_again_after_longer_and_longer_pauses_and_others_do_not_wait_for_them",
                ],
            ),
            fixed(
                "ROOM_RETRIES_MAX",
                LimitValue::Count(ROOM_RETRIES_MAX),
                "Rooms whose pending events are tried again in a tenth of a second",
                "they wait, the longest due first",
                &[
                    "hub/src/rooms/room.rs::pending_events_are_tried_again_after_longer_and_longer_pauses_and_others_do_not_wait_for_them",
                ],
            ),
            fixed(
                "ALARM_OF_NOBODY",
                LimitValue::Time(ALARM_OF_NOBODY),
                "Time between two looks at an alarm of a room class that the served version does not have",
                "it waits",
                &[
                    "hub/tests/rooms/main.rs::an_alarm_of_a_class_that_is_not_served_waits_until_it_is",
                ],
            ),
        ],
    ),
    (
        "Pages and forms",
        &[
            limit(
                "first_within",
                "Time that the shell of a page waits for first values",
                "the shell goes out without them",
                &[
                    "tidegate/tests/pages.rs::the_shell_is_sent_before_the_first_value_of_a_slow_loader",
                ],
            ),
            limit(
                "loader_within",
                "Time for a loader that is not live to end",
                "504, or `timeout` in a stream",
                &[
                    "tidegate/tests/pages.rs::a_faulty_loader_is_reported_and_leaves_the_others_running",
                ],
            ),
            limit(
                "upload_bytes_max",
                "A form in all, its files included",
                "413",
                &["tidegate/tests/hostile/limits.rs::a_form_is_bounded_in_bytes_and_in_fields"],
            ),
            limit(
                "upload_within",
                "Time for an action, and for the form that it reads",
                "504",
                &["tidegate/tests/hostile/limits.rs::an_action_has_a_timeout"],
            ),
            fixed(
                "FORM_FIELDS_MAX",
                LimitValue::Count(FORM_FIELDS_MAX),
                "Fields of a form before the name of its action",
                "413",
                &["tidegate/tests/hostile/limits.rs::a_form_is_bounded_in_bytes_and_in_fields"],
            ),
            fixed(
                "FORM_BEGUN_BYTES",
                LimitValue::Bytes(FORM_BEGUN_BYTES),
                "Bytes of a form that are there before its action starts, or the whole form",
                "the action waits",
                &["tidegate/tests/hostile/progress.rs::no_action_starts_for_a_stalled_form"],
            ),
            fixed(
                "PART_HEAD_BYTES_MAX",
                LimitValue::Bytes(PART_HEAD_BYTES_MAX),
                "Bytes of a form of parts in which no part is found",
                "413",
                &[
                    "tidegate/tests/hostile/limits.rs::a_form_without_a_complete_part_is_not_buffered",
                ],
            ),
        ],
    ),
    (
        "The app",
        &[
            limit(
                "memory_max",
                "Anonymous memory of the process; `0 B` for 75 % of what the machine or the control group has",
                "from 70 % on idle instances and histories are dropped, from 85 % on work that would hold memory is refused (503, 1013, or an error to the app), from 92 % on, or when work was refused for 2 s without a pause, the largest connections, requests and instances are closed. HTTP connections count with 20 KiB each: those that no longer fit get 503 with `Retry-After`, and those without a whole request for 1 s are then closed; counted as `refused_memory`",
                &[
                    "tidegate/tests/hostile/memory.rs::guests_and_clients_never_exceed_the_memory_budget",
                    "tidegate/tests/hostile/memory.rs::clients_that_hold_memory_do_not_block_work_for_ever",
                    "tidegate/tests/hostile/memory.rs::connections_without_a_request_never_exceed_the_memory_budget",
                ],
            ),
            fixed(
                "ANSWER_HEADERS_MAX",
                LimitValue::Count(ANSWER_HEADERS_MAX),
                "Headers of an answer, those that guards add included",
                "500",
                &[
                    "tidegate/tests/hostile/memory.rs::an_answer_with_too_many_headers_is_an_app_fault",
                ],
            ),
            fixed(
                "ANSWER_HEADERS_BYTES_MAX",
                LimitValue::Bytes(ANSWER_HEADERS_BYTES_MAX),
                "Names and values of the headers that one call of an app gives",
                "500",
                &[
                    "tidegate/tests/hostile/limits.rs::headers_of_answers_and_guards_are_bounded_in_bytes",
                ],
            ),
            fixed(
                "GUARD_CONTEXT_BYTES_MAX",
                LimitValue::Bytes(GUARD_CONTEXT_BYTES_MAX),
                "Context that one guard adds to a request",
                "500",
                &[
                    "tidegate/tests/hostile/limits.rs::headers_of_answers_and_guards_are_bounded_in_bytes",
                ],
            ),
            setting(
                "app",
                "memory",
                "Memory of one instance",
                "500, or close 1011",
                &["tidegate/tests/hostile/limits.rs::an_event_is_bounded_in_time_cpu_and_memory"],
            ),
            setting(
                "app",
                "instances",
                "Instances in use at a time; streams, loaders, actions and rooms have shares of them",
                "the call waits for a while, then 503",
                &[
                    "tidegate/tests/faults.rs::events_beyond_the_instances_get_a_503_with_retry_after",
                ],
            ),
            setting(
                "app",
                "cpu",
                "Computing for one event; for a streamed request, between two waits",
                "500, or close 1011",
                &["tidegate/tests/hostile/limits.rs::an_event_is_bounded_in_time_cpu_and_memory"],
            ),
            setting(
                "app",
                "wall",
                "One event from its beginning to its end; for a streamed request, to the head of the answer",
                "504, or close 1011",
                &["tidegate/tests/hostile/limits.rs::an_event_is_bounded_in_time_cpu_and_memory"],
            ),
            setting(
                "app",
                "output_rate",
                "Bytes that all instances together may print in a second",
                "more lines are left out of the log; counted as `output_dropped`",
                &["tidegate/tests/hostile/logging.rs::output_is_limited_per_instance_and_per_app"],
            ),
            setting(
                "app",
                "instance_output_rate",
                "Bytes that one instance may print in a second",
                "more lines are left out of the log; counted as `output_dropped`",
                &["tidegate/tests/hostile/logging.rs::output_is_limited_per_instance_and_per_app"],
            ),
            setting(
                "app",
                "outbound_silence_max",
                "Time to the head of a response to the app's own requests, and between two pieces of its body",
                "an error to the app",
                &["tidegate/tests/hostile/outbound.rs::a_silent_or_endless_upstream_is_cut_off"],
            ),
            setting(
                "app",
                "outbound_bytes_max",
                "Body of such a response",
                "an error to the app",
                &["tidegate/tests/hostile/outbound.rs::a_silent_or_endless_upstream_is_cut_off"],
            ),
            setting(
                "app",
                "outbound_requests_max",
                "Such requests in progress",
                "an error to the app",
                &["tidegate/tests/hostile/limits.rs::concurrent_requests_of_an_app_are_bounded"],
            ),
        ],
    ),
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if env::var_os("TIDEGATE_GOLDEN").is_some() {
        fs::write(&path, &page).expect("the page is written");
    }
    assert_eq!(
        fs::read_to_string(&path).expect("the page is there"),
        page,
        "run this test with TIDEGATE_GOLDEN=1 to rewrite {PAGE}"
    );
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
fn every_limit_is_crossed_by_a_test() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for row in rows() {
        assert!(!row.tests.is_empty(), "{}", row.what);
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
