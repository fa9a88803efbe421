//! The results as Markdown: one table for all matches whose figures have the same names.

use tidegate_bench::outcome::{Outcome, digits};

use crate::rounds::{Played, Score};

/// All tables, and below them a line for each contender that dropped out.
pub(crate) fn markdown(results: &[Played]) -> String {
    let mut text = String::new();
    let mut columns = Vec::new();
    for played in results {
        let names = names(played);
        if !names.is_empty() && names != columns {
            text.push_str(&head(&names));
            columns = names;
        }
        text.push_str(&rows(played));
    }
    text.push('\n');
    text.extend(results.iter().flat_map(absences));
    text
}

fn names(played: &Played) -> Vec<&'static str> {
    let run = played.scores.iter().find_map(|score| score.runs.first());
    run.map(Outcome::names).unwrap_or_default()
}

fn head(names: &[&str]) -> String {
    let rule = "---:|".repeat(names.len() + 2);
    format!(
        "\n| scenario | contender | {} | least–most | ratio |\n|---|---|{rule}\n",
        names.join(" | ")
    )
}

fn rows(played: &Played) -> String {
    let yardstick = played
        .scores
        .first()
        .and_then(|score| Outcome::median(&score.runs));
    let rows = played
        .scores
        .iter()
        .filter_map(|score| row(&played.title, score, yardstick.as_ref()));
    rows.collect()
}

/// The last two cells are the cost's range over the runs, and its median over the yardstick's.
fn row(title: &str, score: &Score, yardstick: Option<&Outcome>) -> Option<String> {
    let median = Outcome::median(&score.runs)?;
    let figures: Vec<String> = median.0.iter().map(|figure| digits(figure.value)).collect();
    let (least, most) = Outcome::cost_range(&score.runs);
    let ratio = yardstick.map_or("–".into(), |yardstick| {
        format!("{:.2} ×", median.cost() / yardstick.cost())
    });
    Some(format!(
        "| {title} | {} | {} | {}–{} | {ratio} |\n",
        score.name,
        figures.join(" | "),
        digits(least),
        digits(most),
    ))
}

fn absences(played: &Played) -> impl Iterator<Item = String> {
    played.scores.iter().filter_map(|score| {
        let why = score.dropped_out.as_ref()?;
        Some(format!(
            "- {}, {}: {}\n",
            played.title,
            score.name,
            why.replace('\n', " ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_bench::outcome::Figure;

    fn score(name: &'static str, costs: &[f64]) -> Score {
        let run = |cost: &f64| {
            Outcome(vec![
                Figure::new("rate /s", 1000.0),
                Figure::cost("CPU µs a message", *cost),
            ])
        };
        Score {
            name,
            runs: costs.iter().map(run).collect(),
            dropped_out: None,
        }
    }

    #[test]
    fn a_contender_is_compared_with_the_first_one() {
        let scores = vec![
            score("native", &[4.0, 5.0, 3.0]),
            score("tidegate", &[6.0, 6.0, 7.0]),
        ];
        let text = markdown(&[Played {
            title: "echo".into(),
            scores,
        }]);
        assert_eq!(
            text,
            "\n| scenario | contender | rate /s | CPU µs a message | least–most | ratio |\n\
             |---|---|---:|---:|---:|---:|\n\
             | echo | native | 1000 | 4.00 | 3.00–5.00 | 1.00 × |\n\
             | echo | tidegate | 1000 | 6.00 | 6.00–7.00 | 1.50 × |\n\n"
        );
    }

    #[test]
    fn missing_contenders_are_listed_below() {
        let mut absent = score("tidegate", &[]);
        absent.dropped_out = Some("skipped, there is no x".into());
        let text = markdown(&[Played {
            title: "echo".into(),
            scores: vec![score("native", &[4.0]), absent],
        }]);
        assert!(
            text.ends_with("| 1.00 × |\n\n- echo, tidegate: skipped, there is no x\n"),
            "{text}"
        );
    }

    #[test]
    fn without_a_yardstick_there_is_no_ratio() {
        let scores = vec![score("native", &[]), score("tidegate", &[6.0])];
        assert!(
            markdown(&[Played {
                title: "echo".into(),
                scores
            }])
            .contains("| 6.00–6.00 | – |")
        );
    }
}
