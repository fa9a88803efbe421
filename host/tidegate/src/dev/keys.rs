//! Key presses of the terminal, without waiting for Enter.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    io::{IsTerminal as _, Read as _, stdin},
    thread,
};
use tokio::sync::mpsc::UnboundedSender;

/// Puts the terminal into unbuffered mode without echo until it is dropped.
pub(crate) struct Keys {
    before: Termios,
}

impl Keys {
    /// Starts a thread that sends each pressed key. Returns none if stdin is not a terminal.
    pub(crate) fn listen<T: Send + 'static>(
        pressed: UnboundedSender<T>,
        key: impl Fn(u8) -> T + Send + 'static,
    ) -> Option<Keys> {
        if !stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut modes = before.clone();
        modes
            .local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Now, &modes).ok()?;
        thread::spawn(move || {
            let mut byte = [0];
            while stdin().read_exact(&mut byte).is_ok() && pressed.send(key(byte[0])).is_ok() {}
        });
        Some(Keys { before })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
