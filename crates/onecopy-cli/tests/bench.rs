//! `onecopy bench`: real processes, small budgets. What the figures are worth is not tested, but that they are there, that
//! wrong bytes and dead workers show, and that nothing stays behind.

#[allow(unused_imports, unreachable_pub, reason = "each test binary uses its own part of what they share")]
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::{Ended, Run, Running, Scratch, eventually, onecopy, pattern, program, skip, watchdog};

/// The timed runs of each row share this time, in seconds.
const BUDGET: &str = "0.01";
/// What is measured, in the order of the mechanisms, and the channel last.
const TRANSPORTS: &[&str] = &[
    "pipe",
    "fifo",
    "pty",
    "unix-stream",
    "unix-dgram",
    "unix-seqpacket",
    "tcp",
    "udp",
    "sctp",
    "posix-mq",
    "sysv-mq",
    "posix-shm",
    "sysv-shm",
    "file-mapping",
    "anonymous-mapping",
    "cma-read",
    "cma-write",
    "channel",
    "channel-no-cma",
];

/// What wakes and what locks, in the order of the mechanisms, with their workloads.
const PRIMITIVES: &[(&str, &[&str])] = &[
    ("posix-named-semaphore", &["rtt", "uncontended", "contended"]),
    ("posix-unnamed-semaphore", &["rtt", "uncontended", "contended"]),
    ("sysv-semaphore", &["rtt", "uncontended", "contended"]),
    ("eventfd", &["rtt"]),
    ("futex", &["rtt"]),
    ("record-lock", &["uncontended", "contended"]),
    ("file-lock", &["uncontended", "contended"]),
    ("mutex", &["uncontended", "contended"]),
    ("condvar", &["rtt"]),
    ("barrier", &["rtt"]),
    ("rwlock", &["uncontended", "contended"]),
    ("signal-standard", &["rtt"]),
    ("signal-realtime", &["rtt"]),
];

/// `onecopy bench` with these arguments and the budget of a test.
fn bench(arguments: &[&str]) -> Run {
    bench_for(BUDGET, arguments)
}

fn bench_for(seconds: &str, arguments: &[&str]) -> Run {
    let arguments = std::iter::once("bench").chain(arguments.iter().copied());
    onecopy(arguments).with(|command| {
        command.env("ONECOPY_BENCH_SECONDS", seconds);
    })
}

fn json(ended: &Ended) -> Value {
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error} in {ended:?}"))
}

fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().expect("rows")
}

#[track_caller]
fn assert_fields(row: &Value, fields: &[&str]) {
    let found: BTreeSet<_> = row.as_object().expect("a row").keys().map(String::as_str).collect();
    assert_eq!(found, fields.iter().copied().collect(), "{row}");
}

#[test]
fn every_mechanism_has_a_row_that_verified_or_the_reason_why_not() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let ended = bench(&["--json", "--quick", "--size", "4K", "--workload", "rtt,stream"]).end();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let report = json(&ended);
    for name in TRANSPORTS {
        let its: Vec<_> = rows(&report).iter().filter(|row| row["mechanism"] == *name).collect();
        let verified = its.iter().filter(|row| row["verified"] == true).count();
        match its.first().and_then(|row| row["skipped"].as_str()) {
            Some(reason) => {
                assert_eq!((its.len(), reason.is_empty()), (1, false), "{its:?}");
                skip("every_mechanism_has_a_row_that_verified_or_the_reason_why_not", &format!("{name}: {reason}"));
            }
            None => assert!(its.len() >= 2 && verified == its.len(), "{name}: {its:?}"),
        }
    }
}

