//! `tidegate tail`: the live log of a running server.

use crate::{args::TailArgs, colour, command_error::CommandError, control, printable};
use serde_json::{Map, Value};
use std::{
    fmt::Write as _,
    io::{Write as _, stderr},
};

/// Prints lines until the server ends.
pub(crate) fn run(args: &TailArgs) -> Result<(), CommandError> {
    let lines = control::tail(&args.data, &args.line_filter())?;
    _ = writeln!(stderr(), "following the log; Ctrl-C ends this command only");
    for line in lines {
        let line = line?;
        let text = match serde_json::from_str(&line) {
            Ok(Value::Object(fields)) if !args.json => readable(fields, colour::is_on_stdout()),
            _ => printable::escaped_json(&line).into_owned(),
        };
        super::print(&format!("{text}\n"))?;
    }
    Ok(())
}

/// Formats a line for people: time, level, target, message and fields.
fn readable(mut fields: Map<String, Value>, coloured: bool) -> String {
    let mut take = |key: &str| {
        fields
            .remove(key)
            .map_or_else(String::new, |value| plain(&value))
    };
    let (time, level, target, message) =
        (take("time"), take("level"), take("target"), take("message"));
    let time = time.split(['T', '.', 'Z']).nth(1).unwrap_or_default();
    let (dim, level_colour, off) = match (coloured, level.as_str()) {
        (false, _) => ("", "", ""),
        (_, "ERROR") => ("\x1b[2m", "\x1b[31m", "\x1b[0m"),
        (_, "WARN") => ("\x1b[2m", "\x1b[33m", "\x1b[0m"),
        (_, "INFO") => ("\x1b[2m", "\x1b[32m", "\x1b[0m"),
        _ => ("\x1b[2m", "\x1b[34m", "\x1b[0m"),
    };
    let target = target.split("::").next().unwrap_or_default();
    let mut line = format!(
        "{dim}{time}{off} {level_colour}{level:>5}{off} {dim}{target}:{off} {message}{dim}"
    );
    for (key, value) in &fields {
        _ = write!(line, " {key}={}", plain(value));
    }
    line + off
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(
        || value.to_string(),
        |text| printable::escaped(text).into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_has_its_message_before_its_fields() {
        let Value::Object(fields) = json!({
            "time": "2026-05-01T10:20:30.123456Z", "level": "INFO", "target": "tidegate_edge::http1", "message": "GET /", "route": "/", "status": 200,
        }) else {
            panic!()
        };
        assert_eq!(
            readable(fields.clone(), false),
            "10:20:30  INFO tidegate_edge: GET / route=/ status=200"
        );
        assert_eq!(readable(fields, true).matches('\x1b').count(), 8);
    }
}
