//! The rules over made-up processes: each row of the table of causes, and what stands beside it.

use super::facts::{Facts, SYS_PTRACE};
use super::probe::Outcome;
use super::rules::{Case, Observer};
use super::scene::derive;
use super::yama::Scope;
use super::*;

const HOST: &str = "0 0 4294967295\n/0 0 4294967295\n//allow\n";
const CHILD: &str = "0 1000 1\n/0 1000 1\n//deny\n";
const NET_RAW: u64 = 1 << 13;

/// A process of user and group 1000 on a plain host, which may be read by its like.
fn ordinary() -> Facts {
    Facts {
        name: "ordinary".into(),
        state: 'S',
        tgid: 50,
        parent: 1,
        numbers: vec![50],
        threads: 1,
        uids: [1000; 4],
        gids: [1000; 4],
        stat_owner: Some((1000, 1000)),
        dumpable: Some(true),
        user_ns: Some("user:[4026531837]".into()),
        maps: Some(HOST.into()),
        ancestors: vec![1],
        ..Facts::default()
    }
}

/// The same, as one shows itself whose links may not be read.
fn closed() -> Facts {
    Facts { tgid: 60, numbers: vec![60], user_ns: None, ..ordinary() }
}

fn finding(caller: &Facts, target: &Facts, yama: Scope) -> Finding {
    let case = Case { caller, target, observer: Observer::Caller, yama, unknown_ids: caller.unknown_ids() };
    case.refusal().unwrap_or_else(|| case.rest())
}

fn cause(caller: &Facts, target: &Facts) -> Cause {
    finding(caller, target, Scope::Classic).cause
}

#[test]
fn users_and_groups_are_compared_in_every_field() {
    let other = |uids: [u32; 3], gids: [u32; 3]| {
        let [real, effective, saved] = uids;
        let [group, effective_group, saved_group] = gids;
        Facts {
            uids: [real, effective, saved, effective],
            gids: [group, effective_group, saved_group, effective_group],
            stat_owner: Some((effective, effective_group)),
            ..closed()
        }
    };
    let same = [1000; 3];
    for (uids, gids, expected) in [
        ([33; 3], same, Cause::OtherUid),
        ([33; 3], [33; 3], Cause::OtherUid),
        ([33, 0, 33], same, Cause::OtherUid),
        (same, [33; 3], Cause::OtherGid),
        (same, [33, 34, 33], Cause::OtherGid),
        ([1000, 33, 1000], same, Cause::MixedIds),
        ([33, 1000, 1000], same, Cause::MixedIds),
        ([1000, 1000, 33], same, Cause::MixedIds),
        (same, [1000, 1000, 33], Cause::MixedIds),
        (same, [33, 1000, 1000], Cause::MixedIds),
        ([1000, 1000, 33], [33; 3], Cause::MixedIds),
        (same, same, Cause::SecurityModule),
    ] {
        assert_eq!(cause(&ordinary(), &other(uids, gids)), expected, "{uids:?} {gids:?}");
    }
    let set_user_id = Facts { uids: [1000, 0, 0, 0], ..ordinary() };
    assert_eq!(cause(&set_user_id, &other([0; 3], same)), Cause::MixedIds, "the caller's real id counts");
    assert_eq!(cause(&set_user_id, &other(same, same)), Cause::SecurityModule);
    let finding = finding(&ordinary(), &other([33; 3], same), Scope::Classic);
    assert_eq!(finding.evidence, ["uid 1000/1000/1000 here, 33/33/33 there"]);
}