fn primitives() -> String {
    PRIMITIVES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

#[test]
fn what_wakes_and_what_locks_has_rows_that_verified() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let ended = bench(&["--json", "--quick", "--only", &primitives()]).end();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    let report = json(&ended);
    let mut rows = rows(&report).iter();
    for (name, workload) in PRIMITIVES.iter().flat_map(|(name, them)| them.iter().map(move |one| (name, one))) {
        let row = rows.next().unwrap();
        assert_eq!((&row["mechanism"], &row["workload"]), (&(*name).into(), &(*workload).into()));
        assert_eq!((&row["verified"], &row["runs"]), (&true.into(), &3.into()), "{row}");
        let processes = if *workload == "uncontended" { 1 } else { 2 };
        assert_eq!(row["processes"], processes, "{row}");
        if *workload == "rtt" {
            assert_eq!(row["kind"], "wake");
            assert!(row["latency_ns"]["p50"].as_u64().unwrap() > 0 && row["ns_per_acquire"].is_null(), "{row}");
        } else {
            assert_eq!(row["kind"], "lock");
            assert!(row["ns_per_acquire"].as_f64().unwrap() > 0.0 && row["latency_ns"].is_null(), "{row}");
        }
    }
    assert!(rows.next().is_none());
}

#[test]
fn a_wake_up_that_means_another_and_a_count_that_is_lost_fail_their_rows() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let ended = bench(&["--json", "--quick", "--only", &primitives()])
        .with(|command| {
            command.env("ONECOPY_BENCH_CORRUPT", "1");
        })
        .end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    for row in rows(&json(&ended)) {
        assert_eq!(row["verified"], false, "{row}");
        let words = if row["kind"] == "wake" { "came with the number" } else { "held by two at once" };
        assert!(row["error"].as_str().unwrap().contains(words), "{row}");
    }
}

#[test]
fn the_json_has_the_documented_form() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let report = json(&bench(&["--json", "--only", "pipe", "--size", "4096", "--workload", "rtt,stream,cpu"]).end());
    assert_eq!(report["version"], 1);
    assert_fields(&report["host"], &["kernel", "cpu", "cores", "huge_pages", "onecopy", "commit"]);
    assert_eq!(report["host"]["onecopy"], env!("CARGO_PKG_VERSION"));
    assert_fields(&report["baselines"], &["cache_line_rtt_ns", "memcpy"]);
    let memcpy = report["baselines"]["memcpy"].as_array().unwrap();
    assert_eq!(memcpy.len(), 2, "hot and cold: {memcpy:?}");
    assert_fields(&memcpy[0], &["size_bytes", "cold", "bytes_per_s"]);
    let one_way = [
        "mechanism",
        "kind",
        "workload",
        "size_bytes",
        "cold",
        "wait",
        "messages",
        "bytes_per_s",
        "ratio_to_memcpy",
        "copies",
        "cpu_ns_per_kib",
        "runs",
        "spread",
        "verified",
    ];
    for row in rows(&report) {
        assert_eq!(
            (&row["mechanism"], &row["kind"], &row["wait"]),
            (&"pipe".into(), &"transfer".into(), &"block".into())
        );
        match row["workload"].as_str().unwrap() {
            "rtt" => {
                let fields = one_way.map(|field| match field {
                    "bytes_per_s" => "latency_ns",
                    "ratio_to_memcpy" => "ratio_to_cache_line",
                    other => other,
                });
                let fields: Vec<_> =
                    fields.into_iter().filter(|field| !["cold", "cpu_ns_per_kib"].contains(field)).collect();
                let fields = [&fields[..], &["cache_line_rtt_ns"]].concat();
                if report["baselines"]["cache_line_rtt_ns"].is_null() {
                    continue;
                }
                assert_fields(row, &fields);
                assert_fields(&row["latency_ns"], &["p50", "p99", "p999", "max"]);
            }
            _ => assert_fields(row, &one_way),
        }
        assert!(row["runs"].as_u64().unwrap() >= 3 && row["messages"].as_u64().unwrap() >= 3, "{row}");
    }
    let workloads: Vec<_> = rows(&report).iter().map(|row| row["workload"].as_str().unwrap()).collect();
    assert_eq!(workloads, ["rtt", "stream", "stream", "cpu"]);
}

