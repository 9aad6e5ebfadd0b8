# List the recipes.
default:
    @just --list

# Formatting, lints, and the tests that need no servers: the units, a short run of the model, the derive, the floors.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    SYNCED_MEMORY_SCHEDULES=2000 cargo test --quiet -p synced-memory -p synced-memory-derive --all-features --lib -- --skip redis
    cargo test --quiet -p synced-memory-tests --test layers --test words

# All tests, or those whose name contains NAME, with real servers; installs on Debian what is missing.
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

# The long forms of the tests: millions of model schedules, and the faults over and over.
soak schedules="3000000" rounds="20":
    SYNCED_MEMORY_SCHEDULES={{schedules}} cargo test --release -p synced-memory --lib model
    for round in $(seq {{rounds}}); do SYNCED_MEMORY_SOAK=1 .ci/test --release -p synced-memory-tests --test promises --test clusters --test footprint || exit 1; done
