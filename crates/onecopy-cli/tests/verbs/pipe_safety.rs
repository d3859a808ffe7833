//! `onecopy pipe-safety`: what the kernel promises beside what it does.

use std::time::Duration;

use serde_json::Value;

use crate::support::{onecopy, watchdog};

#[test]
fn the_four_states_with_both_fills_are_shown_and_every_promise_holds() {
    let _watchdog = watchdog(Duration::from_secs(200));
    let text = onecopy(["pipe-safety", "--messages", "100", "--json"]).end().succeeds();
    let report: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (&report["version"], &report["pipe_buf_bytes"], &report["broken"]),
        (&1.into(), &4096.into(), &0.into())
    );
    let states = report["states"].as_array().unwrap();
    let seen: Vec<_> =
        states.iter().map(|row| (row["state"].as_u64().unwrap(), row["fill"].as_str().unwrap())).collect();
    assert_eq!(
        seen,
        [(1, "room"), (1, "full"), (2, "room"), (2, "full"), (3, "room"), (3, "full"), (4, "room"), (4, "full")]
    );
    let sum = |row: &Value, name: &str| {
        row["load"].as_array().unwrap().iter().map(|load| load[name].as_u64().unwrap()).sum::<u64>()
    };
    for row in states {
        let safe = row["state"].as_u64().unwrap() <= 2;
        assert_eq!((row["safe"].as_bool(), row["kept"].as_bool()), (Some(safe), Some(true)), "{row}");
        assert_eq!((sum(row, "messages"), sum(row, "arrived")), (800, 800), "{row}");
        assert!(!safe || (sum(row, "torn"), sum(row, "partial_writes")) == (0, 0), "{row}");
    }
    assert!(sum(&states[5], "torn") > 0, "torn messages in state 3: {}", states[5]);
    assert!(sum(&states[7], "torn") > 0 && sum(&states[7], "partial_writes") > 0, "state 4: {}", states[7]);
    assert_eq!(states[7]["hazard"], "seen");
    assert!(states[3]["one_write"]["written_bytes"].is_null(), "EAGAIN in state 2: {}", states[3]);
    assert_eq!(
        (&states[6]["one_write"]["bytes"], &states[6]["one_write"]["written_bytes"]),
        (&16384.into(), &8192.into())
    );
    let safe = report["message_writer"].as_array().unwrap();
    assert_eq!(safe.iter().map(|way| (sum(way, "arrived"), sum(way, "torn"))).collect::<Vec<_>>(), [(1600, 0); 2]);
}

#[test]
fn the_text_teaches_and_fits_a_terminal() {
    let _watchdog = watchdog(Duration::from_secs(200));
    let text = onecopy(["pipe-safety", "--messages", "20", "--writers", "3", "--sizes", "100,5000"]).end().succeeds();
    let text = String::from_utf8(text).unwrap();
    for words in [
        "longer than PIPE_BUF (4096 bytes)",
        "State 1, SAFE: up to 4096 bytes",
        "State 4, NOT SAFE: more than 4096 bytes",
        "EAGAIN, and nothing is written",
        "All 10 promises held.",
        "What to do: Write at most 4096 bytes",
        "3 processes at once wrote 20 messages each, of 100, 5000 bytes",
    ] {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}

#[test]
fn a_load_without_long_messages_says_what_it_did_not_see() {
    let text = onecopy(["pipe-safety", "--messages", "5", "--writers", "2", "--sizes", "64"]).end().succeeds();
    assert!(String::from_utf8(text).unwrap().contains("no length above 4096 bytes was asked for"));
}

#[test]
fn wrong_usage_names_the_range() {
    onecopy(["pipe-safety", "--writers", "1"]).end().fails_with(2, &["--writers", "2..=64"]);
    onecopy(["pipe-safety", "--sizes", "0"]).end().fails_with(2, &["--sizes", "0 is not in 1..=1048576"]);
    onecopy(["pipe-safety", "--messages", "0"]).end().fails_with(2, &["--messages"]);
}