#[test]
fn the_crossover_points_of_the_channel_stand_beside_the_defaults() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let measure = || json(&bench(&["--json", "--quick", "--only", "channel", "--workload", "fresh"]).end());
    let mut report = measure();
    // Most senders of some run came too late to copy their part: a busy machine, but not for ever.
    while report["warnings"].to_string().contains("went by single-copy and not by cooperative") {
        report = measure();
    }
    let found = &report["crossovers"];
    if found.is_null() {
        let warning = report["warnings"].to_string();
        let reason = "no cross-memory attach, or one core: there is one way only";
        assert!(warning.contains("crossover points") || report["baselines"]["cache_line_rtt_ns"].is_null(), "{report}");
        return skip("the_crossover_points_of_the_channel_stand_beside_the_defaults", reason);
    }
    let default = onecopy::channel::DEFAULT_SINGLE_COPY_BYTES;
    assert_eq!(found["default"]["single_copy_bytes"], default, "{found}");
    let points = found["points"].as_array().unwrap();
    assert_eq!(points.len(), 18, "three ways at six sizes: {found}");
    for point in points {
        assert_fields(point, &["size_bytes", "path", "fresh_ns", "stream_bytes_per_s"]);
        assert!(point["fresh_ns"].as_f64().unwrap() > 0.0 && point["stream_bytes_per_s"].as_f64().unwrap() > 0.0);
    }
    for kind in ["fresh", "stream", "default"] {
        assert_fields(&found[kind], &["single_copy_bytes", "cooperative_bytes"]);
    }
}

#[test]
fn the_channel_says_which_way_its_messages_took() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let both = "channel,channel-no-cma";
    let run =
        |sizes, workloads| json(&bench(&["--json", "--only", both, "--size", sizes, "--workload", workloads]).end());
    let report = run("4K,1M", "rtt,stream,fresh,cpu,copies");
    // Out of the reach of caches a million of them have to be filled, which takes a while.
    let short = run("64", "rtt,fresh");
    let all = || rows(&report).iter().chain(rows(&short));
    // On a busy machine most senders may come too late to copy their part.
    let is_once = |row: &Value| row["path"] == "cooperative" || row["path"] == "single-copy";
    let is_attachable = all().any(is_once);
    if !is_attachable {
        skip("the_channel_says_which_way_its_messages_took", "no cross-memory attach: the ring alone is shown");
    }
    for row in all() {
        assert_eq!(row["verified"], true, "{row}");
        let (path, copies) = match row["size_bytes"].as_u64().unwrap() {
            64 => ("line", 2),
            1_048_576 if row["mechanism"] == "channel" && is_attachable => {
                (if row["path"] == "single-copy" { "single-copy" } else { "cooperative" }, 1)
            }
            _ => ("ring", 2),
        };
        assert_eq!((&row["path"], &row["copies"]), (&path.into(), &copies.into()), "{row}");
        if row["workload"] == "fresh" {
            assert!(row["ratio_to_memcpy_time"].as_f64().unwrap() > 0.0, "{row}");
            assert_fields(&row["latency_ns"], &["p50", "p99", "p999", "max"]);
        }
    }
    let of = |name: &str| all().filter(|row| row["mechanism"] == *name).count();
    let waits = if report["baselines"]["cache_line_rtt_ns"].is_null() { 1 } else { 3 };
    // Each way of waiting for rtt; hot and cold for stream; one row for each of the others.
    assert_eq!([of("channel"), of("channel-no-cma")], [2 * (waits + 5) + waits + 1; 2], "{report} {short}");
}

