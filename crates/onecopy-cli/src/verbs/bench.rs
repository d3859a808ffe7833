//! `onecopy bench`: measure every mechanism on this machine.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use onecopy::Deadline;
use onecopy_bench::report::Report;
use onecopy_bench::{Error, Options, Subject, Workload};

use crate::failure::{self, Failure, plain};
use crate::output::{self, Output};
use crate::units;

const EXAMPLES: &str = "\
Examples:
  onecopy bench --quick                                all mechanisms in less than a minute
  onecopy bench --only pipe,unix-stream --workload rtt the round trip of two of them
  onecopy bench --size 64K,1M --workload stream        throughput at two sizes
  onecopy bench --input film.mkv --only posix-mq       a real file instead of the pattern
  onecopy bench --only channel,posix-shm,cma-read      the channel beside what it is made of
  onecopy bench --workload layer                       this library against plain system calls
  onecopy bench --workload copies                      who copies each byte, and how often
  onecopy bench --quick --export-json before.json      keep the figures, and later:
  onecopy bench --quick --compare before.json          what changed by more than noise

Payloads, those of memcpy too, lie on memory that is advised to have huge pages, as a program that \
moves large buffers should have it; ONECOPY_BENCH_SMALL_PAGES=1 measures without.";

/// The options of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The mechanisms to measure, with commas between them; all unless said (for copies, five that differ)
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<Subject>,
    /// The sizes of messages, as 64, 4K or 1M, with commas between them
    #[arg(long, value_name = "BYTES,…", value_delimiter = ',', value_parser = units::size)]
    size: Vec<u64>,
    /// The workloads, with commas between them: rtt, stream, fresh, cpu, layer, copies, loan, loan-untouched,
    /// registered, many, uncontended, contended; all but layer (and with --quick, many) unless said
    #[arg(long, value_name = "W,…", value_delimiter = ',')]
    workload: Vec<Workload>,
    /// Stream the bytes of this file instead of a pattern
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Fewer sizes and shorter runs: less than a minute for everything
    #[arg(long)]
    quick: bool,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    export_json: Option<PathBuf>,
    /// Write the figures as comma-separated values
    #[arg(long, value_name = "FILE")]
    export_csv: Option<PathBuf>,
    /// Write the figures as a page for a browser
    #[arg(long, value_name = "FILE")]
    export_html: Option<PathBuf>,
    /// Show what changed since an earlier --export-json
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let options = options(arguments)?;
    // Whatever could fail for reasons that are known now fails now, and not after minutes of measuring.
    let old = arguments.compare.as_deref().map(read_report).transpose()?;
    let exports = exports(arguments)?;
    output::stdout()?;
    let report = onecopy_bench::run(&options).map_err(failure_of)?;
    // Minutes of measuring are not lost with one place that the figures go to.
    let exported: Vec<_> = exports.into_iter().map(|(output, form)| export(output, &form(&report))).collect();
    let printed = print(&report, arguments.json, old.as_ref());
    exported.into_iter().collect::<Result<(), Failure>>().and(printed)?;
    if report.is_good() {
        return Ok(());
    }
    let bad = report.rows.iter().filter(|row| row.skipped.is_none() && row.verified != Some(true)).count();
    Err(Failure::failed(format!("{bad} of {} rows failed or did not verify", report.rows.len())))
}

fn options(arguments: &Arguments) -> Result<Options, Failure> {
    let sizes_bytes = arguments.size.iter().map(|size| usize::try_from(*size).unwrap_or(usize::MAX)).collect();
    let options = Options {
        only: arguments.only.clone(),
        sizes_bytes,
        workloads: arguments.workload.clone(),
        input: arguments.input.clone(),
        quick: arguments.quick,
    };
    options.check().map_err(|usage| Failure::usage(usage.to_string()))?;
    Ok(options)
}

/// The files to write, each with the form that it gets.
fn exports(arguments: &Arguments) -> Result<Vec<(Output, Form)>, Failure> {
    let wanted: [(&str, &Option<PathBuf>, Form); 3] = [
        ("--export-json", &arguments.export_json, json),
        ("--export-csv", &arguments.export_csv, Report::to_csv),
        ("--export-html", &arguments.export_html, Report::to_html),
    ];
    let mut exports = Vec::new();
    let mut files: Vec<(&str, PathBuf)> = Vec::new();
    for (option, path, form) in wanted {
        let Some(path) = path else { continue };
        let output = Output::open(Some(path), Deadline::Never)?;
        if let Some(file) = output.replaced_file() {
            if let Some((other, _)) = files.iter().find(|(_, taken)| *taken == file) {
                let text = format!("{other} and {option} would both write {}: name two files", output.name());
                return Err(Failure::usage(text));
            }
            files.push((option, file));
        }
        exports.push((output, form));
    }
    Ok(exports)
}

fn export(mut output: Output, text: &str) -> Result<(), Failure> {
    output.write(text.as_bytes())?;
    output.commit()
}

type Form = fn(&Report) -> String;

fn json(report: &Report) -> String {
    report.to_json() + "\n"
}

fn read_report(path: &Path) -> Result<Report, Failure> {
    let refused = |reason: String| Failure::usage(format!("--compare {}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refused(plain(&error)))?;
    Report::from_json(&text).map_err(refused)
}

fn print(report: &Report, as_json: bool, old: Option<&Report>) -> Result<(), Failure> {
    let changes = old.map(|old| report.compared_with(old));
    if !as_json {
        return failure::print(&(report.to_table() + &changes.map_or_else(String::new, |text| format!("\n{text}"))));
    }
    failure::print(&json(report))?;
    if let Some(text) = changes {
        // One JSON object and nothing else goes to stdout.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    Ok(())
}

fn failure_of(error: Error) -> Failure {
    match error {
        Error::Usage(usage) => Failure::usage(usage.to_string()),
        Error::Interrupted(signal) => Failure::Interrupted(signal),
        Error::Failed(reason) => Failure::failed(reason),
    }
}
