//! The thread of the tasks that call backends. The control runtime has to answer health checks meanwhile, and shards their
//! clients.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

/// Threads that look names up. A resolver that does not answer holds them up, and nothing else.
const RESOLVERS_MAX: usize = 32;

/// Dropping it ends the tasks.
#[derive(Debug)]
pub(crate) struct BackendThread {
    runtime: Handle,
    /// Every task holds one end; what is sent is the end of a task.
    ends: mpsc::UnboundedSender<()>,
    /// Never sent: the thread ends once it is dropped.
    stop: oneshot::Sender<()>,
    /// Closed when the thread ends.
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// Tells the thread of the end of a task, also by a panic.
struct EndOfTask(mpsc::UnboundedSender<()>);

impl Drop for EndOfTask {
    fn drop(&mut self) {
        // A thread that has stopped does not receive it.
        let _ = self.0.send(());
    }
}

impl BackendThread {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(RESOLVERS_MAX).build()?;
        let handle = runtime.handle().clone();
        let (ends, mut end) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let (running, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("hooks".to_owned()).spawn(move || {
            let _running = running;
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    _ = end.recv() => tracing::error!("a task that calls backends ended"),
                }
            });
            // A name may still be looked up.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, ends, stop, ended, thread })
    }

    /// Runs a task that lasts as long as the node. If it ends all the same, the thread ends with all others.
    pub(crate) fn keep(&self, task: impl Future<Output = ()> + Send + 'static) {
        let end = EndOfTask(self.ends.clone());
        self.runtime.spawn(async move {
            let _end = end;
            task.await;
        });
    }

    /// Waits for the end of the thread. Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }

    /// Ends the tasks, and waits for that. Blocks.
    pub(crate) fn stop(self) {
        let Self { stop, thread, .. } = self;
        drop(stop);
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_ends_the_thread() {
        let mut thread = BackendThread::start().unwrap();
        thread.keep(std::future::pending());
        let is_ended = tokio::time::timeout(std::time::Duration::ZERO, thread.ended()).await.is_ok();
        assert!(!is_ended);
        thread.keep(async { panic!("planted") });
        thread.ended().await;
    }
}
