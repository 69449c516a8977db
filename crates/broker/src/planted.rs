//! Tasks that panic or return on demand, for `cargo xtask attack`. Only with the feature `planted-faults`, never in a release.

#[cfg(all(feature = "planted-faults", not(debug_assertions)))]
compile_error!("the feature planted-faults is for tests: no release has it");

/// Returns the task as it is.
#[cfg(not(feature = "planted-faults"))]
pub fn run<F: Future<Output = ()>>(_name: &'static str, task: F) -> F {
    task
}

/// Runs the task, and panics when a file of its name is put into the folder that the variable `PLANTED_FAULTS` names. With
/// `.returns` behind the name it returns. The file is removed first, so one file is one end.
#[cfg(feature = "planted-faults")]
pub async fn run<F: Future<Output = ()>>(name: &'static str, task: F) {
    tokio::select! {
        biased;
        is_panic = struck(name) => assert!(!is_panic, "planted in the task {name}"),
        () = task => {}
    }
}

/// Waits for a file of the task. Returns true if the task is to panic.
#[cfg(feature = "planted-faults")]
async fn struck(name: &str) -> bool {
    let Some(folder) = std::env::var_os("PLANTED_FAULTS") else { return std::future::pending().await };
    let folder = std::path::Path::new(&folder);
    let (panics, returns) = (folder.join(name), folder.join(format!("{name}.returns")));
    loop {
        if std::fs::remove_file(&panics).is_ok() {
            return true;
        }
        if std::fs::remove_file(&returns).is_ok() {
            return false;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
