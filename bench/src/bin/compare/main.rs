//! The comparison: every contender of every match, interleaved and repeated, printed as Markdown.

mod arguments;
mod contender;
mod matches;
mod record;
mod rounds;
mod table;

use clap::Parser as _;

use arguments::Arguments;
use tidegate_bench::neighbours::Neighbours;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let neighbours = Neighbours::watch()?;
    let matches = matches::chosen(&arguments);
    let results: Vec<_> = matches
        .into_iter()
        .map(|entry| rounds::play(entry, &arguments))
        .collect();
    print!(
        "{}{}",
        record::of_this_run(neighbours.cores_used()?),
        table::markdown(&results)
    );
    Ok(())
}