#[test]
fn loans_are_measured_where_they_are_made() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let report = json(&bench(&["--json", "--quick", "--only", "channel-loan", "--size", "4K,1M"]).end());
    let two_cores = !report["baselines"]["cache_line_rtt_ns"].is_null();
    assert_eq!(rows(&report).len(), 4, "{report}");
    for row in rows(&report) {
        assert_eq!(
            (&row["verified"], &row["path"], &row["copies"]),
            (&true.into(), &"loan".into(), &0.into()),
            "{row}"
        );
        match row["workload"].as_str().unwrap() {
            "loan" => assert!(row["ratio_to_one_process"].as_f64().unwrap() > 0.0, "{row}"),
            _ => {
                assert!(row["ns_per_message"].as_f64().unwrap() > 0.0, "{row}");
                assert_eq!(row["ratio_to_cache_line"].is_number(), two_cores, "{row}");
            }
        }
    }
}

#[test]
fn registered_memory_is_copied_in_user_space() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let report = json(&bench(&["--json", "--quick", "--workload", "registered", "--size", "64K,1M"]).end());
    assert_eq!(rows(&report).len(), 2, "{report}");
    for row in rows(&report) {
        assert_eq!((&row["verified"], &row["path"]), (&true.into(), &"registered".into()), "{row}");
        assert_eq!((&row["copies"], &row["cold"]), (&1.into(), &false.into()), "{row}");
        assert!(row["ratio_to_memcpy"].as_f64().unwrap() > 0.0, "{row}");
    }
}

/// What one side copied for each byte of payload: in user space, and by the kernel.
fn copied(row: &Value, side: &str) -> [f64; 2] {
    let bytes = |field: &str| row[side][field].as_u64().unwrap_or_else(|| panic!("no {field} in {row}")) as f64;
    let payload_bytes = row["messages"].as_u64().unwrap() * row["size_bytes"].as_u64().unwrap();
    assert_eq!(bytes("payload_bytes"), payload_bytes as f64, "{row}");
    ["user_copied_bytes", "kernel_copied_bytes"].map(|field| bytes(field) / payload_bytes as f64)
}

#[test]
fn each_side_counts_the_bytes_that_it_copies() {
    let _watchdog = watchdog(Duration::from_secs(300));
    // In user space and by the kernel, at the sender and at the receiver. The fragments of a message are put together.
    let expected = [
        ("pipe", [[0.0, 1.0], [0.0, 1.0]]),
        ("unix-stream", [[0.0, 1.0], [0.0, 1.0]]),
        ("posix-shm", [[1.0, 0.0], [1.0, 0.0]]),
        ("cma-read", [[0.0, 0.0], [0.0, 1.0]]),
        ("cma-write", [[0.0, 1.0], [0.0, 0.0]]),
        ("unix-dgram", [[1.0, 1.0], [1.0, 1.0]]),
        ("posix-mq", [[1.0, 1.0], [1.0, 1.0]]),
        ("sysv-mq", [[2.0, 1.0], [2.0, 1.0]]),
    ];
    let five = json(&bench(&["--json", "--quick", "--workload", "copies"]).end());
    let chosen =
        json(&bench(&["--json", "--quick", "--workload", "copies", "--only", "unix-dgram,posix-mq,sysv-mq"]).end());
    let all: Vec<_> = rows(&five).iter().chain(rows(&chosen)).collect();
    assert_eq!(all.len(), expected.len(), "{all:?}");
    for (row, (mechanism, sides)) in all.into_iter().zip(expected) {
        assert_eq!(row["mechanism"], mechanism);
        if let Some(reason) = row["skipped"].as_str() {
            skip("each_side_counts_the_bytes_that_it_copies", &format!("{mechanism}: {reason}"));
            continue;
        }
        assert_eq!((&row["verified"], &row["size_bytes"]), (&true.into(), &(1 << 20).into()), "{row}");
        for (side, expected) in ["sender", "receiver"].into_iter().zip(sides) {
            assert_fields(&row[side], &["payload_bytes", "user_copied_bytes", "kernel_copied_bytes", "cpu_ns_per_gib"]);
            assert!(row[side]["cpu_ns_per_gib"].as_f64().unwrap() > 0.0, "{row}");
            // Headers of some ten bytes come with each message, or with each fragment of 8 KiB or more.
            let headers = if row["fragmented"] == true { 0.03 } else { 0.001 };
            let found = copied(row, side);
            let is_right = |(found, expected): (&f64, &f64)| (*expected..*expected + headers).contains(found);
            assert!(
                found.iter().zip(&expected).all(is_right),
                "{mechanism}, the {side}: {found:?} and not {expected:?}"
            );
        }
        let sum: f64 = sides.as_flattened().iter().sum();
        assert_eq!(row["copies"], sum as u64, "what is known, against what was counted: {row}");
    }
}

