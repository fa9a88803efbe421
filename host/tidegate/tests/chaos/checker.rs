//! Compares the record of the clients with the stored state of the rooms.

use crate::record::{Outcome, PlainRecord, RoomRecord};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A room's own report of its state.
#[derive(Debug, Deserialize)]
pub(crate) struct Ledger {
    count: usize,
    lines: Vec<String>,
    opens: BTreeMap<String, u32>,
    closes: BTreeMap<String, u32>,
    pending: Vec<(String, String)>,
    rung: HashMap<String, u32>,
    rang: BTreeMap<String, u32>,
    members: BTreeSet<String>,
    connections: BTreeSet<String>,
    alarm: bool,
}

/// Checks the invariants that hold at any time: no acknowledged write is missing, no refused write
/// is stored, and no write is stored twice.
pub(crate) fn always(record: &RoomRecord, ledger: &Ledger) -> Vec<String> {
    let mut wrong = record.oddities.clone();
    if ledger.count != ledger.lines.len() {
        wrong.push(format!(
            "{} lines, and their count, of the same events, is {}",
            ledger.lines.len(),
            ledger.count
        ));
    }
    let mut stored = HashSet::new();
    for line in &ledger.lines {
        if !stored.insert(line.as_str()) {
            wrong.push(format!("line {line} is there twice"));
        }
        match record.lines.get(line) {
            None => wrong.push(format!("line {line} was never asked for")),
            Some(Outcome::Refused) => wrong.push(format!("line {line} was refused, and is there")),
            Some(Outcome::Done | Outcome::Unknown) => {}
        }
    }
    let lost = record
        .lines
        .iter()
        .filter(|(line, outcome)| **outcome == Outcome::Done && !stored.contains(line.as_str()));
    wrong.extend(lost.map(|(line, _)| format!("line {line} was acknowledged, and is lost")));
    wrong.extend(
        out_of_order(ledger)
            .map(|line| format!("line {line} comes after a later one of its writer")),
    );

    let set: HashSet<&str> = ledger
        .pending
        .iter()
        .map(|(id, _)| id.as_str())
        .chain(ledger.rung.keys().map(String::as_str))
        .collect();
    for (id, outcome) in &record.alarms {
        // An alarm that another alarm sets is stored when that one has rung.
        let is_set = set.contains(id.as_str())
            || id
                .strip_suffix('+')
                .is_some_and(|first| !ledger.rung.contains_key(first));
        match outcome {
            Outcome::Done if !is_set => {
                wrong.push(format!("alarm {id} was acknowledged, and is lost"))
            }
            Outcome::Refused if set.contains(id.as_str()) => {
                wrong.push(format!("alarm {id} was refused, and is set"))
            }
            _ => {}
        }
    }
    let twice = |what: &'static str| {
        move |(id, count): (&String, &u32)| {
            (*count > 1).then(|| format!("{what} {id} happened {count} times"))
        }
    };
    wrong.extend(ledger.rung.iter().filter_map(twice("the ring of alarm")));
    wrong.extend(
        ledger
            .rang
            .iter()
            .filter_map(twice("the alarm event of setting")),
    );
    wrong.extend(ledger.opens.iter().filter_map(twice("on-open of")));
    wrong.extend(ledger.closes.iter().filter_map(twice("on-close of")));
    wrong
}