#[test]
fn one_rule_after_the_other_refuses() {
    let undumpable = Facts { dumpable: None, stat_owner: Some((0, 0)), ..closed() };
    assert_eq!(cause(&ordinary(), &undumpable), Cause::NotDumpable, "as the owner of the file tells");
    assert_eq!(
        cause(&ordinary(), &Facts { dumpable: Some(false), ..closed() }),
        Cause::NotDumpable,
        "as the kernel tells"
    );
    let capable = Facts { permitted: NET_RAW | 1, ..closed() };
    let finding = finding(&Facts { permitted: NET_RAW, ..ordinary() }, &capable, Scope::Classic);
    assert_eq!(finding.cause, Cause::Capabilities);
    assert_eq!(finding.evidence, ["it has cap_chown, this process has not", "CapPrm 0x2000 here, 0x2001 there"]);
    assert_eq!(cause(&Facts { permitted: NET_RAW | 1, ..ordinary() }, &capable), Cause::SecurityModule);
    let all = Facts { uids: [33; 4], gids: [33; 4], permitted: 1, ..undumpable };
    assert_eq!(cause(&ordinary(), &all), Cause::OtherUid, "the first that the kernel checks");
    let tracer = Facts { effective: SYS_PTRACE, permitted: SYS_PTRACE, ..ordinary() };
    assert_eq!(cause(&tracer, &all), Cause::SecurityModule, "CAP_SYS_PTRACE outweighs all of them");
    let foreign =
        Facts { stat_owner: Some((65534, 65534)), dumpable: Some(false), maps: Some(CHILD.into()), ..closed() };
    let root = Facts { uids: [0; 4], gids: [0; 4], maps: Some(CHILD.into()), user_ns: None, ..tracer };
    assert_eq!(cause(&root, &foreign), Cause::NotDumpable, "its memory belongs to a user namespace above");
}

#[test]
fn of_root_nobody_knows_whether_it_is_dumpable() {
    let root = Facts { uids: [0; 4], gids: [0; 4], stat_owner: Some((0, 0)), dumpable: None, ..closed() };
    let caller = Facts { uids: [0; 4], gids: [0; 4], ..ordinary() };
    assert_eq!(cause(&caller, &root), Cause::Unknown);
    assert_eq!(cause(&caller, &Facts { dumpable: Some(true), ..root.clone() }), Cause::SecurityModule);
    assert_eq!(cause(&caller, &Facts { dumpable: Some(false), ..root }), Cause::NotDumpable);
}

#[test]
fn user_namespaces_are_told_by_links_maps_and_unknown_users() {
    let inside =
        Facts { uids: [0; 4], gids: [0; 4], maps: Some(CHILD.into()), user_ns: Some("user:[7]".into()), ..ordinary() };
    let parent = Facts { uids: [0; 4], gids: [0; 4], stat_owner: Some((0, 0)), ..closed() };
    assert_eq!(cause(&inside, &parent), Cause::UserNamespace, "the maps differ");
    let tracer = Facts { permitted: u64::MAX, effective: u64::MAX, ..inside.clone() };
    assert_eq!(cause(&tracer, &parent), Cause::UserNamespace, "and CAP_SYS_PTRACE inside does not count outside");
    assert_eq!(
        cause(&ordinary(), &Facts { user_ns: Some("user:[8]".into()), ..closed() }),
        Cause::UserNamespace,
        "the links"
    );
    let stranger = Facts { uids: [65534; 4], ..parent };
    let finding = finding(&inside, &stranger, Scope::Classic);
    assert_eq!(finding.cause, Cause::UserNamespace);
    assert_eq!(finding.evidence[0], "uid 0/0/0 here, 65534/65534/65534 there");
    assert_eq!(
        cause(&ordinary(), &Facts { uids: [65534; 4], ..closed() }),
        Cause::OtherUid,
        "nobody is a user of the host"
    );

    let sandboxed = |maps: &str| Facts { maps: Some(maps.into()), user_ns: Some("user:[9]".into()), ..ordinary() };
    let sibling = |maps: &str| Facts { maps: Some(maps.into()), ..closed() };
    let single = "1000 1000 1\n/1000 1000 1\n//deny\n";
    assert_eq!(cause(&sandboxed(single), &sibling(single)), Cause::UserNamespace, "two sandboxes with one map");
    let range = "0 100000 65536\n/0 100000 65536\n//allow\n";
    assert_eq!(cause(&sandboxed(range), &sibling(range)), Cause::SecurityModule, "one container");
    assert_eq!(cause(&sandboxed("///deny"), &Facts { uids: [65534; 4], ..sibling("///deny") }), Cause::UserNamespace);
}

