//! Interruption: after SIGINT or SIGTERM the tool stops its servers and removes their files; a second signal ends it
//! immediately.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Doing, LoadError};

/// The exit code of shells for a program that SIGINT ended.
pub(crate) const EXIT_CODE: u8 = 130;

static IS_ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Installs the handlers of signals.
pub(crate) fn listen() -> Result<(), LoadError> {
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and sets it.
        flag::register_conditional_shutdown(signal, EXIT_CODE.into(), IS_ASKED.clone())
            .and_then(|_| flag::register(signal, IS_ASKED.clone()))
            .doing("listen for signals")?;
    }
    Ok(())
}

/// Returns an error after a signal.
pub(crate) fn check() -> Result<(), LoadError> {
    if IS_ASKED.load(Ordering::Relaxed) { Err(LoadError::Interrupted) } else { Ok(()) }
}
