//! Tasks that panic on demand, for `cargo xtask attack`. Only with the feature `planted-faults`, never in a release.

#[cfg(all(feature = "planted-faults", not(debug_assertions)))]
compile_error!("the feature planted-faults is for tests: no release has it");

/// Returns the task as it is.
#[cfg(not(feature = "planted-faults"))]
pub fn run<F: Future>(_name: &'static str, task: F) -> F {
    task
}

/// Runs the task, and panics when a file of its name is put into the folder that the variable `PLANTED_FAULTS` names.
/// The file is removed first, so one file is one panic.
#[cfg(feature = "planted-faults")]
pub async fn run<F: Future>(name: &'static str, task: F) -> F::Output {
    tokio::select! {
        biased;
        () = struck(name) => panic!("planted in the task {name}"),
        output = task => output,
    }
}

#[cfg(feature = "planted-faults")]
async fn struck(name: &str) {
    let Some(folder) = std::env::var_os("PLANTED_FAULTS") else { return std::future::pending().await };
    let file = std::path::Path::new(&folder).join(name);
    while std::fs::remove_file(&file).is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