/// Checks the conditions that hold once all is quiet: every alarm has rung, every on-close was
/// delivered, and presence and connections equal the open sockets.
pub(crate) fn quiet(record: &RoomRecord, ledger: &Ledger, life: u64) -> Vec<String> {
    let mut wrong: Vec<String> = Vec::new();
    for (id, how) in &ledger.pending {
        wrong.push(format!(
            "alarm {id} ({how}) has not rung; the room has an alarm: {}",
            ledger.alarm
        ));
    }
    let of_life = format!("{life}/");
    let open: BTreeSet<&str> = record
        .connections
        .iter()
        .filter(|((of, _), state)| *of == life && state.is_open)
        .map(|((_, id), _)| id.as_str())
        .collect();
    for name in ledger
        .opens
        .keys()
        .filter(|name| name.starts_with(&of_life))
    {
        let is_open = open.contains(&name[of_life.len()..]);
        match (is_open, ledger.closes.get(name).copied().unwrap_or(0)) {
            (true, 1..) => wrong.push(format!("on-close of {name} was delivered, and it is open")),
            (false, 0) => wrong.push(format!("on-close of {name} was not delivered")),
            _ => {}
        }
    }
    for (of, id) in record.connections.keys().filter(|(of, _)| *of == life) {
        if !ledger.opens.contains_key(&format!("{of}/{id}")) {
            wrong.push(format!(
                "connection {of}/{id} got its first message, and its on-open is not stored"
            ));
        }
    }
    let names = |ids: &BTreeSet<&str>| {
        ids.iter()
            .map(|id| (*id).to_owned())
            .collect::<BTreeSet<String>>()
    };
    if ledger.connections != names(&open) {
        wrong.push(format!(
            "the room's connections are {:?}, the open sockets {open:?}",
            ledger.connections
        ));
    }
    let state = |id: &str| &record.connections[&(life, id.to_owned())];
    let members: BTreeSet<&str> = open
        .iter()
        .copied()
        .filter(|id| state(id).is_member)
        .collect();
    if ledger.members != names(&members) {
        wrong.push(format!(
            "present are {:?}, the members' open sockets {members:?}",
            ledger.members
        ));
    }
    for id in &members {
        let view = &state(id).view;
        if *view != names(&members) {
            wrong.push(format!(
                "{id} received {view:?} as present, the members' open sockets are {members:?}"
            ));
        }
    }
    wrong
}

/// Checks the lives that ended by a drain: an on-close that is missing in all rooms together was
/// counted in the log.
pub(crate) fn drained(drains: &BTreeMap<u64, usize>, ledgers: &[Ledger]) -> Vec<String> {
    let check = |(life, counted): (&u64, &usize)| {
        let of_life = format!("{life}/");
        let opens = ledgers
            .iter()
            .flat_map(|ledger| ledger.opens.keys().map(move |name| (ledger, name)));
        let missing: Vec<&str> = opens
            .filter(|(ledger, name)| {
                name.starts_with(&of_life) && !ledger.closes.contains_key(*name)
            })
            .map(|(_, name)| name.as_str())
            .collect();
        let text = || {
            format!(
                "the drain of life {life} said that {counted} on-close events were not delivered, missing are {missing:?}"
            )
        };
        (missing.len() > *counted).then(text)
    };
    drains.iter().filter_map(check).collect()
}

/// Checks the ends of sockets without a room, when all is quiet.
pub(crate) fn plain(record: &PlainRecord) -> Vec<String> {
    let mut wrong = Vec::new();
    if record.is_incomplete {
        return wrong;
    }
    for (id, count) in record
        .opens
        .iter()
        .chain(&record.closes)
        .filter(|(_, count)| **count > 1)
    {
        wrong.push(format!(
            "an event of {id}, without a room, came {count} times"
        ));
    }
    for id in record.opens.keys() {
        // A connection that the client never received an id for has ended as well.
        let is_open = record.connections.get(id).copied().unwrap_or(false);
        match (is_open, record.closes.contains_key(id)) {
            (true, true) => wrong.push(format!(
                "on-close of {id}, without a room, was delivered, and it is open"
            )),
            (false, false) => wrong.push(format!(
                "on-close of {id}, without a room, was not delivered"
            )),
            _ => {}
        }
    }
    wrong
}

/// Returns the lines that stand after a later line of a writer that waits for each answer:
/// "h1-0-2-000007".
fn out_of_order(ledger: &Ledger) -> impl Iterator<Item = &String> {
    let mut last: HashMap<&str, &str> = HashMap::new();
    ledger.lines.iter().filter(move |line| {
        let Some((writer, number)) = line.rsplit_once('-').filter(|_| line.starts_with('h')) else {
            return false;
        };
        last.insert(writer, number)
            .is_some_and(|before| before > number)
    })
}
