//! A channel whose shared pages a peer fills with anything, between the calls of both sides.
#![no_main]

#[path = "../../crates/onecopy/tests/channel/filter.rs"]
mod filter;
#[path = "../../crates/onecopy/tests/channel/page_fuzz.rs"]
mod page_fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| page_fuzz::run(input));
