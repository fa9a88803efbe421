//! Limits of apps: rooms, pages, forms and instances.

use super::{Group, LimitValue, fixed, limit, setting};
use tidegate_hub::limits::*;
use tidegate_routing::ROOM_CLASS_BYTES_MAX;

pub(super) const ROOMS: Group = (
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
            "Rooms that are awake at a time; at most a quarter of the instances",
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
            "Entries that one call of the app receives",
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
                "tidegate/tests/hostile/retries.rs::a_room_that_does_not_wake_is_closed_for_thirty_seconds",
            ],
        ),
        fixed(
            "ROOMS_FAILING_MAX",
            LimitValue::Count(ROOMS_FAILING_MAX),
            "Rooms whose failed wakes are remembered",
            "the failures of the room that failed first are forgotten",
            &[
                "tidegate/tests/hostile/retries.rs::beyond_a_thousand_failing_rooms_the_one_that_failed_first_is_forgotten",
            ],
        ),
        fixed(
            "ALARM_ATTEMPTS_MAX",
            LimitValue::Count(ALARM_ATTEMPTS_MAX as usize),
            "Attempts of one alarm",
            "it is given up, and logged",
            &[
                "tidegate/tests/hostile/retries.rs::an_alarm_that_fails_is_tried_six_times_over_sixty_two_seconds",
            ],
        ),
        fixed(
            "ALARM_RETRY",
            LimitValue::Time(ALARM_RETRY),
            "Time before the first retry of an alarm; twice as long before each later one",
            "",
            &[
                "tidegate/tests/hostile/retries.rs::an_alarm_that_fails_is_tried_six_times_over_sixty_two_seconds",
            ],
        ),
        fixed(
            "ALARMS_LATE",
            LimitValue::Time(ALARMS_LATE),
            "Time after which an alarm that was not called is late",
            "late alarms are spread",
            &[
                "tidegate/tests/hostile/retries.rs::alarms_that_are_late_by_more_than_a_second_are_called_ten_at_a_time",
            ],
        ),
        fixed(
            "ALARMS_LATE_MAX",
            LimitValue::Count(ALARMS_LATE_MAX),
            "Late alarms that are called in a tenth of a second, and as many retries",
            "they wait, the longest due first",
            &[
                "tidegate/tests/hostile/retries.rs::alarms_that_are_late_by_more_than_a_second_are_called_ten_at_a_time",
            ],
        ),
        fixed(
            "HOST_RETRY",
            LimitValue::Time(HOST_RETRY),
            "First pause before the host repeats an event that it could not deliver; each later one is twice as long",
            "",
            &["tidegate/tests/hostile/events.rs::an_on_close_waits_for_an_instance_and_runs_once"],
        ),
        fixed(
            "HOST_RETRY_MAX",
            LimitValue::Time(HOST_RETRY_MAX),
            "The longest such pause",
            "",
            &[
                "tidegate/tests/hostile/retries.rs::the_host_tries_again_after_250_ms_at_first_and_after_five_seconds_at_last",
            ],
        ),
        fixed(
            "ROOM_RETRIES_MAX",
            LimitValue::Count(ROOM_RETRIES_MAX),
            "Rooms whose pending events are retried in a tenth of a second",
            "they wait, the longest due first",
            &[
                "tidegate/tests/hostile/retries.rs::pending_events_of_fifty_rooms_are_tried_again_in_a_tick",
            ],
        ),
        fixed(
            "ALARM_OF_NOBODY",
            LimitValue::Time(ALARM_OF_NOBODY),
            "Time between two checks for a room class that an alarm needs and the served version lacks",
            "it waits",
            &[
                "tidegate/tests/hostile/retries.rs::an_alarm_of_a_class_that_is_not_served_is_looked_at_every_ten_seconds",
            ],
        ),
    ],
);

pub(super) const PAGES_AND_FORMS: Group = (
    "Pages and forms",
    &[
        limit(
            "first_within",
            "Time that the shell of a page waits for first values",
            "the shell is sent without them",
            &["tidegate/tests/pages.rs::the_shell_is_sent_before_the_first_value_of_a_slow_loader"],
        ),
        limit(
            "loader_within",
            "Time until a loader that is not live ends",
            "504, or `timeout` in a stream",
            &["tidegate/tests/pages.rs::a_faulty_loader_is_reported_and_leaves_the_others_running"],
        ),
        limit(
            "upload_bytes_max",
            "A whole form, files included",
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
            "Bytes of a form that have arrived before its action starts, or the whole form",
            "the action waits",
            &["tidegate/tests/hostile/progress.rs::no_action_starts_for_a_stalled_form"],
        ),
        fixed(
            "PART_HEAD_BYTES_MAX",
            LimitValue::Bytes(PART_HEAD_BYTES_MAX),
            "Bytes of a form of parts in which no part is found",
            "413",
            &["tidegate/tests/hostile/limits.rs::a_form_without_a_complete_part_is_not_buffered"],
        ),
    ],
);

pub(super) const THE_APP: Group = (
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
                "tidegate/tests/faults/main.rs::events_beyond_the_instances_get_a_503_with_retry_after",
                "tidegate/tests/hostile/instances.rs::streams_leave_a_share_of_instances_to_other_events",
                "tidegate/tests/hostile/shares.rs::loaders_hold_at_most_their_share",
                "tidegate/tests/hostile/shares.rs::actions_hold_at_most_their_share",
                "tidegate/tests/hostile/shares.rs::renders_hold_at_most_their_share",
            ],
        ),
        setting(
            "app",
            "cpu",
            "Processor time of one event; of a streamed request between two waits",
            "500, or close 1011",
            &["tidegate/tests/hostile/limits.rs::an_event_is_bounded_in_time_cpu_and_memory"],
        ),
        setting(
            "app",
            "wall",
            "Time of one event, including waits; of a streamed request to the head of the answer",
            "504, or close 1011",
            &["tidegate/tests/hostile/limits.rs::an_event_is_bounded_in_time_cpu_and_memory"],
        ),
        fixed(
            "ANSWER_HEADERS_MAX",
            LimitValue::Count(ANSWER_HEADERS_MAX),
            "Headers of an answer, including those of guards",
            "500",
            &["tidegate/tests/hostile/memory.rs::an_answer_with_too_many_headers_is_an_app_fault"],
        ),
        fixed(
            "ANSWER_HEADERS_BYTES_MAX",
            LimitValue::Bytes(ANSWER_HEADERS_BYTES_MAX),
            "Names and values of the headers that one call of an app sets",
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
);
