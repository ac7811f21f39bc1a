//! The spinner that shows a compilation to go on, where there is a terminal to show it on.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sbx_wasm::Progress;
use std::cell::OnceCell;
use std::time::Duration;

/// What is over sooner than this needs no spinner.
const PATIENCE: Duration = Duration::from_millis(300);

/// A spinner with the time that has passed, on standard error.
#[derive(Default)]
pub(crate) struct Spinner {
    bar: OnceCell<ProgressBar>,
    quiet: bool,
}

impl Spinner {
    /// A spinner, or if `quiet` none.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, ..Self::default() }
    }
}

impl Progress for Spinner {
    fn tick(&self, elapsed: Duration) {
        if self.quiet || elapsed < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_init(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
                .with_message("compiling, which only the first run needs")
                .with_elapsed(elapsed)
        });
        bar.tick();
    }

    fn done(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}
