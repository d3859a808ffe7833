//! What helps against a refusal, in the order of least privilege.

use super::Cause;

/// What helps, first what gives away the least: where both processes run on a plain host, and where one is in a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remedies {
    /// On a host.
    pub host: &'static [&'static str],
    /// For a container: options of Docker and Podman, fields of Kubernetes.
    pub container: &'static [&'static str],
}

const HOST_CAPABILITY: &str = "give this program the capability: setcap cap_sys_ptrace=ep FILE, or run it as root";
const CONTAINER_CAPABILITY: &str =
    "run the reader with --cap-add SYS_PTRACE (Kubernetes: capabilities.add: [SYS_PTRACE])";
const SHARED: &str =
    "exchange the data through shared memory (shm:, or a memfd over unix:), which needs no such permission";

impl Remedies {
    /// What helps against a cause.
    #[must_use]
    pub fn of(cause: Cause) -> Self {
        let (host, container): (&[&str], &[&str]) = match cause {
            Cause::None => (&[], &[]),
            Cause::SelfDenied => (
                &[
                    "let the filter allow process_vm_readv and process_vm_writev (systemd: SystemCallFilter=)",
                    "start this program outside the sandbox that filters its system calls",
                    SHARED,
                ],
                &[
                    "--security-opt seccomp=PROFILE, a profile that allows process_vm_readv and process_vm_writev",
                    "--cap-add SYS_PTRACE: the usual profiles allow both calls then",
                    "--security-opt seccomp=unconfined (Kubernetes: seccompProfile.type: Unconfined)",
                ],
            ),
            Cause::Gone => (
                &[
                    "look the number up again: pgrep NAME, or ps -e",
                    "name a process with memory, and a thread of it that lives",
                ],
                &["name the process by the number that it has in this container: ps -e there"],
            ),
            Cause::OtherUid => (
                &["run both as the same user: setpriv --reuid UID --regid GID --clear-groups COMMAND", HOST_CAPABILITY],
                &[
                    "run both as the same user: --user UID:GID (Kubernetes: runAsUser, runAsGroup)",
                    CONTAINER_CAPABILITY,
                ],
            ),
            Cause::OtherGid => (
                &[
                    "run both with the same group: setpriv --regid GID --clear-groups COMMAND, or sg GROUP",
                    HOST_CAPABILITY,
                ],
                &["run both with the same group: --user UID:GID (Kubernetes: runAsGroup)", CONTAINER_CAPABILITY],
            ),
            Cause::MixedIds => (
                &[
                    "make real, effective and saved ids equal: setresgid(2) and setresuid(2), or no set-user-ID",
                    HOST_CAPABILITY,
                ],
                &[
                    "start the process as its user: --user UID:GID, rather than let it change its ids",
                    CONTAINER_CAPABILITY,
                ],
            ),
            Cause::NotDumpable => (
                &[
                    "let the other call prctl(PR_SET_DUMPABLE, 1), after the last change of its ids",
                    "start it as its user: one that changes its ids, or may not read its program, is not dumpable",
                    HOST_CAPABILITY,
                ],
                &[
                    "start the process as its user: --user UID:GID, rather than let it change its ids",
                    CONTAINER_CAPABILITY,
                ],
            ),
            Cause::Capabilities => (
                &[
                    "let the one with more capabilities drop them: setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all",
                    "let the one with more capabilities do the reading and writing",
                    HOST_CAPABILITY,
                ],
                &[
                    "give both the same capabilities: --cap-drop ALL (Kubernetes: capabilities.drop: [ALL])",
                    "let the one with more capabilities do the reading and writing",
                    CONTAINER_CAPABILITY,
                ],
            ),
            Cause::UserNamespace => (
                &[
                    "let the process in the outer namespace, as the user who made the inner, do the reading and writing",
                    "run both in one user namespace: nsenter --user --preserve-credentials --target PID COMMAND",
                    SHARED,
                ],
                &[
                    "put both into one container, or into one user namespace: podman --userns=container:ID",
                    "read from the host, as the owner of the container",
                    "--userns=host (Kubernetes: hostUsers: true)",
                ],
            ),
            Cause::PidNamespace => (
                &[
                    "use the number that the process has here: the NSpid line of /proc/PID/status outside tells all of them",
                    "let the process in the outer namespace do the reading and writing",
                    "run both in one pid namespace: nsenter --pid --target PID COMMAND",
                ],
                &[
                    "share one pid namespace: --pid=container:ID (Kubernetes: shareProcessNamespace: true)",
                    "read from the host, by the number that the process has there",
                    "--pid=host (Kubernetes: hostPID: true)",
                ],
            ),
            Cause::Yama => (
                &[
                    "let the other name the reader (value 1): prctl(PR_SET_PTRACER, PID)",
                    "let the reader start the other (value 1): an ancestor may attach",
                    HOST_CAPABILITY,
                    "as root: sysctl -w kernel.yama.ptrace_scope=0, which a value of 3 forbids until the next start",
                ],
                &[
                    "let the other name the reader (value 1): prctl(PR_SET_PTRACER, PID)",
                    CONTAINER_CAPABILITY,
                    "on the host, as root: sysctl -w kernel.yama.ptrace_scope=0; a container has no value of its own",
                ],
            ),
            Cause::SecurityModule => (
                &[
                    "Landlock: restrict the reader before it starts the other, so that both are in its domain",
                    "AppArmor, SELinux: allow ptrace between the two, as journalctl -k or ausearch -m avc names it",
                    SHARED,
                ],
                &[
                    "start both in one container, hence with one profile and one label",
                    "--security-opt apparmor=PROFILE, one with a rule for ptrace; with SELinux label=type:TYPE",
                    "--security-opt apparmor=unconfined, or label=disable",
                ],
            ),
            Cause::Unknown => (&[SHARED, HOST_CAPABILITY], &[SHARED, CONTAINER_CAPABILITY]),
        };
        Self { host, container }
    }
}