#[test]
fn yama_refuses_by_its_four_values() {
    let open = Facts { tgid: 60, ..ordinary() };
    let tracer = Facts { permitted: SYS_PTRACE, effective: SYS_PTRACE, ..ordinary() };
    let descendant = Facts { ancestors: vec![55, 50, 1], ..open.clone() };
    for (caller, target, expected) in [
        (&ordinary(), &open, [false, true, true, true]),
        (&ordinary(), &descendant, [false, false, true, true]),
        (&tracer, &open, [false, false, false, true]),
        (&ordinary(), &closed(), [false; 4]),
    ] {
        for (scope, refuses) in
            [Scope::Classic, Scope::Restricted, Scope::Admin, Scope::Nobody].into_iter().zip(expected)
        {
            let found = finding(caller, target, scope);
            let cause = if refuses { Cause::Yama } else { Cause::SecurityModule };
            assert_eq!(found.cause, cause, "{scope:?}: {found:?}");
            let sysctl = format!("kernel.yama.ptrace_scope is {}: ", scope.number());
            assert_eq!(found.evidence[0].starts_with(&sysctl), refuses, "{found:?}");
        }
    }
    let remedies = Remedies::of(Cause::Yama);
    assert!(remedies.host[0].contains("PR_SET_PTRACER") && remedies.host.last().unwrap().contains("ptrace_scope=0"));
    assert!(remedies.container.iter().any(|remedy| remedy.contains("--cap-add SYS_PTRACE")));
}

/// What the rules say of `other` as the one that attaches to `own`.
fn reversed(own: &Facts, other: &Facts, yama: Scope, topmost: bool) -> (Option<bool>, Cause) {
    let case = Case { caller: other, target: own, observer: Observer::Target, yama, unknown_ids: own.unknown_ids() };
    let verdict = derive(&case, topmost);
    (verdict.allowed, verdict.cause)
}

#[test]
fn the_reverse_follows_the_same_rules() {
    let allowed = (Some(true), Cause::None);
    let refused = |cause| (Some(false), cause);
    let own = ordinary();
    assert_eq!(reversed(&own, &closed(), Scope::Classic, true), allowed);
    let stranger = Facts { uids: [33; 4], ..closed() };
    assert_eq!(reversed(&own, &stranger, Scope::Classic, true), refused(Cause::OtherUid));
    assert_eq!(reversed(&own, &Facts { effective: SYS_PTRACE, ..stranger }, Scope::Classic, true), allowed);
    let hidden = Facts { dumpable: Some(false), ..ordinary() };
    assert_eq!(reversed(&hidden, &closed(), Scope::Classic, true), refused(Cause::NotDumpable));
    let capable = Facts { permitted: NET_RAW, ..closed() };
    assert_eq!(
        reversed(&own, &capable, Scope::Classic, true),
        allowed,
        "it has more, and this process nothing that it lacks"
    );
    assert_eq!(reversed(&capable, &own, Scope::Classic, true), refused(Cause::Capabilities));
    assert_eq!(reversed(&own, &closed(), Scope::Restricted, true), refused(Cause::Yama));
    let child = Facts { ancestors: vec![60, 1], ..ordinary() };
    assert_eq!(reversed(&child, &closed(), Scope::Restricted, true), allowed, "a parent may");

    let inside = Facts { maps: Some(CHILD.into()), user_ns: Some("user:[7]".into()), ..ordinary() };
    assert_eq!(reversed(&inside, &closed(), Scope::Classic, false), (None, Cause::Unknown), "it may be the owner");
    let below = Facts { maps: Some(CHILD.into()), ..closed() };
    assert_eq!(reversed(&own, &below, Scope::Classic, true), refused(Cause::UserNamespace));
}

fn scene(own: Facts, other: Option<Facts>, kill: Result<(), i32>) -> Scene {
    Scene { pid: 60, own: Some(own), other, kill, proc_is_ours: true, yama: Scope::Classic }
}

#[test]
fn what_has_no_memory_is_gone() {
    let gone = |other: Facts| scene(ordinary(), Some(other), Ok(())).refused(libc::ESRCH);
    let zombie = Facts { state: 'Z', parent: 7, ..closed() };
    let verdict = gone(zombie.clone());
    assert_eq!((verdict.cause, verdict.errno_name().as_deref()), (Cause::Gone, Some("ESRCH")));
    assert_eq!(verdict.evidence[0], "it has exited, and process 7 has not yet waited for it");
    assert!(gone(Facts { threads: 2, ..zombie }).evidence[0].contains("/proc/60/task"));
    assert!(gone(Facts { kernel_thread: true, ..closed() }).evidence[0].contains("kernel"));
    assert_eq!(scene(ordinary(), None, Err(libc::ESRCH)).refused(libc::ESRCH).cause, Cause::Gone);
    let foreign = Scene { proc_is_ours: false, ..scene(ordinary(), None, Err(libc::ESRCH)) };
    assert_eq!(foreign.refused(libc::ESRCH).cause, Cause::PidNamespace);
}

