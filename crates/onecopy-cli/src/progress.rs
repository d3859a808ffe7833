//! Progress of a long transfer, on a terminal only.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(700);

/// Bytes, rate and, where the end is known, the time left.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
}

impl Progress {
    /// The progress of `total` bytes, on stderr; `data_on_terminal` says that the data itself goes to the terminal, where
    /// a bar would disturb.
    pub(crate) fn new(total: Option<u64>, data_on_terminal: bool) -> Self {
        let shown = std::io::stderr().is_terminal() && !data_on_terminal;
        Self { bar: shown.then(|| bar(total)), start: Instant::now() }
    }

    /// Whether somebody looks.
    pub(crate) fn is_watched(&self) -> bool {
        self.bar.is_some()
    }

    /// `bytes` more went through.
    pub(crate) fn advance(&mut self, bytes: usize) {
        let Some(bar) = &self.bar else { return };
        bar.inc(bytes as u64);
        if bar.is_hidden() && self.start.elapsed() > PATIENCE {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{bytes} of {total_bytes} [{bar:30}] {binary_bytes_per_sec}, {eta} left",
        None => "{bytes} at {binary_bytes_per_sec}, {elapsed} so far",
    };
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
