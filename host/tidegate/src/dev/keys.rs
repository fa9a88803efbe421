//! Keys of the terminal, each as it is pressed.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    io::{IsTerminal as _, Read as _, stdin},
    thread,
};
use tokio::sync::mpsc::UnboundedSender;

/// The terminal gives up its lines as long as this lives.
pub(crate) struct Keys {
    before: Termios,
}

impl Keys {
    /// None without a terminal.
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
