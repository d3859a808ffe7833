//! The fuzz target of the shared pages, driven by a seeded generator and by a corpus of inputs.

use std::time::{Duration, Instant};

use crate::duo::{KIB, apart, hash, soak};
use crate::heap::take_largest_bytes;
use crate::page_fuzz::run;
use crate::support::role;

/// Longer than any message here.
const MOST_BYTES: usize = 512 * KIB;

#[test]
fn anything_that_stands_in_the_shared_pages_is_an_error_or_a_message() {
    let test = "pages::anything_that_stands_in_the_shared_pages_is_an_error_or_a_message";
    let seconds = if soak() { 60 } else { 3 };
    if role().is_none() {
        return apart(test, "alone", Duration::from_secs(seconds + 120));
    }
    let seed: u64 = std::env::var("ONECOPY_SEED").map_or(1, |seed| seed.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut inputs = 0;
    take_largest_bytes();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/shared_pages")).unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
    }
    while Instant::now() < end {
        let begin = hash(seed) ^ inputs << 20;
        let length = hash(begin) % 1500;
        let input: Vec<u8> = (0..length).map(|index| hash(begin + index) as u8).collect();
        let result = std::panic::catch_unwind(|| run(&input));
        assert!(result.is_ok(), "input {inputs} of seed {seed}: {input:?}");
        inputs += 1;
    }
    let largest = take_largest_bytes();
    eprintln!("{inputs} inputs, at most {} KiB at once from the heap", largest / KIB);
    assert!(largest <= MOST_BYTES, "{largest} bytes");
}