#[test]
fn what_proc_hides_is_told_by_kill_or_unknown() {
    assert_eq!(scene(ordinary(), None, Err(libc::EPERM)).refused(libc::EPERM).cause, Cause::OtherUid);
    let verdict = scene(ordinary(), None, Ok(())).refused(libc::EPERM);
    assert_eq!((verdict.allowed, verdict.cause), (Some(false), Cause::Unknown));
    assert_eq!(
        scene(ordinary(), Some(closed()), Ok(())).refused(libc::ESRCH).cause,
        Cause::Unknown,
        "no rule says ESRCH"
    );
}

#[test]
fn a_filter_on_this_process_is_named_with_what_it_did() {
    let filtered = scene(Facts { seccomp: 2, ..ordinary() }, Some(closed()), Ok(()));
    let killed = filtered.self_denied(Outcome::Killed(libc::SIGSYS));
    assert_eq!((killed.allowed, killed.cause, killed.killed_by), (Some(false), Cause::SelfDenied, Some(libc::SIGSYS)));
    for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ESRCH] {
        let verdict = filtered.self_denied(Outcome::Refused(errno));
        assert_eq!((verdict.cause, verdict.errno), (Cause::SelfDenied, Some(errno)));
        assert_eq!(verdict.evidence[1], "Seccomp: 2 in /proc/self/status");
    }
    for outcome in [Outcome::Untried(libc::EAGAIN), Outcome::Killed(libc::SIGINT)] {
        let verdict = filtered.self_denied(outcome);
        assert_eq!((verdict.allowed, verdict.cause), (None, Cause::Unknown), "{outcome:?} says nothing of a filter");
    }
    let module = filtered.refused(libc::EPERM);
    assert!(module.cause == Cause::SecurityModule && module.evidence.last().unwrap().contains("seccomp"), "{module:?}");
    let unfiltered = scene(ordinary(), Some(closed()), Ok(()));
    assert!(unfiltered.self_denied(Outcome::Refused(libc::ENOSYS)).evidence[0].contains("lacks the system call"));
}

#[test]
fn every_cause_but_none_has_remedies_and_a_line_that_names_it() {
    let mut names: Vec<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Cause::ALL.len());
    for cause in Cause::ALL {
        let remedies = Remedies::of(cause);
        assert_eq!(remedies.host.is_empty() || remedies.container.is_empty(), cause == Cause::None, "{cause}");
        let verdict = Verdict::refused(None, Finding::new(cause, ["a fact".to_owned()]));
        let line = verdict.to_string();
        assert!(line.starts_with(&format!("{cause}: a fact")) && !line.contains('\n'), "{line}");
        assert_eq!(remedies.host.first().is_some_and(|remedy| line.ends_with(remedy)), cause != Cause::None, "{line}");
    }
}

#[test]
fn this_process_and_numbers_that_nobody_has() {
    for pid in [0, 1 << 22, u32::MAX] {
        let diagnosis = Diagnosis::of(pid);
        assert_eq!((diagnosis.cause(), diagnosis.name), (Cause::Gone, None), "pid {pid}");
        assert_eq!((diagnosis.read.errno, diagnosis.reverse.cause), (Some(libc::ESRCH), Cause::Gone));
    }
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let _ = ended.recv();
    });
    for pid in [std::process::id(), told.recv().unwrap().cast_unsigned()] {
        let diagnosis = Diagnosis::of(pid);
        assert_eq!((diagnosis.cause(), diagnosis.reverse.allowed), (Cause::None, Some(true)), "{diagnosis:?}");
        assert_eq!(diagnosis.read.evidence, ["it is this process itself"]);
    }
    drop(end);
    thread.join().unwrap();
}
