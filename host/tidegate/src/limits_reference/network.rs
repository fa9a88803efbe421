//! Limits of clients: connections, requests, WebSockets, feeds and topics.

use super::{Group, LimitValue, fixed, limit, setting};
use tidegate_hub::limits::*;

pub(super) const CONNECTIONS: Group = (
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
            "Time until the client takes one more of the bytes that are queued for it",
            "the connection is closed; counted as `stalled_readers`",
            &[
                "tidegate/tests/hostile/progress.rs::a_client_that_reads_too_slowly_is_closed_and_counted",
            ],
        ),
        limit(
            "bytes_per_second_min",
            "Lowest rate of a client that the host waits for, in bytes a second, on average over `read_within` or `write_within`",
            "as for those two",
            &[
                "tidegate/tests/hostile/progress.rs::a_client_that_reads_too_slowly_is_closed_and_counted",
            ],
        ),
        limit(
            "half_close_within",
            "Time until a client that has ended its sending side takes one more byte of its answer",
            "it counts as gone, and the connection is closed",
            &["tidegate/tests/web/close.rs::a_half_closed_client_that_stops_reading_is_dropped"],
        ),
        fixed(
            "HALF_CLOSE_PATIENCE",
            LimitValue::Time(HALF_CLOSE_PATIENCE),
            "The same time while a call waits for an instance",
            "it counts as gone, and its instance is free",
            &[
                "tidegate/tests/hostile/instances.rs::an_instance_of_a_client_that_left_is_free_for_a_call_that_waits",
            ],
        ),
        limit(
            "linger_within",
            "Time for which bytes of a client are read and dropped after the last answer of its connection, so that the answer arrives",
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
            "Time until requests and connections end when the server stops",
            "those that are still open are cut off",
            &["tidegate/tests/drain.rs::requests_that_do_not_end_are_cut_off_at_the_deadline"],
        ),
    ],
);

pub(super) const REQUESTS: Group = (
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
            "Time from the first byte of a head to its last",
            "408, and the connection is closed; counted as `late_heads`",
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
            "Time until such a body is complete",
            "408",
            &["tidegate/tests/hostile/limits.rs::an_unfinished_head_or_body_times_out"],
        ),
        limit(
            "idle_within",
            "Time between two requests of a connection",
            "the connection is closed",
            &["tidegate/tests/hostile/limits.rs::an_unfinished_head_or_body_times_out"],
        ),
        limit(
            "after_answer_max",
            "Time for work of the app after its answer has ended or its client has left",
            "the instance is dropped; earlier if a request waits for an instance, except for an eighth of all that work after whole answers",
            &[
                "tidegate/tests/hostile/instances.rs::work_after_an_answer_is_bounded_and_does_not_delay_it",
                "tidegate/tests/hostile/instances.rs::work_after_answers_leaves_instances_to_waiting_requests",
            ],
        ),
    ],
);

