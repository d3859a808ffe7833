//! `onecopy doctor` without a process: which mechanisms this machine allows, whether cross-memory attach works between a
//! process and its child, and which limits are low.

mod json;
mod probe;
mod style;
mod surroundings;
mod text;

use onecopy::Mechanism;
use onecopy::limits::{Limit, limits};

use crate::failure::{Failure, print};
use probe::{Attach, Outcome};
use style::Style;
use surroundings::Surroundings;

pub(super) use probe::{FirstProcess, second_process};

/// What was found out.
struct Report {
    mechanisms: Vec<(Mechanism, Result<(), String>)>,
    attach: Attach,
    limits: Vec<Limit>,
    surroundings: Surroundings,
}

pub(super) fn run(all: bool, as_json: bool) -> Result<(), Failure> {
    let report = Report::gather();
    let text = match (as_json, all) {
        (true, _) => json::text(&report)?,
        (false, true) => text::all(&report, Style::of_stdout()),
        (false, false) => text::summary(&report, Style::of_stdout()),
    };
    print(&text)
}

impl Report {
    fn gather() -> Self {
        let surroundings = Surroundings::look();
        let attach = Attach::attempt();
        let mechanisms = Mechanism::ALL.map(|mechanism| (mechanism, availability(mechanism, &attach, &surroundings)));
        Self { mechanisms: mechanisms.into(), attach, limits: limits(), surroundings }
    }

    fn refused(&self) -> impl Iterator<Item = (Mechanism, &str)> {
        self.mechanisms.iter().filter_map(|(mechanism, result)| Some((*mechanism, result.as_ref().err()?.as_str())))
    }

    fn low(&self) -> impl Iterator<Item = &Limit> {
        self.limits.iter().filter(|limit| limit.is_low())
    }

    /// The state of the machine in a few sentences.
    fn verdict(&self) -> String {
        let total = self.mechanisms.len();
        let mechanisms = match self.refused().count() {
            0 => format!("All {total} mechanisms work here"),
            refused => format!("{} of the {total} mechanisms work here", total - refused),
        };
        let limits = match self.low().count() {
            0 => "No limit is low.".to_owned(),
            1 => "1 limit is low.".to_owned(),
            low => format!("{low} limits are low."),
        };
        format!("{mechanisms}. {} {limits}", self.attach.verdict(&self.surroundings))
    }
}

/// For cross-memory attach the transfers that were tried say more than the library's own look, which tries none under a
/// seccomp filter.
fn availability(mechanism: Mechanism, attach: &Attach, surroundings: &Surroundings) -> Result<(), String> {
    let outcome = match mechanism {
        Mechanism::CmaRead => &attach.reads_child,
        Mechanism::CmaWrite => &attach.writes_child,
        _ => return mechanism.availability(),
    };
    match outcome {
        Outcome::Works => Ok(()),
        Outcome::Unknown(_) => mechanism.availability(),
        other => Err(other.reason(surroundings)),
    }
}
