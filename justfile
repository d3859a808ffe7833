# The steps of .ci/run, one recipe each; `just` alone runs them all.

default: fmt clippy other-targets oldest-rust doc dependencies test examples hostile loom test-as-user leftovers

# Formatting
fmt:
    cargo fmt --all --check

# Lints, warnings as errors
clippy:
    cargo clippy --workspace --all-targets -- -D warnings

# The same for musl on aarch64
other-targets:
    ci/other-targets

# The oldest Rust that is promised
oldest-rust:
    ci/oldest-rust

# Documentation, warnings as errors
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The library's dependencies stay few
dependencies:
    ci/check-dependencies

# What the examples show
examples:
    ci/examples

# The tests, as the README runs them
test:
    cargo test --workspace

# The models of what happens in shared memory: every order of the steps of two sides
loom:
    ci/loom

# Peers that write anything into a channel, for a minute
hostile:
    ci/hostile

# The tests again, without any privilege
test-as-user:
    ci/test-as-user

# Nothing of the tests stays on the machine
leftovers:
    ci/check-leftovers

# The long runs: thousands of rounds, gigabytes through every mechanism
soak:
    ONECOPY_SOAK=1 cargo test --workspace --release -- --nocapture

# The measurements of the README
bench:
    cargo run --release -- bench --quick

# The channel beside its rivals, not part of CI: it builds them
compare *arguments:
    cargo run --release --manifest-path comparisons/Cargo.toml -- {{arguments}}

# What a window costs beside the bare call, safe messages beside plain writes, a shared mutex beside a bare one, a file of 4 GiB
# through a channel beside a mapped copy and cp(1), and how soon a death is known; they fail beyond their limits
figures:
    cargo run --release -p onecopy --example window_figures
    cargo run --release -p onecopy --example pipe_message_figures
    cargo run --release -p onecopy --example sync_figures
    cargo run --release -p onecopy --example death_figures
    cargo build --release -p onecopy-cli
    cargo run --release -p onecopy-cli --example file_figures

# Puts a real run into the README
readme:
    ci/update-readme

# A minute of a fuzz target: pipe_frames or shared_pages
fuzz target="pipe_frames" seconds="60":
    ci/fuzz {{target}} {{seconds}}
