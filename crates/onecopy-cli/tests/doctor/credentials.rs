//! Users, groups, dumpability, capabilities.
//!
//! # Safety
//!
//! The calls change this process alone, which is the second one of a test and does nothing else.
#![expect(unsafe_code, reason = "a process that changes its real, effective and saved ids one by one")]

use crate::stage::{
    NOBODY, Said, Target, as_nobody, changed, doctor, doctor_by, has_sys_ptrace, is_root, onecopy_by, ordinary_doctor,
    ordinary_group, ordinary_user, possible, words,
};
use crate::support::{Scratch, argument, program, role, skip};

/// The second process of a test here: takes the ids that it is told, says so, and waits to be killed.
fn play() {
    let ids = |name: &str| -> [u32; 3] {
        let numbers: Vec<u32> = argument(name).split(',').map(|id| id.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    };
    let [real, effective, saved] = ids("GIDS");
    if is_root() {
        // SAFETY: changes the credentials of this process, in each of its threads.
        assert_eq!(unsafe { libc::setresgid(real, effective, saved) }, 0);
        let [real, effective, saved] = ids("UIDS");
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setresuid(real, effective, saved) }, 0);
    }
    let dumpable = libc::c_ulong::from(argument("DUMPABLE") == "1");
    // SAFETY: changes an attribute of this process.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, dumpable) }, 0);
    println!("\nchanged");
    std::thread::sleep(std::time::Duration::from_secs(100));
}

#[test]
fn another_user_is_named() {
    if is_root() {
        let target = Target::start(&[]);
        let said = Said::by(ordinary_doctor(target.pid()).end());
        said.refuses("other-uid", "EPERM").shows("uid 4321/4321/4321 here, 0/0/0 there").reverse(Some(true), "none");
        let target = Target::start(&["setpriv", "--reuid=33", "--regid=33", "--clear-groups"].map(str::to_owned));
        Said::by(ordinary_doctor(target.pid()).end()).refuses("other-uid", "EPERM").reverse(Some(false), "other-uid");
        if has_sys_ptrace() {
            Said::by(doctor(target.pid()).end()).allows().reverse(Some(false), "other-uid");
        }
    } else if Said::by(doctor(1).end()).0["read"]["allowed"] == true {
        skip("another_user_is_named", "the first process here runs as the same user");
    } else {
        Said::by(doctor(1).end()).refuses("other-uid", "EPERM");
    }
}

#[test]
fn another_group_is_named() {
    if role().is_some() {
        return play();
    }
    if !is_root() {
        return skip("another_group_is_named", "only root starts a process with another group");
    }
    let target = changed("credentials::another_group_is_named", [NOBODY; 3], [33; 3], true);
    let said = Said::by(ordinary_doctor(target.pid()).end());
    said.refuses("other-gid", "EPERM")
        .shows("gid 4321/4321/4321 here, 33/33/33 there")
        .reverse(Some(false), "other-gid");
}

#[test]
fn mixed_ids_are_named() {
    if role().is_some() {
        return play();
    }
    if !is_root() {
        return skip("mixed_ids_are_named", "only root starts a process with mixed ids");
    }
    let (same, real, effective, saved) =
        ([NOBODY; 3], [33, NOBODY, NOBODY], [NOBODY, 33, NOBODY], [NOBODY, NOBODY, 33]);
    let mixtures = [(real, same), (effective, same), (saved, same), (same, real), (same, effective), (same, saved)];
    for (uids, gids) in mixtures {
        let target = changed("credentials::mixed_ids_are_named", uids, gids, true);
        Said::by(ordinary_doctor(target.pid()).end()).refuses("mixed-ids", "EPERM");
    }
}

#[test]
fn a_process_that_is_not_dumpable_is_named() {
    if role().is_some() {
        return play();
    }
    let test = "credentials::a_process_that_is_not_dumpable_is_named";
    let target = changed(test, [ordinary_user(); 3], [ordinary_group(); 3], false);
    let said = Said::by(ordinary_doctor(target.pid()).end());
    said.refuses("not-dumpable", "EPERM").shows("/proc/PID/stat belongs to 0:0");
    if has_sys_ptrace() {
        Said::by(doctor(target.pid()).end()).allows();
    }
}

