//! Problems of an app, each with its code: as one line for the log, a report for people, and JSON
//! for editors.

use serde_json::{Value, json};
use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};
use tidegate_routing::Violation;
use tidegate_wasm::{LoadError, UNGRANTED, UngrantedImport};

const EXPLANATIONS: &str = include_str!("explanations.md");

/// The problems that keep an app from being served. Its `Display` is the short form.
#[derive(Debug)]
pub(crate) struct Rejection {
    app: PathBuf,
    problems: Vec<Diagnostic>,
}

/// A problem with its code.
#[derive(Debug)]
struct Diagnostic {
    code: &'static str,
    /// The problem in a few words.
    title: String,
    /// Kind, index and text of the route or guard.
    place: Option<(&'static str, usize, String)>,
    why: String,
    help: String,
    line: String,
}

impl Rejection {
    pub(crate) fn load(app: &Path, error: &LoadError) -> Rejection {
        let title = one_line(&error.what());
        let line = one_line(&error.to_string());
        let help = error.help().unwrap_or_default().to_owned();
        Rejection {
            app: app.to_owned(),
            problems: vec![Diagnostic {
                code: error.code(),
                title,
                place: None,
                why: String::new(),
                help,
                line,
            }],
        }
    }

    pub(crate) fn rules(app: &Path, violations: &[Violation]) -> Rejection {
        let problem = |violation: &Violation| Diagnostic {
            code: violation.rule.code(),
            title: violation.rule.to_string(),
            place: Some((
                violation.subject.as_str(),
                violation.index,
                violation.place(),
            )),
            why: violation.why.clone(),
            help: violation.help.clone(),
            line: violation.to_string(),
        };
        Rejection {
            app: app.to_owned(),
            problems: violations.iter().map(problem).collect(),
        }
    }

    /// Formats the problems in the style of rustc's errors.
    pub(crate) fn report(&self, colour: bool) -> String {
        let (app, mut report) = (self.app.display(), String::new());
        self.problems.iter().for_each(|problem| {
            report.push_str(&problem.section(&self.app, ("error", "1;31"), colour))
        });
        let codes = self
            .problems
            .iter()
            .map(|problem| problem.code)
            .collect::<std::collections::BTreeSet<_>>();
        let codes: Vec<&str> = codes.into_iter().collect();
        let count = match self.problems.len() {
            1 => "one problem".to_owned(),
            count => format!("{count} problems"),
        };
        _ = writeln!(
            report,
            "{app} can't be served: {count}. For details run tidegate explain {}",
            codes.join(" ")
        );
        report
    }

    /// Returns JSON for editors and CI.
    pub(crate) fn json(&self) -> Value {
        json!({ "app": self.app.display().to_string(), "ok": false, "problems": self.problems.iter().map(Diagnostic::json).collect::<Vec<_>>() })
    }
}

/// Problems of an app that can be served despite them.
pub(crate) struct Warnings<'a> {
    app: &'a Path,
    problems: Vec<Diagnostic>,
}

impl<'a> Warnings<'a> {
    pub(crate) fn new(app: &'a Path, ungranted: &[UngrantedImport]) -> Warnings<'a> {
        let problem = |ungranted: &UngrantedImport| Diagnostic {
            code: UNGRANTED,
            title: format!("imports {}, which is not granted", ungranted.import),
            place: None,
            why: ungranted.refusal.to_owned(),
            help: ungranted.help.to_owned(),
            line: String::new(),
        };
        Warnings {
            app,
            problems: ungranted.iter().map(problem).collect(),
        }
    }

    /// Formats the problems in the style of rustc's warnings.
    pub(crate) fn report(&self, colour: bool) -> String {
        self.problems
            .iter()
            .map(|problem| problem.section(self.app, ("warning", "1;33"), colour))
            .collect()
    }

    /// Returns JSON for editors and CI.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.problems.iter().map(Diagnostic::json).collect()
    }
}

impl Diagnostic {
    fn section(&self, app: &Path, (level, colour_of_level): (&str, &str), colour: bool) -> String {
        let paint = |code: &str, text: &str| {
            if colour {
                format!("\x1b[{code}m{text}\x1b[0m")
            } else {
                text.to_owned()
            }
        };
        let Diagnostic {
            code,
            title,
            place,
            why,
            help,
            ..
        } = self;
        let app = app.display();
        // A title without a place, as in `app.wasm is a core module`, begins with the file.
        let title = if place.is_some() {
            title.clone()
        } else {
            format!("{app} {title}")
        };
        let mut section = format!(
            "{}{}\n",
            paint(colour_of_level, &format!("{level}[{code}]")),
            paint("1", &format!(": {title}"))
        );
        let place = place
            .as_ref()
            .map_or_else(String::new, |(.., place)| format!(", {place}"));
        _ = writeln!(section, "  {} {app}{place}", paint("1;34", "-->"));
        for (word, text) in [("why", why), ("help", help)] {
            if !text.is_empty() {
                _ = writeln!(section, "   {} {word}: {text}", paint("1;34", "="));
            }
        }
        section.push('\n');
        section
    }

    fn json(&self) -> Value {
        let place = self
            .place
            .as_ref()
            .map(|(kind, index, place)| json!({ "kind": kind, "index": index, "text": place }));
        json!({ "code": self.code, "title": self.title, "place": place, "why": self.why, "help": self.help })
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let app = self.app.display();
        match &self.problems[..] {
            [
                Diagnostic {
                    place: None,
                    code,
                    line,
                    ..
                },
            ] => write!(f, "{app} {line} ({code})"),
            problems => {
                let count = match problems.len() {
                    1 => "a rule".to_owned(),
                    count => format!("{count} rules"),
                };
                write!(
                    f,
                    "{app} can't be served, because it violates {count} of routes and guards:"
                )?;
                problems
                    .iter()
                    .try_for_each(|problem| write!(f, "\n  {} {}", problem.code, problem.line))
            }
        }
    }
}

/// Joins a text of several lines, such as a compiler's error, to one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the explanation of a code, with its title; none if the code does not exist.
pub(crate) fn explain(code: &str) -> Option<&'static str> {
    let code = code.to_ascii_uppercase();
    sections()
        .find(|section| {
            section
                .strip_prefix(&code)
                .is_some_and(|rest| rest.starts_with(": "))
        })
        .map(str::trim_end)
}

/// Returns all codes with their titles.
pub(crate) fn titles() -> impl Iterator<Item = &'static str> {
    sections().filter_map(|section| section.lines().next())
}

fn sections() -> impl Iterator<Item = &'static str> {
    EXPLANATIONS.split("\n## ").skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_once_and_in_order() {
        let codes: Vec<&str> = titles()
            .filter_map(|title| Some(title.split_once(": ")?.0))
            .collect();
        assert_eq!(
            codes,
            Vec::from_iter((1..=25).map(|number| format!("TG{number:03}")))
        );
        for code in codes {
            let text = explain(&code.to_lowercase()).unwrap();
            assert!(
                text.lines().count() > 3 && text.contains("```"),
                "{code} has no example:\n{text}"
            );
        }
        assert_eq!(explain("TG0"), None);
    }
}
