//! The conversations of one run: all of them go on at once, and the first that fails ends the run.

use anyhow::Result;
use tokio::task::JoinSet;

/// Conversations on this thread's `LocalSet`; dropping them cuts them off.
#[derive(Debug, Default)]
pub struct Talks(JoinSet<Result<()>>);

impl Talks {
    /// Starts one more.
    pub fn start(&mut self, talk: impl Future<Output = Result<()>> + 'static) {
        self.0.spawn_local(talk);
    }

    /// Returns the result of `watched`, which runs beside the talks, unless a talk fails before.
    pub async fn during<T>(&mut self, watched: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(watched);
        loop {
            tokio::select! {
                found = &mut watched => return found,
                Some(talk) = self.0.join_next() => talk??,
            }
        }
    }

    /// Waits until each of them has come to its own end.
    pub async fn finish(mut self) -> Result<()> {
        while let Some(talk) = self.0.join_next().await {
            talk??;
        }
        Ok(())
    }
}
