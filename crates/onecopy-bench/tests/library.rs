//! The library without the command. It starts its own binary again, so this test has a `main` of its own, which begins as
//! every user's must.

use onecopy_bench::report::Report;
use onecopy_bench::{Error, Options, Subject, Transport, Workload, run, run_peer_if_asked};

fn main() {
    run_peer_if_asked();
    rows_are_measured_and_read_again();
    options_that_cannot_be_are_refused();
    println!("test result: ok");
}

fn rows_are_measured_and_read_again() {
    let workloads = vec![Workload::Rtt, Workload::Stream];
    let options = Options {
        only: vec![Subject::Transport(Transport::Pipe)],
        sizes_bytes: vec![64],
        workloads,
        quick: true,
        input: None,
    };
    let report = run(&options).expect("a report");
    assert!(report.is_good(), "{report:?}");
    assert_eq!(report.rows.len(), 2);
    assert!(report.rows[0].latency_ns.expect("latencies").p50 > 0);
    assert!(report.rows[1].bytes_per_s.expect("a rate") > 0.0);
    let again = Report::from_json(&report.to_json()).expect("our own form");
    assert_eq!(again.rows, report.rows);
    assert!(Report::from_json("{}").is_err());
}

fn options_that_cannot_be_are_refused() {
    let error = run(&Options { sizes_bytes: vec![1], ..Options::default() }).expect_err("too small");
    assert!(matches!(error, Error::Usage(_)), "{error}");
}
