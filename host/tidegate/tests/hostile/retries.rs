//! Pauses and retries of rooms and alarms, whose times no setting changes. `tidegate test` serves
//! the component on a clock that the script moves, so pauses of any length pass at once.

use crate::support::{component, run};
use std::{fmt::Write as _, fs, path::Path};

/// Plays these steps, one in a line, against the app `rogue`; returns the log.
fn play(place: &Path, steps: &str) -> String {
    let script = place.join("script.toml");
    let text = format!("[[test]]\nname = \"it\"\nsteps = [\n{steps}\n]\n");
    fs::write(&script, &text).unwrap();
    let app = component("rogue");
    let output = run(&["test", app.to_str().unwrap(), script.to_str().unwrap()]);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success(),
        "{}\n{log}",
        String::from_utf8_lossy(&output.stdout)
    );
    log
}

fn play_alone(steps: &str) -> String {
    play(tempfile::tempdir().unwrap().path(), steps)
}

/// Connects "cid" and "bob" to the room of guests, so that "cid" sees that "bob" leaves.
fn two_guests(room: &str) -> String {
    format!(
        r#"{{ connect = "cid-{room}", to = "/guests/{room}?name=cid" }},
{{ expect = "cid-{room}", contains = "snapshot" }},
{{ connect = "bob-{room}", to = "/guests/{room}?name=bob" }},
{{ expect = "cid-{room}", contains = "join" }},
"#
    )
}

fn leaves(room: &str) -> String {
    format!("{{ expect = \"cid-{room}\", contains = \"leave\" }},\n")
}

fn no_event(room: &str) -> String {
    format!("{{ expect = \"cid-{room}\", nothing = true }},\n")
}

/// Writes the component as its second version, in which each room wakes.
fn write_second_version(place: &Path) {
    let mut wasm = fs::read(component("rogue")).unwrap();
    let (from, to) = (b"version 01", b"version 02");
    let marks: Vec<usize> = (0..wasm.len() - from.len())
        .filter(|at| wasm[*at..].starts_with(from))
        .collect();
    assert!(!marks.is_empty());
    for at in marks {
        wasm[at..at + to.len()].copy_from_slice(to);
    }
    fs::write(place.join("second.wasm"), wasm).unwrap();
}

#[test]
fn a_room_that_does_not_wake_is_closed_for_thirty_seconds() {
    let fails = r#"{ request = "GET /rooms/never", status = 500 },
"#;
    let closed = "{ request = \"GET /rooms/never\", status = 503 },\n";
    play_alone(&format!(
        r#"{}{closed}{{ advance = "29900ms" }},
{closed}{{ advance = "100ms" }},
{}{closed}"#,
        fails.repeat(5),
        fails.repeat(5),
    ));
}

#[test]
fn beyond_a_thousand_failing_rooms_the_one_that_failed_first_is_forgotten() {
    let ask = |room: &str, status: u16| {
        format!("{{ request = \"GET /rooms/{room}\", status = {status} }},\n")
    };
    let mut steps = ask("never-a", 500).repeat(5) + &ask("never-b", 500).repeat(5);
    for number in 0..998 {
        steps += &ask(&format!("never-{number}"), 500);
    }
    steps += &(ask("never-a", 503) + &ask("never-b", 503));
    steps += &(ask("never-more", 500) + &ask("never-b", 503) + &ask("never-a", 500));
    play_alone(&steps);
}

#[test]
fn an_alarm_that_fails_is_tried_six_times_over_sixty_two_seconds() {
    let log = play_alone(
        r#"{ connect = "ann", to = "/guests/fails-5?name=ann" },
{ expect = "ann", contains = "snapshot" },
{ send = "ann", text = "alarm 1000" },
{ expect = "ann", text = "done alarm 1000" },
{ advance = "1s" },
{ advance = "61900ms" },
{ expect = "ann", nothing = true },
{ advance = "100ms" },
{ expect = "ann", text = "alarm 6" },
{ connect = "bob", to = "/guests/fails-6?name=bob" },
{ expect = "bob", contains = "snapshot" },
{ send = "bob", text = "alarm 1000" },
{ expect = "bob", text = "done alarm 1000" },
{ advance = "24h" },
{ expect = "bob", nothing = true },
{ send = "bob", text = "x" },
{ expect = "bob", text = "done x" },"#,
    );
    for room in ["fails-5", "fails-6"] {
        assert_eq!(
            log.matches(&format!("an alarm of {room}")).count(),
            6,
            "{log}"
        );
    }
}

