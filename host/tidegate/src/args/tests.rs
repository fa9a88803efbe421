//! Tests of the arguments: their declaration, their priority, and the defaults in the help.

use super::*;
use clap::CommandFactory as _;

#[test]
fn the_command_line_is_well_formed() {
    Args::command().debug_assert();
}

#[test]
fn flags_go_before_the_defaults() {
    let args = Args::try_parse_from([
        "tidegate",
        "serve",
        "a.wasm",
        "--listen",
        "localhost:0",
        "--memory",
        "1 MiB",
        "--drain",
        "0",
        "--origin",
        "any",
        "--limit",
        "tags_max=3",
        "--env",
        "A=1",
        "--no-cache",
        "--workers",
        "7",
    ]);
    let Ok(Args {
        command: Command::Serve(serve),
        ..
    }) = args
    else {
        panic!("not taken")
    };
    let Ok(config) = serve.config() else {
        panic!("refused")
    };
    assert_eq!(
        (
            config.listen.to_string(),
            config.workers,
            config.app.memory_bytes_max
        ),
        ("localhost:0".into(), 7, 1 << 20)
    );
    assert_eq!(
        (config.edge.origins, config.limits.tags_max),
        (tidegate_edge::Origins::Any, 3)
    );
    assert_eq!(
        (config.edge.drain_within, config.app.cache),
        (Duration::ZERO, None)
    );
    assert_eq!(config.app.env, [("A".to_owned(), "1".to_owned())]);
}

#[test]
fn help_names_the_defaults_as_they_are() {
    let mut command = Args::command();
    let help = command
        .find_subcommand_mut("serve")
        .expect("there is one")
        .render_help()
        .to_string();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let config = Config::default();
    let quantity = |section, name| {
        key::SettingKey::find(section, name)
            .and_then(|key| key.quantity(&config))
            .expect("it is one")
    };
    let flags = [
        ("--listen", config.listen.to_string()),
        ("--drain", quantity("server", "drain")),
        ("--memory", quantity("app", "memory")),
        ("--instances", quantity("app", "instances")),
        ("--cpu", quantity("app", "cpu")),
        ("--wall", quantity("app", "wall")),
    ];
    for (flag, default) in flags {
        let description = words
            .split(&format!(" {flag} <"))
            .nth(1)
            .and_then(|rest| rest.split(" --").next());
        assert!(
            description
                .is_some_and(|description| description.contains(&format!("[default: {default}]"))),
            "{flag}: {description:?}"
        );
    }
}
