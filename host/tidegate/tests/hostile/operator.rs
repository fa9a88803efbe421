//! The operator's commands refuse impossible tasks, and change nothing in that case.

use crate::support::{Tidegate, client::soon, component, run, serve_to_its_end, tidegate};
use rustix::process::Signal;
use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    process::Output,
};
use tempfile::TempDir;

/// Returns the names below a directory, and the contents of the files.
fn content(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(Result::unwrap)
    {
        let (path, name) = (
            entry.path(),
            entry.file_name().to_string_lossy().into_owned(),
        );
        if entry.file_type().unwrap().is_dir() {
            all.extend(
                content(&path)
                    .into_iter()
                    .map(|(below, bytes)| (format!("{name}/{below}"), bytes)),
            );
            all.push((name, Vec::new()));
        } else {
            all.push((name, fs::read(&path).unwrap_or_default()));
        }
    }
    all.sort();
    all
}

/// Checks that the command was refused with one line that contains this text.
fn assert_refused(output: &Output, text: &str, what: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let is_refused = output
        .status
        .code()
        .is_some_and(|code| code == 1 || code == 2);
    assert!(
        is_refused && stderr.contains(text) && stderr.trim().lines().count() == 1,
        "{what}: {:?} {stderr}",
        output.status
    );
    assert!(
        output.stdout.is_empty(),
        "{what}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}

async fn post(server: &Tidegate, room: &str, line: &str) {
    let request = reqwest::Client::new()
        .post(server.url(&format!("/rooms/{room}")))
        .body(line.to_owned());
    assert_eq!(
        soon("an answer", request.send()).await.unwrap().status(),
        200
    );
}

fn serve(data: &Path) -> Tidegate {
    Tidegate::serve(&component("rogue"), &["--data", data.to_str().unwrap()])
}

/// Creates a store with some rooms, which no server has open.
async fn store() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(&dir.path().join("data"));
    for room in ["tea", "milk"] {
        post(&server, room, "a line").await;
    }
    server.stop();
    dir
}

#[test]
fn a_path_that_is_no_store_is_refused_and_unchanged() {
    type Make = fn(&Path);
    let places: [(&str, Make, &str); 7] = [
        ("nothing", |_| {}, "there is no directory"),
        (
            "an empty directory",
            |path| fs::create_dir(path).unwrap(),
            "there is no directory",
        ),
        (
            "other files",
            |path| {
                [
                    fs::create_dir(path),
                    fs::write(path.join("notes.txt"), "mine"),
                ]
                .into_iter()
                .for_each(Result::unwrap)
            },
            "has other files",
        ),
        (
            "a file",
            |path| fs::write(path, "mine").unwrap(),
            "it is not a directory",
        ),
        (
            "a link to nothing",
            |path| symlink(path.with_extension("gone"), path).unwrap(),
            "there is no directory",
        ),
        (
            "a backup that was not finished",
            |path| {
                fs::create_dir(path).unwrap();
                ["incomplete", "current", "tidegate.lock"]
                    .iter()
                    .for_each(|name| fs::write(path.join(name), "").unwrap());
            },
            "was not finished",
        ),
        (
            "what a kill at the first start leaves",
            |path| {
                fs::create_dir_all(path.join("1/keyspaces")).unwrap();
                fs::write(path.join("tidegate.lock"), "").unwrap();
            },
            "there is no directory",
        ),
    ];
    let commands: [&[&str]; 6] = [
        &["rooms"],
        &["verify"],
        &["export", "chat/tea"],
        &["delete", "chat/tea"],
        &["compact"],
        &["backup"],
    ];
    for (what, make, expected) in places {
        let dir = tempfile::tempdir().unwrap();
        let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
        make(&data);
        let before = content(dir.path());
        for command in commands {
            let mut run = tidegate();
            run.arg("data").args(command).arg("--data").arg(&data);
            if command == ["backup"] {
                run.arg(&copy);
            }
            assert_refused(
                &run.output().unwrap(),
                expected,
                &format!("{command:?} on {what}"),
            );
            assert_eq!(content(dir.path()), before, "{command:?} on {what}");
        }
    }
}

#[test]
fn serve_creates_a_store_only_in_an_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    let notes = dir.path().join("notes");
    fs::create_dir(&notes).unwrap();
    fs::write(notes.join("notes.txt"), "mine").unwrap();
    let unfinished = dir.path().join("unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("incomplete"), "").unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    let before = content(dir.path());
    for (data, expected) in [
        (&notes, "has other files"),
        (&unfinished, "was not finished"),
        (&file, "it is not a directory"),
    ] {
        assert_refused(&serve_to_its_end(data), expected, expected);
        assert_eq!(content(dir.path()), before, "{expected}");
    }
    let half_made = dir.path().join("half");
    fs::create_dir_all(half_made.join("1/keyspaces")).unwrap();
    fs::write(half_made.join("tidegate.lock"), "").unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for data in [half_made, empty, dir.path().join("new/below")] {
        serve(&data).stop();
        let verified = run(&["data", "verify", "--data", data.to_str().unwrap()]);
        assert!(verified.status.success(), "{verified:?}");
    }
    let imported = tidegate()
        .args(["data", "import", "--data"])
        .arg(dir.path().join("imported"))
        .output()
        .unwrap();
    assert!(
        imported.status.success()
            && run(&[
                "data",
                "rooms",
                "--data",
                dir.path().join("imported").to_str().unwrap()
            ])
            .status
            .success()
    );
}

#[tokio::test]
async fn a_backup_gets_its_name_when_it_is_complete() {
    let dir = store().await;
    let data = dir.path().join("data");
    let backup = |to: &Path| {
        tidegate()
            .args(["data", "backup"])
            .arg(to)
            .arg("--data")
            .arg(&data)
            .output()
            .unwrap()
    };
    let copy = dir.path().join("copy");
    // A killed command left this directory.
    let beside = dir.path().join("copy.incomplete");
    fs::create_dir(&beside).unwrap();
    ["incomplete", "tidegate.lock"]
        .iter()
        .for_each(|name| fs::write(beside.join(name), "").unwrap());
    assert_refused(&serve_to_its_end(&beside), "was not finished", "serve");
    assert!(backup(&copy).status.success() && copy.is_dir() && !beside.exists());
    let rooms = |data: &Path| {
        String::from_utf8(run(&["data", "rooms", "--data", data.to_str().unwrap()]).stdout).unwrap()
    };
    assert_eq!(rooms(&copy), rooms(&data));
    assert_refused(&backup(&copy), "exists already", "a second one");
    let nowhere = Path::new("/proc/nowhere");
    assert_refused(
        &backup(nowhere),
        "can't read or write",
        "where nothing can be made",
    );
    assert_refused(
        &backup(&data.join("inside")),
        "is in the directory",
        "into itself",
    );
    fs::write(dir.path().join("other.incomplete"), "mine").unwrap();
    assert_refused(
        &backup(&dir.path().join("other")),
        "in the way",
        "where a file is",
    );
    assert_eq!(
        fs::read(dir.path().join("other.incomplete")).unwrap(),
        b"mine"
    );

    let server = serve(&data);
    assert!(backup(&dir.path().join("of a server")).status.success());
    assert_refused(&backup(&copy), "exists already", "by a server");
    server.stop();
    assert_eq!(rooms(&dir.path().join("of a server")), rooms(&data));
}

#[tokio::test]
async fn a_second_server_on_a_data_directory_is_one_error_line() {
    let dir = store().await;
    let data = dir.path().join("data");
    let server = serve(&data);
    assert_refused(
        &serve_to_its_end(&data),
        "another process has",
        "the second",
    );
    post(&server, "tea", "another line").await;
    server.stop();
}

#[test]
fn a_control_socket_replaces_no_foreign_file_and_refuses_a_long_path() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("notes");
    let socket = dir.path().join("notes.sock");
    fs::write(&socket, "precious").unwrap();
    let server = serve(&data);
    server.wait_for("is not a socket");
    server.stop();
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
    fs::remove_file(&socket).unwrap();

    // A socket that a killed server left is replaced, and removed at the end.
    drop(UnixListener::bind(&socket).unwrap());
    let server = serve(&data);
    assert!(
        tidegate()
            .args(["reload", "--data"])
            .arg(&data)
            .output()
            .unwrap()
            .status
            .success()
    );
    server.stop();
    assert!(!socket.exists());

    let long = dir.path().join("x".repeat(110));
    assert_refused(&serve_to_its_end(&long), "--data", "a long path");
    assert!(!long.exists());
}

