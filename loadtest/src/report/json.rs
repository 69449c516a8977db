//! A report as a file: all measurements, and their summary.

use std::fs;
use std::path::Path;

use crate::error::{Doing, LoadError};
use crate::report::{Report, Summarised};

/// Stores the report of a run so far.
pub(crate) fn write(path: &Path, report: &Report) -> Result<(), LoadError> {
    let mut summary = report.summaries();
    // They are the sums of the turns' histograms, and would be most of the file.
    for histogram in summary.iter_mut().flat_map(|subject| &mut subject.histograms) {
        histogram.buckets.clear();
    }
    let json = serde_json::to_vec(&Summarised { report, summary }).map_err(|error| LoadError::Io {
        doing: "make JSON of the report".to_owned(),
        source: error.into(),
    })?;
    replace(path, &json)
}

/// Writes a new file beside the old one and renames it, so that there is a complete one at any time.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), LoadError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, bytes)
        .and_then(|()| fs::rename(&beside, path))
        .doing(format!("write {}", path.display()))
}

/// Reads a stored report; the summary is computed again when it is needed.
pub(crate) fn read(path: &Path) -> Result<Report, LoadError> {
    let bytes = fs::read(path).doing(format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| LoadError::Unreadable(format!("{} ({error})", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn a_report_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        fs::write(&path, "an older one").unwrap();
        write(&path, &sample()).unwrap();
        assert_eq!(read(&path).unwrap(), sample());
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["summary"][1]["subject"], "fanwire");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::write(&path, "{}").unwrap();
        assert!(read(&path).is_err());
    }
}
