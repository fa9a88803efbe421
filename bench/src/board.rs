//! The scoreboard of one run: what was received within the measured window, and what the server
//! used for it.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::outcome::{Figure, Outcome};
use crate::process::Process;

const LATENCY_MAX: Duration = Duration::from_secs(60);
const LATENCY_DIGITS: u8 = 3;

/// How long a scenario runs.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Before anything counts.
    pub warm_up: Duration,
    /// While everything counts.
    pub measured: Duration,
}

/// Counts messages and latencies; every conversation of a run shares it.
#[derive(Debug)]
pub struct Board {
    latency: RefCell<Histogram<u64>>,
    messages: Cell<u64>,
    over: Cell<bool>,
}

/// Where server, clock and board stood when the window opened.
#[derive(Debug)]
pub struct Opening {
    cpu: Duration,
    at: Instant,
}

impl Board {
    /// An empty board.
    pub fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, LATENCY_DIGITS)
            .expect("the bounds are in order and three digits are allowed");
        Self {
            latency: RefCell::new(latency),
            messages: Cell::new(0),
            over: Cell::new(false),
        }
    }

    /// `messages` arrived, all of them after `latency`.
    pub fn record(&self, latency: Duration, messages: u64) {
        self.latency
            .borrow_mut()
            .saturating_record_n(latency.as_nanos() as u64, messages);
        self.messages.set(self.messages.get() + messages);
    }

    /// One thing took `latency` and was made of `messages`.
    pub fn record_whole(&self, latency: Duration, messages: u64) {
        self.latency
            .borrow_mut()
            .saturating_record(latency.as_nanos() as u64);
        self.messages.set(self.messages.get() + messages);
    }

    /// Whether conversations should end.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Forgets the warm-up.
    pub fn open(&self, process: &Process) -> Result<Opening> {
        self.latency.borrow_mut().reset();
        self.messages.set(0);
        Ok(Opening {
            cpu: process.cpu()?,
            at: Instant::now(),
        })
    }

    /// Ends the window, and with it the conversations.
    pub fn close(&self, opening: &Opening, process: &Process) -> Result<Outcome> {
        let elapsed = opening.at.elapsed();
        let cpu = process.cpu()? - opening.cpu;
        self.over.set(true);
        Ok(self.outcome(elapsed, cpu))
    }

    /// Warm-up and window, for conversations that run by themselves.
    pub async fn watch(&self, window: Window, process: &Process) -> Result<Outcome> {
        tokio::time::sleep(window.warm_up).await;
        let opening = self.open(process)?;
        tokio::time::sleep(window.measured).await;
        self.close(&opening, process)
    }

    fn outcome(&self, elapsed: Duration, cpu: Duration) -> Outcome {
        let latency = self.latency.borrow();
        let messages = self.messages.get() as f64;
        let quantile_us = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        Outcome(vec![
            Figure::new("rate /s", messages / elapsed.as_secs_f64()),
            Figure::new("p50 µs", quantile_us(0.50)),
            Figure::new("p99 µs", quantile_us(0.99)),
            Figure::new(
                "server busy %",
                100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
            ),
            Figure::cost("CPU µs a message", cpu.as_secs_f64() * 1e6 / messages),
        ])
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_computed_from_the_recorded_values() {
        let board = Board::new();
        board.record(Duration::from_micros(100), 98);
        board.record(Duration::from_micros(900), 2);
        let outcome = board.outcome(Duration::from_secs(2), Duration::from_secs(1));
        let values: Vec<f64> = outcome
            .0
            .iter()
            .map(|figure| figure.value.round())
            .collect();
        assert_eq!(values, [50.0, 100.0, 900.0, 50.0, 10_000.0]);
    }

    #[test]
    fn a_round_is_one_latency_and_many_messages() {
        let board = Board::new();
        board.record_whole(Duration::from_millis(20), 5_000);
        let outcome = board.outcome(Duration::from_secs(1), Duration::from_millis(5));
        assert_eq!(outcome.0[0].value, 5_000.0);
        assert_eq!(outcome.0[4].value, 1.0);
        assert_eq!(board.latency.borrow().len(), 1);
    }

    #[test]
    fn opening_forgets_the_warm_up_and_closing_ends_the_run() {
        let process = Process::new(std::process::id()).unwrap();
        let board = Board::new();
        board.record(Duration::from_micros(1), 7);
        let opening = board.open(&process).unwrap();
        assert_eq!(board.messages.get(), 0);
        assert!(!board.is_over());
        board.close(&opening, &process).unwrap();
        assert!(board.is_over());
    }
}
