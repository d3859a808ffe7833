//! The fuzz target of the frame reader, driven by a seeded generator, and what it once found.

use std::time::{Duration, Instant};

use crate::frame_fuzz::run;
use crate::support::watchdog;

/// How long the generator runs; the soak test takes the minute that is asked of the fuzz target.
fn duration() -> Duration {
    let seconds = if std::env::var_os("ONECOPY_SOAK").is_some() { 60 } else { 3 };
    Duration::from_secs(seconds)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 20) as usize % limit
    }
}

#[test]
fn inputs_of_any_kind_are_read_without_a_wrong_message() {
    let _watchdog = watchdog(duration() + Duration::from_secs(60));
    let seed = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()) << 17;
    let (mut random, end) = (Random(seed | 1), Instant::now() + duration());
    let mut corpus = corpus();
    let mut runs = 0;
    while Instant::now() < end {
        let input = if runs % 4 == 0 { fresh(&mut random) } else { mutated(&mut random, &corpus) };
        let result = std::panic::catch_unwind(|| run(&input));
        assert!(result.is_ok(), "after {runs} runs, put this into the corpus: {input:?}");
        let place = random.below(64);
        if place >= corpus.len() {
            corpus.push(input);
        } else if place > 16 {
            corpus[place] = input;
        }
        runs += 1;
    }
    println!("{runs} inputs");
}

fn fresh(random: &mut Random) -> Vec<u8> {
    let len = random.below(200);
    (0..len).map(|_| random.next() as u8).collect()
}

fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 + random.below(8) {
        let at = random.below(input.len() + 1);
        match random.below(4) {
            0 => input.insert(at, random.next() as u8),
            1 => input.truncate(at.max(1)),
            2 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                input.extend_from_slice(&other[from..]);
            }
            _ if at < input.len() => input[at] = random.next() as u8,
            _ => {}
        }
    }
    input
}

/// The inputs in `tests/corpus/pipe_frames`, with a name each.
fn named_corpus() -> Vec<(String, Vec<u8>)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/pipe_frames");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.display().to_string(), std::fs::read(&file).unwrap())).collect()
}

fn corpus() -> Vec<Vec<u8>> {
    named_corpus().into_iter().map(|(_, input)| input).collect()
}

#[test]
fn the_regression_corpus_is_read_without_a_wrong_message() {
    let corpus = named_corpus();
    assert!(corpus.len() >= 10, "the corpus is missing");
    for (name, input) in corpus {
        let result = std::panic::catch_unwind(|| run(&input));
        assert!(result.is_ok(), "{name}");
    }
}
