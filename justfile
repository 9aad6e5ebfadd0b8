# List the recipes.
default:
    @just --list

# All tests, with real servers; installs on Debian what is missing.
test *args:
    .ci/test {{args}}

# What CI runs.
ci:
    .ci/run

# Lints, as CI sees them.
lint:
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# Format everything.
fmt:
    cargo fmt --all

# The documentation, as CI sees it.
doc *args:
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --all-features {{args}}

# The measurements, as ratios against the named peers.
bench *args:
    cargo bench -p synced-memory-benches {{args}}

# The property tests with many more cases than usual.
soak cases="1000000":
    PROPTEST_CASES={{cases}} cargo test --release -p synced-memory-tests --test promises