/// Whether each side of what was measured had a core of its own.
fn has_two_cores(report: &Value) -> bool {
    report["host"]["cores"].as_u64().unwrap() > 1
}

#[test]
fn one_byte_that_is_corrupted_on_the_way_fails_every_row() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let corrupt = |arguments: &[&str]| {
        bench(arguments).with(|command| {
            command.env("ONECOPY_BENCH_CORRUPT", "1");
        })
    };
    let only = "pipe,unix-dgram,udp,sysv-mq,channel,channel-loan,channel-registered";
    let ended = corrupt(&["--json", "--quick", "--only", only, "--size", "4K"]).end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let report = json(&ended);
    assert_eq!(
        rows(&report).len(),
        if has_two_cores(&report) { 26 } else { 24 },
        "four of each, of the channel also fresh and with two cores two more ways to wait, two of loans, one of registered memory"
    );
    for row in rows(&report) {
        assert_eq!(row["verified"], false, "{row}");
        assert!(row["error"].as_str().unwrap().contains("byte 2048 of message 0"), "{row}");
    }
    let ended = corrupt(&["--quick", "--only", "pipe", "--workload", "rtt"]).end();
    let table = String::from_utf8(ended.stdout).unwrap();
    assert!(table.contains(" NO\n") && table.contains("failed: pipe rtt 64 B: byte 32"), "{table}");
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(1), "onecopy: 1 of 1 rows failed or did not verify\n"));
}

/// The workers of a measurement, once there are at least `count` that have got to their own work.
fn workers(running: &Running, count: usize) -> Vec<u32> {
    let children = format!("/proc/{pid}/task/{pid}/children", pid = running.pid());
    let mut pids: Vec<u32> = Vec::new();
    eventually("the workers run", || {
        let text = std::fs::read_to_string(&children).unwrap_or_default();
        pids = text.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| is_worker(*pid)).collect();
        pids.len() >= count
    });
    pids
}

fn is_worker(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"onecopy-bench-worker"))
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_killed_worker_makes_a_row_with_its_error() {
    let _watchdog = watchdog(Duration::from_secs(300));
    for which in [0, 1] {
        let running = bench_for("60", &["--json", "--only", "fifo", "--workload", "layer", "--size", "4K"]).start();
        // Ours and the plain pair: the first two are connected by then, and move messages.
        let pids = workers(&running, 4);
        signal("KILL", pids[which]);
        let ended = running.end();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let report = json(&ended);
        assert_eq!(rows(&report).len(), 1, "{report}");
        let error = rows(&report)[0]["error"].as_str().unwrap();
        assert!(error.contains("was killed by signal 9"), "{error}");
        assert_eq!(rows(&report)[0]["verified"], false);
    }
}

#[test]
fn a_worker_that_hangs_makes_a_row_with_its_error() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let run = bench_for("0.3", &["--json", "--only", "pipe", "--workload", "layer", "--size", "4K"]);
    let running = run
        .with(|command| {
            command.env("ONECOPY_BENCH_PATIENCE", "0.5");
        })
        .start();
    for pid in workers(&running, 1) {
        signal("STOP", pid);
    }
    let ended = running.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let report = json(&ended);
    let error = rows(&report)[0]["error"].as_str().unwrap();
    assert!(error.contains("did not answer in time"), "{error}");
}

