//! The limits that the library reports are those that the kernel has.

use std::collections::HashSet;

use onecopy::Mechanism;
use onecopy::limits::{Value, limits, limits_of};

fn sysctl(path: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/sys/{path}")).ok()
}

#[test]
fn values_are_those_of_proc() {
    for limit in limits() {
        let Some(path) = limit.source.strip_prefix("/proc/sys/") else { continue };
        match sysctl(path) {
            None => assert!(matches!(limit.value, Value::Absent | Value::Unreadable), "{}", limit.name),
            // It counts what other processes do meanwhile.
            Some(_) if path == "kernel/pty/nr" => assert!(limit.value.number().is_some()),
            Some(text) => {
                let value = limit.value.number().unwrap_or_else(|| panic!("{}: {}", limit.name, limit.value));
                let found = text.split_whitespace().any(|word| word == value.to_string());
                assert!(found, "{} is {value}, {path} says {text:?}", limit.name);
            }
        }
    }
}

#[test]
fn every_limit_says_where_it_is_and_what_to_do() {
    let mut names = HashSet::new();
    for limit in limits() {
        assert!(names.insert(limit.name), "{} stands twice", limit.name);
        assert!(!limit.source.is_empty() && !limit.how_to_raise.is_empty() && !limit.meaning.is_empty());
        if let Some(path) = limit.source.strip_prefix("/proc/sys/") {
            let name = path.replace('/', ".");
            assert!(limit.name.starts_with(&name), "{} is not {name}", limit.name);
        }
    }
}

#[test]
fn every_limit_concerns_some_mechanism() {
    let concerned: HashSet<&str> = Mechanism::ALL.into_iter().flat_map(limits_of).map(|limit| limit.name).collect();
    for limit in limits() {
        assert!(concerned.contains(limit.name), "{} concerns nobody", limit.name);
    }
}

#[test]
fn the_resource_limit_is_this_process_s_own() {
    let expected = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limits = limits_of(Mechanism::Eventfd);
    let descriptors = limits.iter().find(|limit| limit.name == "RLIMIT_NOFILE").expect("eventfds are descriptors");
    assert_eq!(descriptors.value, expected.map_or(Value::Unlimited, Value::Number));
}
