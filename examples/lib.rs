//! Runnable programs, each of which shows one thing; see `README.md`.