/// What a measurement could leave: names with its pid, processes, System V objects that its workers used last.
fn leftovers(pid: u32, workers: &[u32]) -> Vec<String> {
    let stem = format!("onecopy-bench-{pid}-");
    let mut left = Vec::new();
    for directory in [Path::new("/dev/shm"), Path::new("/dev/mqueue"), &std::env::temp_dir()] {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        left.extend(entries.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(&stem)));
    }
    left.extend(workers.iter().filter(|pid| is_worker(**pid)).map(|pid| format!("process {pid}")));
    // Root finds queues without a mount of their file system.
    let queues = json(&onecopy(["ls", "--json", "--kind", "posix-mq"]).end());
    let queues = queues["objects"].as_array().unwrap().iter().filter_map(|queue| queue["address"].as_str());
    left.extend(queues.filter(|address| address.contains(&stem)).map(str::to_owned));
    // The columns 4 and 5 of shm, and 5 and 6 of msg, are the processes that used it last.
    for (table, columns) in [("shm", 4..6), ("msg", 5..7)] {
        let text = std::fs::read_to_string(format!("/proc/sysvipc/{table}")).unwrap_or_default();
        let by_them = |line: &&str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            workers.iter().any(|pid| fields[columns.clone()].contains(&&*pid.to_string()))
        };
        left.extend(text.lines().skip(1).filter(by_them).map(str::to_owned));
    }
    left
}

#[test]
fn an_interrupt_ends_it_with_130_and_leaves_nothing() {
    let _watchdog = watchdog(Duration::from_secs(300));
    for transport in TRANSPORTS.iter().filter(|name| **name != "sctp" && !name.starts_with("channel")) {
        let running = bench_for("60", &["--only", transport, "--workload", "layer", "--size", "4K"]).start();
        let (pid, workers) = (running.pid(), workers(&running, 4));
        running.signal("INT");
        let ended = running.end();
        assert_eq!((ended.status.code(), &*ended.stderr), (Some(130), ""), "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
        assert_eq!(leftovers(pid, &workers), [""; 0], "{transport}");
    }
}

#[test]
fn nothing_outlives_the_process_that_measures() {
    let _watchdog = watchdog(Duration::from_secs(300));
    for transport in ["fifo", "posix-mq", "sysv-mq", "posix-shm", "sysv-shm"] {
        // Killed while it creates, while it connects, while it measures.
        for count in 1..=4 {
            let mut running = bench_for("60", &["--only", transport, "--workload", "layer", "--size", "4K"]).start();
            let (pid, workers) = (running.pid(), workers(&running, count));
            running.kill();
            eventually("nothing is left", || leftovers(pid, &workers).is_empty());
        }
    }
}

#[test]
fn what_a_process_of_the_same_number_has_left_is_not_in_the_way() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let scratch = Scratch::new();
    let script = "for n in 0 1 2 3 4 5 6 7; do mkdir \"$TMPDIR/onecopy-bench-$$-$n\"; done; exec \"$0\" bench \"$@\"";
    let command = env!("CARGO_BIN_EXE_onecopy");
    let run = program("sh", ["-c", script, command, "--quick", "--only", "fifo", "--workload", "rtt"]);
    let run = run.with(|command| {
        command.env("ONECOPY_BENCH_SECONDS", BUDGET).env("TMPDIR", scratch.root());
    });
    run.end().succeeds();
    assert_eq!(std::fs::read_dir(scratch.root()).unwrap().count(), 8, "what is left is not this one's");
}

