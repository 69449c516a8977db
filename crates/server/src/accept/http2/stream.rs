//! The task of one stream, in which hyper has it answered and sends the response.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use hyper::rt::Executor;
use tokio::task::spawn_local;
use tokio::time::sleep_until;

use super::exchange::Exchange;
use crate::request_budget::RequestBudget;

/// Starts the tasks of one connection's streams. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct StreamTasks {
    budget: Rc<RequestBudget>,
    /// The exchange of the task that hyper starts next.
    next: Rc<RefCell<Option<Rc<Exchange>>>>,
}

impl StreamTasks {
    pub(super) fn new(budget: Rc<RequestBudget>) -> Self {
        Self { budget, next: Rc::default() }
    }

    /// Names the exchange of the next task.
    pub(super) fn expect(&self, exchange: Rc<Exchange>) {
        self.next.replace(Some(exchange));
    }

    /// Starts a task of an exchange, which ends when the exchange is cut off: a stream that is dropped is reset.
    pub(super) fn start(&self, task: impl Future<Output = ()> + 'static, exchange: Rc<Exchange>) {
        let (budget, begun) = (self.budget.clone(), exchange.clone());
        let task = spawn_local(async move { budget.paced(until_cut_off(task, &exchange)).await });
        begun.is_served_by(task.abort_handle());
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamTasks {
    fn execute(&self, task: F) {
        match self.next.take() {
            Some(exchange) => self.start(task, exchange),
            None => debug_assert!(false, "each task belongs to an exchange"),
        }
    }
}

async fn until_cut_off(task: impl Future<Output = ()>, exchange: &Exchange) {
    let mut task = pin!(task);
    let mut sleep = None;
    poll_fn(|context| {
        if task.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        while let Some(until) = exchange.cut_off(context) {
            let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if sleep.deadline() != until {
                sleep.as_mut().reset(until);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if exchange.cut_off(context) == Some(until) {
                exchange.was_cut_off();
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}
