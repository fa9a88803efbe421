//! A rule that an app's manifest breaks: its code, its place, and what to write instead.

use std::fmt;

/// A rule for routes, guards and pages. Code and meaning of a rule never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The pattern is not valid.
    Pattern,
    /// The pattern matches every path.
    CatchAll,
    /// The first segment of the path begins with two underscores.
    Reserved,
    /// An earlier route of the same shape answers the same method.
    Duplicate,
    /// An earlier route answers every request that this one matches.
    Shadowed,
    /// Routes cannot have this method.
    Method,
    /// The route's target cannot have this method.
    TargetMethod,
    /// The component does not export the handler.
    Export,
    /// The route cannot belong to a room.
    Room,
    /// A route answers the page's path.
    PageRoute,
    /// The name of a loader or an action is not valid, or is used twice.
    PageName,
    /// Another router would read the segment as a parameter.
    Wildcard,
}

impl Rule {
    /// Returns the rule's code, such as "TG003". `tidegate explain` prints its meaning.
    pub fn code(&self) -> &'static str {
        match self {
            Rule::Pattern => "TG001",
            Rule::CatchAll => "TG002",
            Rule::Reserved => "TG003",
            Rule::Duplicate => "TG004",
            Rule::Shadowed => "TG005",
            Rule::Method => "TG006",
            Rule::TargetMethod => "TG007",
            Rule::Export => "TG008",
            Rule::Room => "TG009",
            Rule::PageRoute => "TG023",
            Rule::PageName => "TG024",
            Rule::Wildcard => "TG025",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Pattern => "not a valid pattern",
            Rule::CatchAll => "matches every path",
            Rule::Reserved => "a reserved path",
            Rule::Duplicate => "the same as an earlier route",
            Rule::Shadowed => "shadowed by an earlier route",
            Rule::Method => "not a method of a route",
            Rule::TargetMethod => "not a method of this target",
            Rule::Export => "its handler is not exported",
            Rule::Room => "not a route of a room",
            Rule::PageRoute => "a page where a route is",
            Rule::PageName => "not a name of a loader or an action",
            Rule::Wildcard => "a wildcard of another router",
        })
    }
}

/// The part of a manifest that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One of the routes.
    Route,
    /// One of the guards.
    Guard,
    /// One of the pages.
    Page,
}

impl Subject {
    /// Returns its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Route => "route",
            Subject::Guard => "guard",
            Subject::Page => "page",
        }
    }
}

/// One rule that one route, guard or page breaks.
///
/// `Display` writes one line: the place, the rule, the reason and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The part of the manifest.
    pub subject: Subject,
    /// Index into this part.
    pub index: usize,
    /// Methods of the route. Empty if it answers any, and for guards and pages.
    pub methods: Vec<String>,
    /// The pattern as the app wrote it.
    pub pattern: String,
    /// The rule that is broken.
    pub rule: Rule,
    /// The reason in this case; empty where the rule says enough.
    pub why: String,
    /// Advice: the text to write instead.
    pub help: String,
}

impl Violation {
    /// Returns the place in the manifest: `route 4 (POST "/__loaders")`.
    pub fn place(&self) -> String {
        let methods = match self.subject {
            Subject::Guard | Subject::Page => String::new(),
            Subject::Route if self.methods.is_empty() => "any ".to_owned(),
            Subject::Route => self.methods.join(",") + " ",
        };
        let (subject, index, pattern) = (self.subject.as_str(), self.index, &self.pattern);
        format!("{subject} {index} ({methods}{pattern:?})")
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.rule)?;
        [&self.why, &self.help]
            .into_iter()
            .filter(|part| !part.is_empty())
            .try_for_each(|part| write!(f, ": {part}"))
    }
}