#[test]
fn alarms_that_are_late_by_more_than_a_second_are_called_ten_at_a_time() {
    let mut steps = String::new();
    for (group, ago) in [("late", 1001), ("punctual", 900)] {
        for number in 0..15 {
            _ = writeln!(
                steps,
                "{{ request = \"POST /guests/{group}-{number:02}\", body = \"{ago}\", text = \"set\" }},"
            );
        }
    }
    // The script's clock stands still from tick to tick as long as an alarm is due.
    steps += "{ advance = \"100ms\" },\n";
    let log = play_alone(&steps);
    let called: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once("an alarm of ").map(|(_, room)| room.trim()))
        .collect();
    assert_eq!(called.len(), 30, "{log}");
    // The first tick calls ten late ones and all others.
    let is_late = |room: &&&str| room.starts_with("late");
    assert_eq!(
        called[..25].iter().filter(is_late).count(),
        10,
        "{called:?}"
    );
    assert_eq!(called[25..].iter().filter(is_late).count(), 5, "{called:?}");
}

#[test]
fn the_host_tries_again_after_250_ms_at_first_and_after_five_seconds_at_last() {
    // The next commit fails. Another room's commit shows whether that has happened already.
    let fail = "{ fail_next_commit = true },\n";
    let has_failed = "{ request = \"POST /rooms/milk\", body = \"x\", status = 200 },\n";
    let has_not_failed = "{ request = \"POST /rooms/milk\", body = \"x\", status = 500 },\n";
    let advance = |time: &str| format!("{{ advance = \"{time}\" }},\n");
    let mut steps = two_guests("tea");
    steps += &format!("{fail}{{ disconnect = \"bob-tea\" }},\n{has_failed}");
    steps += &(fail.to_owned() + &advance("249ms") + has_not_failed);
    steps += &(fail.to_owned() + &advance("1ms") + has_failed);
    for _ in 0..8 {
        steps += &(fail.to_owned() + &advance("10s") + has_failed);
    }
    steps += &(fail.to_owned() + &advance("4900ms") + has_not_failed + &advance("100ms"));
    steps += "{ request = \"GET /guests/tea\", text = \"close bob | cid\" },\n";
    play_alone(&steps);
}

#[test]
fn pending_events_of_fifty_rooms_are_tried_again_in_a_tick() {
    let place = tempfile::tempdir().unwrap();
    write_second_version(place.path());
    let rooms: Vec<String> = (0..60).map(|number| format!("r{number:02}")).collect();
    let mut steps = String::new();
    for room in &rooms {
        steps += &two_guests(room);
        _ = writeln!(
            steps,
            r#"{{ send = "cid-{room}", text = "sleepy" }},
{{ expect = "cid-{room}", text = "done sleepy" }},
{{ sleep = "/guests/{room}" }},"#
        );
    }
    for room in &rooms {
        _ = writeln!(steps, "{{ disconnect = \"bob-{room}\" }},");
    }
    steps += "{ reload = \"second.wasm\" },\n";
    // No tick has come since the version is served that can wake.
    steps.extend(rooms.iter().map(|room| no_event(room)));
    steps += "{ advance = \"100ms\" },\n";
    steps.extend(rooms[..50].iter().map(|room| leaves(room)));
    steps.extend(rooms[50..].iter().map(|room| no_event(room)));
    steps += "{ advance = \"100ms\" },\n";
    steps.extend(rooms[50..].iter().map(|room| leaves(room)));
    play(place.path(), &steps);
}

#[test]
fn an_alarm_of_a_class_that_is_not_served_is_looked_at_every_ten_seconds() {
    let (place, rogue, echo) = (
        tempfile::tempdir().unwrap(),
        component("rogue"),
        component("echo"),
    );
    fs::copy(echo, place.path().join("echo.wasm")).unwrap();
    fs::copy(rogue, place.path().join("rogue.wasm")).unwrap();
    play(
        place.path(),
        r#"{ connect = "ann", to = "/guests/tea?name=ann" },
{ expect = "ann", contains = "snapshot" },
{ send = "ann", text = "alarm 60000" },
{ expect = "ann", text = "done alarm 60000" },
{ reload = "echo.wasm" },
{ expect = "ann", closed = 1012 },
{ advance = "1h" },
{ reload = "rogue.wasm" },
{ connect = "bob", to = "/guests/tea?name=bob" },
{ expect = "bob", contains = "snapshot" },
{ advance = "9900ms" },
{ expect = "bob", nothing = true },
{ advance = "100ms" },
{ expect = "bob", text = "alarm 1" },"#,
    );
}