#[test]
fn capabilities_that_the_caller_lacks_are_named() {
    let test = "capabilities_that_the_caller_lacks_are_named";
    if !is_root() {
        return skip(test, "only root starts a process with one capability");
    }
    let with_net_raw: Vec<String> =
        as_nobody().into_iter().chain(["--inh-caps=+net_raw", "--ambient-caps=+net_raw"].map(str::to_owned)).collect();
    let target = Target::start(&with_net_raw);
    let said = Said::by(ordinary_doctor(target.pid()).end());
    said.refuses("capabilities", "EPERM").shows("it has cap_net_raw, this process has not");
    let equal = Said::by(doctor_by(&with_net_raw, target.pid()).end());
    assert_ne!(equal.0["cause"], "capabilities", "who has the same may: {:#}", equal.0);
    let target = Target::ordinary();
    Said::by(doctor_by(&with_net_raw, target.pid()).end()).reverse(Some(false), "capabilities");
}

#[test]
fn a_refused_read_says_why_in_its_error() {
    if role().is_some() {
        return play();
    }
    let test = "credentials::a_refused_read_says_why_in_its_error";
    let target = changed(test, [ordinary_user(); 3], [ordinary_group(); 3], false);
    let address = format!("mem:{}:0x1000+16", target.pid());
    let wrapper = if is_root() { as_nobody() } else { Vec::new() };
    let ended = onecopy_by(&wrapper, &["read", &address]).end();
    ended.fails_with(1, &[&address, "Operation not permitted", "(not-dumpable: ", "PR_SET_DUMPABLE"]);
}

#[test]
fn what_is_derived_for_the_reverse_is_what_the_other_side_finds() {
    let test = "what_is_derived_for_the_reverse_is_what_the_other_side_finds";
    let as_user = if is_root() { as_nobody() } else { Vec::new() };
    let with = |more: &str| as_user.iter().cloned().chain(words(more)).collect::<Vec<String>>();
    let mut sides = vec![with(""), Vec::new()];
    if is_root() {
        sides.push(with("--inh-caps=+net_raw --ambient-caps=+net_raw"));
        sides.push(with("--inh-caps=+sys_ptrace --ambient-caps=+sys_ptrace"));
        sides.extend(
            ["setpriv --reuid=33 --regid=33 --clear-groups", "setpriv --ruid=4321 --euid=33 --clear-groups"].map(words),
        );
    }
    if possible(test, "unshare -U -r") {
        sides.extend([with("unshare -U -r"), with("unshare -U"), words("unshare -U -r")]);
    }
    let scratch = Scratch::new();
    let copy = scratch.path("onecopy");
    program("cp", [env!("CARGO_BIN_EXE_onecopy").as_ref(), copy.as_os_str()]).end().succeeds();
    let targets: Vec<Target> = sides.iter().map(|side| Target::start(side)).collect();
    let look = |from: usize, to: usize| {
        let arguments =
            [copy.to_str().unwrap(), "doctor", "--json", "--pid", &targets[to].pid().to_string()].map(str::to_owned);
        let words: Vec<String> = sides[from].iter().cloned().chain(arguments).collect();
        Said::by(program(&words[0], &words[1..]).end()).0
    };
    let mut derived = 0;
    for one in 0..sides.len() {
        for other in 0..one {
            for (from, to) in [(one, other), (other, one)] {
                let (there, here) = (look(from, to), look(to, from));
                let (reverse, found) = (&there["reverse"]["allowed"], &here["read"]["allowed"]);
                let sides = (&sides[from], &sides[to]);
                assert!(reverse.is_null() || reverse == found, "{sides:?}: derived {there:#}, found {here:#}");
                derived += usize::from(!reverse.is_null());
            }
        }
    }
    assert!(derived > 0, "nothing was derived");
}
