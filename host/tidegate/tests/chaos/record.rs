//! The record of the clients: their requests, the answers, and their open connections.

use crate::clients::Command;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Outcome of a request as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer confirmed that it happened.
    Done,
    /// An answer confirmed that it did not happen.
    Refused,
    /// There was no answer, or an answer that confirms nothing.
    Unknown,
}

/// A connection as the app names it: the number of the process, and the connection's id in it.
pub(crate) type ConnectionName = (u64, String);

#[derive(Debug, Default)]
pub(crate) struct ConnectionRecord {
    /// True if neither side has ended it.
    pub(crate) is_open: bool,
    /// True if it has joined the presence and received the confirmation.
    pub(crate) is_member: bool,
    /// The members by the presence messages that this connection received.
    pub(crate) view: BTreeSet<String>,
}

/// Record of one room.
#[derive(Debug, Default)]
pub(crate) struct RoomRecord {
    pub(crate) lines: HashMap<String, Outcome>,
    pub(crate) alarms: HashMap<String, Outcome>,
    pub(crate) connections: BTreeMap<ConnectionName, ConnectionRecord>,
    /// Commands that were answered with 500, by the id under which the log has the cause.
    pub(crate) failed: Vec<(String, Command)>,
    /// Messages that no client can have caused.
    pub(crate) oddities: Vec<String>,
}

/// Record of the sockets without a room, in one life of the server.
#[derive(Debug, Default)]
pub(crate) struct PlainRecord {
    /// Connections by their id; true while the connection is open.
    pub(crate) connections: HashMap<String, bool>,
    /// Number of opens that the app published, by the id.
    pub(crate) opens: HashMap<String, u32>,
    pub(crate) closes: HashMap<String, u32>,
    /// True if there was a time without a follower of the topic, so that publications may be
    /// missing.
    pub(crate) is_incomplete: bool,
}

/// The whole record: rooms of this era by their index, and sockets without a room.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) rooms: Vec<RoomRecord>,
    pub(crate) plain: PlainRecord,
    /// Lives of this era that ended by a drain, with the number of on-close events that the log
    /// reported as not delivered.
    pub(crate) drains: BTreeMap<u64, usize>,
}

/// Text of the log line about a commit with an unknown outcome.
const UNKNOWN: &str = "it is not known whether";

impl RoomRecord {
    /// Resolves the commands that failed in the life with this log. A command counts as refused if
    /// a log line names it, unless that line says that the outcome is unknown.
    pub(crate) fn resolve(&mut self, log: &str) {
        for (id, command) in std::mem::take(&mut self.failed) {
            if log
                .lines()
                .any(|line| line.contains(&id) && !line.contains(UNKNOWN))
            {
                command.write(self, Outcome::Refused);
            }
        }
    }

    /// Records a message that a connection of the room received.
    pub(crate) fn take(&mut self, name: &ConnectionName, text: &str) {
        if let Some(id) = text.strip_prefix("line ") {
            // A room broadcasts after its commit, so a client that receives the line knows that it
            // is stored.
            match self.lines.get_mut(id) {
                Some(Outcome::Refused) | None => self.oddities.push(format!(
                    "heard {text:?}, which was refused or never asked for"
                )),
                Some(outcome) => *outcome = Outcome::Done,
            }
        } else if let Ok(notice) = serde_json::from_str::<Value>(text) {
            let connection = self.connections.entry(name.clone()).or_default();
            connection.take_notice(&notice);
        }
    }
}

impl ConnectionRecord {
    fn take_notice(&mut self, notice: &Value) {
        let id = |value: &Value| value["id"].as_str().unwrap_or_default().to_owned();
        match notice["kind"].as_str() {
            Some("snapshot") => {
                self.is_member = true;
                self.view = notice["members"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(id)
                    .collect();
            }
            Some("join") => drop(self.view.insert(id(notice))),
            Some("leave") => drop(self.view.remove(&id(notice))),
            _ => {}
        }
    }
}

impl PlainRecord {
    /// Records a publication of the app.
    pub(crate) fn take(&mut self, text: &str) {
        let events = match text.split_once(' ') {
            Some(("open", _)) => &mut self.opens,
            Some(("close", _)) => &mut self.closes,
            _ => return,
        };
        *events
            .entry(text.split_once(' ').expect("it has a space").1.to_owned())
            .or_default() += 1;
    }
}