pub(super) const WEBSOCKETS_AND_FEEDS: Group = (
    "WebSockets and feeds",
    &[
        limit(
            "upgrade_within",
            "Time for guards and the app to decide about an upgrade",
            "503",
            &["tidegate/tests/faults/main.rs::a_slow_on_upgrade_is_a_fault_and_a_503"],
        ),
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
            "Payload of one incoming frame",
            "close 1009",
            &["tidegate/tests/hostile/limits.rs::an_oversized_message_is_closed_with_1009"],
        ),
        limit(
            "fragments_max",
            "Frames of one incoming message",
            "close 1009",
            &["tidegate/tests/hostile/limits.rs::an_oversized_message_is_closed_with_1009"],
        ),
        limit(
            "control_frames_max",
            "Pings and pongs of a client in a second",
            "close 1008; counted as `control_floods`",
            &["tidegate/tests/hostile/progress.rs::a_flood_of_pings_or_pongs_is_closed_with_1008"],
        ),
        fixed(
            "CONTROL_FRAMES_PERIOD",
            LimitValue::Time(CONTROL_FRAMES_PERIOD),
            "Window of `control_frames_max`",
            "",
            &["tidegate/tests/hostile/progress.rs::a_flood_of_pings_or_pongs_is_closed_with_1008"],
        ),
        limit(
            "inbox_messages_max",
            "Messages that wait for the app",
            "the host stops reading the connection until the app has handled them",
            &[
                "tidegate/tests/hostile/limits.rs::a_client_that_sends_faster_than_the_app_reads_waits",
            ],
        ),
        limit(
            "inbox_bytes_max",
            "Bytes of messages that wait for the app",
            "the host stops reading the connection until the app has handled them",
            &[
                "tidegate/tests/hostile/limits.rs::a_client_that_sends_faster_than_the_app_reads_waits",
            ],
        ),
        limit(
            "outbox_messages_max",
            "Messages queued for one client",
            "`full` to the app; a publication closes the client with 1013, or drops its oldest (`drop_oldest`)",
            &["tidegate/tests/hostile/limits.rs::a_full_outbox_returns_an_error_to_the_app"],
        ),
        limit(
            "outbox_bytes_max",
            "Bytes queued for one client",
            "as for messages",
            &["tidegate/tests/hostile/limits.rs::a_full_outbox_returns_an_error_to_the_app"],
        ),
        fixed(
            "TURN_FRAMES_MAX",
            LimitValue::Count(TURN_FRAMES_MAX),
            "Frames of a WebSocket that are read before its calls and its outbox have their turn",
            "the rest waits",
            &[
                "tidegate/tests/hostile/fairness.rs::a_flooding_client_does_not_starve_others",
                "edge/src/websocket/wire.rs::frames_are_counted_within_messages",
            ],
        ),
        fixed(
            "TURN_BYTES_MAX",
            LimitValue::Bytes(TURN_BYTES_MAX),
            "Bytes that a WebSocket moves before other connections of its worker have their turn",
            "the rest waits",
            &["tidegate/tests/hostile/fairness.rs::a_flooding_client_does_not_starve_others"],
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
            "Ids of connections that one call of the app receives",
            "the app asks for the next page",
            &["tidegate/tests/hostile/limits.rs::listings_of_entries_and_ids_are_paged"],
        ),
        limit(
            "ping_every",
            "Time between two pings of the host",
            "a ping; 0 for none",
            &["tidegate/tests/hostile/limits.rs::a_client_that_answers_no_ping_is_dropped"],
        ),
        limit(
            "pong_within",
            "Time until any byte arrives after a ping",
            "the connection is dropped; the app receives 1006",
            &["tidegate/tests/hostile/limits.rs::a_client_that_answers_no_ping_is_dropped"],
        ),
        limit(
            "idle_max",
            "Time without a byte from the client or on its way to it; an answered ping is one, so the bound needs a longer or no `ping_every`. 0 for no bound",
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
            &["tidegate/tests/hostile/limits.rs::a_websocket_has_a_lifetime_and_an_idle_timeout"],
        ),
        limit(
            "close_within",
            "Time until the client answers a close frame",
            "the socket is dropped",
            &[
                "tidegate/tests/drain.rs::a_client_that_ignores_the_close_frame_is_dropped_and_on_close_reports_it",
            ],
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
        limit(
            "comment_every",
            "Time between two comments on a silent feed, and between two heartbeats of a streamed page",
            "a comment",
            &["tidegate/tests/topics.rs::comments_keep_a_silent_feed_open"],
        ),
    ],
);

pub(super) const TOPICS: Group = (
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
            "Publications that a topic keeps for clients that resume",
            "the client receives a gap notice",
            &["tidegate/tests/hostile/limits.rs::a_history_is_bounded_in_messages_and_bytes"],
        ),
        limit(
            "history_age_max",
            "Age of a publication in the history",
            "the client receives a gap notice",
            &["tidegate/tests/hostile/limits.rs::a_history_expires"],
        ),
        limit(
            "history_message_bytes_max",
            "A publication in the history",
            "it is not kept: the client receives a gap notice",
            &["tidegate/tests/hostile/limits.rs::a_history_is_bounded_in_messages_and_bytes"],
        ),
        limit(
            "history_bytes_max",
            "Publications that all topics together keep in memory; those of rooms are in their storage",
            "the topic's oldest are forgotten: the client receives a gap notice",
            &["tidegate/tests/hostile/limits.rs::a_history_is_bounded_in_messages_and_bytes"],
        ),
    ],
);
