//! The grants of an app: it has no access by default, and exactly the granted access afterwards.

mod support;

use reqwest::Client;
use std::{fs, os::unix::fs::symlink, path::Path};
use support::{
    Tidegate,
    client::{get, soon},
    component, tidegate,
};
use tempfile::TempDir;

async fn put(server: &Tidegate, path: &str) -> u16 {
    let request = Client::new()
        .put(server.url(&format!("/write?path={path}")))
        .body("written");
    soon(path, request.send()).await.unwrap().status().as_u16()
}

/// A directory that may be granted, beside a file that may not be read.
fn temp_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret.txt"), "secret").unwrap();
    fs::create_dir_all(dir.path().join("data/deep")).unwrap();
    fs::write(dir.path().join("data/a.txt"), "granted").unwrap();
    fs::write(dir.path().join("data/deep/b.txt"), "as well").unwrap();
    symlink(
        dir.path().join("secret.txt"),
        dir.path().join("data/absolute"),
    )
    .unwrap();
    symlink("../secret.txt", dir.path().join("data/relative")).unwrap();
    dir
}

fn settings(dir: &TempDir, text: &str) -> String {
    let path = dir.path().join("tidegate.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_app_without_grants_has_no_variables_and_no_files() {
    let mut command = tidegate();
    let dir = temp_dir();
    command.current_dir(dir.path()); // the default directory of the rooms' data
    command
        .arg("serve")
        .arg(component("rogue"))
        .args(["--listen", "127.0.0.1:0"])
        .env("TOKEN", "secret");
    let server = Tidegate::spawn(command);
    assert_eq!(get(&server, "/env").await, (200, String::new()));
    for path in [
        "/etc/hostname",
        "/proc/self/environ",
        "Cargo.toml",
        ".",
        "/",
    ] {
        assert_eq!(
            get(&server, &format!("/read?path={path}")).await.0,
            403,
            "{path}"
        );
    }
    assert_eq!(put(&server, "/tmp/tidegate-rogue-was-here").await, 403);
    assert!(!Path::new("/tmp/tidegate-rogue-was-here").exists());
}

#[tokio::test]
async fn an_app_has_only_granted_variables() {
    let dir = temp_dir();
    let settings = settings(&dir, "[grants]\nenv = [\"A=file\", \"C=file\"]\n");
    let mut command = tidegate();
    command
        .arg("serve")
        .arg(component("rogue"))
        .args(["--listen", "127.0.0.1:0", "--config", &settings])
        .current_dir(dir.path());
    command
        .args(["--env", "A=flag", "--env", "TOKEN"])
        .env("TOKEN", "passed on")
        .env("OTHER", "secret");
    let server = Tidegate::spawn(command);
    assert_eq!(
        get(&server, "/env").await,
        (200, "A=flag\nC=file\nTOKEN=passed on".into()),
        "a flag takes precedence over the file"
    );
}

#[tokio::test]
async fn a_granted_directory_is_confined_to_its_name() {
    for (grant, status) in [("data::/data", 403), ("data::/data::rw", 204)] {
        let dir = temp_dir();
        let grant = format!("{}/{grant}", dir.path().display());
        let server = Tidegate::serve(&component("rogue"), &["--dir", &grant]);
        assert_eq!(
            get(&server, "/read?path=/data/a.txt").await,
            (200, "granted".into())
        );
        assert_eq!(
            get(&server, "/read?path=/data/deep/../deep/b.txt").await,
            (200, "as well".into())
        );
        let host = dir.path().join("secret.txt");
        let outside = [
            "/data/../secret.txt",
            "/data/absolute",
            "/data/relative",
            "/data/deep/../../secret.txt",
            host.to_str().unwrap(),
        ];
        for path in outside {
            let (status, answer) = get(&server, &format!("/read?path={path}")).await;
            assert!(
                status == 403 && !answer.contains("secret"),
                "{path}: {status} {answer}"
            );
            assert_eq!(put(&server, path).await, 403, "{path}");
        }
        assert_eq!(put(&server, "/data/new.txt").await, status, "{grant}");
        assert_eq!(put(&server, "/data/a.txt").await, status, "{grant}");
        let content = fs::read_to_string(dir.path().join("data/a.txt")).unwrap();
        assert_eq!(content, if status == 204 { "written" } else { "granted" });
        assert_eq!(dir.path().join("data/new.txt").exists(), status == 204);
        assert_eq!(fs::read_to_string(host).unwrap(), "secret");
    }
}