#[test]
fn wrong_usage_is_one_line_and_measures_nothing() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let scratch = Scratch::new();
    let fifo = scratch.path("fifo");
    assert!(program("mkfifo", [&fifo]).end().status.success());
    let fifo = fifo.to_str().unwrap();
    let empty = scratch.path("empty");
    std::fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    let missing = scratch.path("missing");
    let missing = missing.to_str().unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--only", "pigeon"], &["`pigeon` is not measured", "pipe, fifo"]),
        (
            &["--workload", "juggle"],
            &[
                "`juggle` is no workload",
                "rtt, stream, fresh, cpu, layer, copies, loan, loan-untouched, registered, many, uncontended, contended",
            ],
        ),
        (&["--only", "mutex", "--workload", "stream"], &["none of these mechanisms"]),
        (&["--size", "7"], &["7 bytes", "8 to 1073741824"]),
        (&["--size", "2G"], &["2147483648 bytes", "8 to 1073741824"]),
        (&["--size", "12q"], &["12q"]),
        (&["--input", missing], &["missing", "No such file"]),
        (&["--input", "/"], &["no regular file"]),
        (&["--input", fifo], &["no regular file"]),
        (&["--input", empty], &["is empty"]),
        (&["--input", "/proc/self/exe", "--size", "31"], &["31 bytes", "32 to"]),
        (&["--input", "/proc/self/exe", "--workload", "rtt"], &["none of these workloads streams it"]),
        (&["--compare", missing], &["--compare", "No such file"]),
        (&["--compare", empty], &["--compare", "no report of bench"]),
        (&["--fast"], &["--fast"]),
    ];
    for (arguments, words) in cases {
        bench(arguments).end().fails_with(2, words);
    }
    let (link, same) = (scratch.path("link"), scratch.path("same"));
    std::os::unix::fs::symlink("same", &link).unwrap();
    let (link, same) = (link.to_str().unwrap(), same.to_str().unwrap());
    let words = ["--export-json and --export-html would both write", link];
    bench(&["--quick", "--export-json", same, "--export-html", link]).end().fails_with(2, &words);
    assert!(!std::path::Path::new(same).exists());
    bench(&["--quick", "--export-json", "/nonexistent/f"]).end().fails_with(1, &["/nonexistent/f", "No such file"]);
}

#[test]
fn a_file_is_streamed_whole_and_verified() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let scratch = Scratch::new();
    for (name, len) in [("large", 1_000_003), ("small", 5)] {
        let file = scratch.path(name);
        std::fs::write(&file, pattern(len, 3)).unwrap();
        let file = file.to_str().unwrap();
        let arguments = ["--json", "--quick", "--only", "unix-stream,udp", "--input", file, "--size", "4K,32"];
        let ended = bench(&arguments).end();
        assert!(ended.status.success(), "{ended:?}");
        let report = json(&ended);
        assert_eq!(rows(&report).len(), 8, "two workloads, two sizes, two mechanisms: {report}");
        assert!(rows(&report).iter().all(|row| row["verified"] == true), "{report}");
    }
}

#[test]
fn figures_are_exported_and_compared() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path(name).to_str().unwrap().to_owned();
    let (before, csv, html) = (path("before.json"), path("figures.csv"), path("figures.html"));
    let some = ["--quick", "--only", "pipe,sysv-mq", "--size", "512"];
    let exports = ["--export-json", &before, "--export-csv", &csv, "--export-html", &html];
    bench(&[&some[..], &exports[..]].concat()).end().succeeds();
    let report: Value = serde_json::from_slice(&std::fs::read(&before).unwrap()).unwrap();
    assert_eq!(rows(&report).len(), 8);
    let lines = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(lines.lines().count(), 9, "{lines}");
    assert!(lines.starts_with("mechanism,kind,workload,size_bytes,"), "{lines}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.matches("<tr>").count() == 12, "{page}");

    let ended = bench(&[&some[..], &["--compare", &before]].concat()).end();
    let text = String::from_utf8(ended.succeeds()).unwrap();
    let compared = text.split("compared with").nth(1).unwrap_or_else(|| panic!("{text}"));
    // On one core there is no cache line that travels, to which round trips are compared.
    let ratios = if has_two_cores(&report) { 6 } else { 4 };
    let is_ratio = |line: &&str| line.starts_with("pipe") || line.starts_with("sysv-mq");
    assert_eq!(compared.lines().filter(is_ratio).count(), ratios, "{text}");
    let ended = bench(&[&some[..], &["--json", "--compare", &before]].concat()).end();
    assert!(ended.stderr.starts_with("compared with"), "{ended:?}");
    json(&ended);
}