#[test]
fn without_a_home_one_line_reports_that_compiled_code_is_not_cached() {
    let dir = tempfile::tempdir().unwrap();
    for home in [None, Some("relative")] {
        let mut command = tidegate();
        command
            .env_remove("TIDEGATE_CACHE_DIR")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("HOME")
            .current_dir(dir.path());
        command.envs(home.map(|home| ("HOME", home)));
        command.arg("check").arg(component("rogue"));
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert_eq!(
            stderr
                .lines()
                .filter(|line| line.contains("compiled components are not cached"))
                .count(),
            1,
            "{stderr}"
        );
        assert_eq!(content(dir.path()), []);
    }
}

#[test]
fn a_signal_ends_a_compilation_and_a_hangup_does_not() {
    for (signal, ends) in [
        (Signal::TERM, true),
        (Signal::INT, true),
        (Signal::HUP, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = tidegate();
        command.arg("serve").arg(component("rogue")).args([
            "--listen",
            "127.0.0.1:0",
            "--no-cache",
            "--data",
        ]);
        let server = Tidegate::begin(command.arg(dir.path().join("data")));
        wait_until_handled(server.pid());
        server.signal(signal);
        if ends {
            let stopped = server.wait();
            assert_eq!(
                stopped.status.code(),
                Some(0),
                "{signal:?}: {}",
                stopped.stderr
            );
            assert!(
                !stopped.stderr.contains("http://"),
                "{signal:?} came too late to test anything"
            );
        } else {
            assert_eq!(server.listening().unwrap().stop().status.code(), Some(0));
        }
    }
}

/// Waits until the process handles SIGTERM according to the kernel, so that it has started.
fn wait_until_handled(pid: u32) {
    let term = 1_u64 << (Signal::TERM.as_raw() - 1);
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap_or("0");
        if u64::from_str_radix(caught.trim(), 16).unwrap() & term != 0 {
            return;
        }
        std::thread::yield_now();
    }
}
