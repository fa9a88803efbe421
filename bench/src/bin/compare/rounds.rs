//! Plays a match: every contender once, then all of them again, so that a slow minute hits them
//! all.

use tidegate_bench::outcome::{Outcome, digits};
use tidegate_bench::scenario;

use crate::arguments::Arguments;
use crate::contender::Contender;
use crate::matches::Match;

/// Results of a match.
pub(crate) struct Played {
    /// Name of the load.
    pub(crate) title: String,
    /// Each contender's runs, the yardstick's first.
    pub(crate) scores: Vec<Score>,
}

/// The runs of one contender.
pub(crate) struct Score {
    /// Its name.
    pub(crate) name: &'static str,
    /// Those that were played to the end.
    pub(crate) runs: Vec<Outcome>,
    /// Why there are no more.
    pub(crate) dropped_out: Option<String>,
}

/// Plays all rounds; a contender that is missing or fails drops out and the others go on.
pub(crate) fn play(entry: Match, arguments: &Arguments) -> Played {
    let mut scores: Vec<Score> = entry.contenders.iter().map(enter).collect();
    for round in 1..=arguments.repeat {
        for (contender, score) in entry.contenders.iter().zip(&mut scores) {
            if score.dropped_out.is_none() {
                eprint!(
                    "{}, {}, {round} of {}: ",
                    entry.title, score.name, arguments.repeat
                );
                score.add(scenario::run(
                    entry.load,
                    &contender.target,
                    arguments.setting(),
                ));
            }
        }
    }
    Played {
        title: entry.title,
        scores,
    }
}

fn enter(contender: &Contender) -> Score {
    let dropped_out = contender
        .missing()
        .map(|path| format!("skipped, there is no {}", path.display()));
    Score {
        name: contender.name,
        runs: Vec::new(),
        dropped_out,
    }
}

impl Score {
    fn add(&mut self, run: anyhow::Result<Outcome>) {
        match run {
            Ok(outcome) => {
                eprintln!("{}", in_words(&outcome));
                self.runs.push(outcome);
            }
            Err(error) => {
                eprintln!("failed: {error:#}");
                self.dropped_out =
                    Some(format!("failed in run {}: {error:#}", self.runs.len() + 1));
            }
        }
    }
}

fn in_words(outcome: &Outcome) -> String {
    let figures = outcome
        .0
        .iter()
        .map(|figure| format!("{} {}", digits(figure.value), figure.name));
    figures.collect::<Vec<_>>().join(", ")
}