#[test]
fn figures_that_cannot_be_exported_are_shown_and_exported_elsewhere() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let scratch = Scratch::new();
    let csv = scratch.path("figures.csv");
    let some = ["--quick", "--only", "pipe", "--workload", "stream", "--size", "512"];
    let exports = ["--json", "--export-json", "/dev/full", "--export-csv", csv.to_str().unwrap()];
    let ended = bench(&[&some[..], &exports[..]].concat()).end();
    assert_eq!(rows(&json(&ended)).len(), 1, "{ended:?}");
    assert_eq!(std::fs::read_to_string(&csv).unwrap().lines().count(), 2);
    let expected = (Some(1), "onecopy: cannot write /dev/full: No space left on device\n");
    assert_eq!((ended.status.code(), &*ended.stderr), expected);
}

#[test]
fn figures_that_go_nowhere_may_all_go_there() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let some = ["--quick", "--only", "pipe", "--workload", "stream", "--size", "512"];
    let exports = ["--export-json", "/dev/null", "--export-csv", "/dev/null"];
    assert!(bench(&[&some[..], &exports[..]].concat()).end().status.success());
}

#[test]
fn a_row_of_many_channels_says_how_many_they_are() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let scratch = Scratch::new();
    let page = scratch.path("page");
    let few = ["-n100:100", env!("CARGO_BIN_EXE_onecopy")];
    let some = ["bench", "--quick", "--only", "channel", "--workload", "many"];
    let exports = ["--export-html", page.to_str().unwrap()];
    let run = program("prlimit", few.iter().chain(&some).chain(&exports)).with(|command| {
        command.env("ONECOPY_BENCH_SECONDS", BUDGET);
    });
    let text = String::from_utf8(run.end().stdout).unwrap();
    assert!(text.contains("failed: channel many 64 B for 1000 channels: "), "{text}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<td>channel, 10 of them</td>") && page.contains("<td>channel, 1000 of them</td>"), "{page}");
}

#[test]
fn no_line_is_longer_than_a_terminal_of_80_columns() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let ended = bench(&["--quick", "--only", "unix-seqpacket,posix-mq", "--size", "64,1000000"]).end();
    let text = String::from_utf8(ended.succeeds()).unwrap();
    for line in text.lines() {
        assert!(line.chars().count() < 80, "{} columns: {line}", line.chars().count());
    }
    assert!(
        text.contains("copied each byte") && text.contains("Small messages:") && text.contains("Large messages:"),
        "{text}"
    );
}

#[test]
fn one_core_is_enough_and_is_said() {
    let _watchdog = watchdog(Duration::from_secs(300));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let first = cores.split([',', '-']).next().unwrap();
    let command = env!("CARGO_BIN_EXE_onecopy");
    let run = program("taskset", ["-c", first, command, "bench", "--only", "pipe", "--size", "64", "--json"]);
    let ended = run
        .with(|command| {
            command.env("ONECOPY_BENCH_SECONDS", BUDGET);
        })
        .end();
    assert!(ended.status.success(), "{ended:?}");
    let report = json(&ended);
    assert!(report["baselines"]["cache_line_rtt_ns"].is_null(), "{report}");
    assert!(report["warnings"][0].as_str().unwrap().contains("only one core"), "{report}");
}
