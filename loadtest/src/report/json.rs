//! A report as a file: everything that was measured, and the summary that follows from it.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::error::{Doing, LoadError};
use crate::report::{Report, Summary};

/// Stores everything a run found.
pub(crate) fn write(path: &Path, report: &Report) -> Result<(), LoadError> {
    #[derive(Serialize)]
    struct Document<'a> {
        #[serde(flatten)]
        report: &'a Report,
        summary: Vec<Summary>,
    }
    let document = Document { report, summary: report.summaries() };
    let json = serde_json::to_vec_pretty(&document).map_err(|error| LoadError::Io {
        doing: "make JSON of the report".to_owned(),
        source: error.into(),
    })?;
    fs::write(path, json).doing(format!("write {}", path.display()))
}

/// Reads what `write` stored; the summary is made anew when it is needed.
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
        write(&path, &sample()).unwrap();
        assert_eq!(read(&path).unwrap(), sample());
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["summary"][1]["subject"], "fanwire");
        fs::write(&path, "{}").unwrap();
        assert!(read(&path).is_err());
    }
}
