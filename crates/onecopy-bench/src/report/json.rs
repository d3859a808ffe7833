//! The report as JSON: the form that other programs read.

use super::{Report, VERSION};

impl Report {
    /// One JSON object, over several lines.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data is JSON")
    }

    /// Reads what [`Report::to_json`] wrote.
    ///
    /// # Errors
    ///
    /// A text that says what is no report of a version that this program knows, and where.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let report: Self =
            serde_json::from_str(text).map_err(|error| format!("this is no report of bench: {error}"))?;
        match report.version {
            VERSION => Ok(report),
            other => Err(format!("this report has version {other}, and this program reads version {VERSION}")),
        }
    }
}
