//! What the tests are built on: real servers, real faults, other processes, other clocks.
//!
//! Everything here panics when it cannot do its work: a fault that did not happen proves nothing.

mod ca;
mod canary;
mod child;
mod cluster;
mod disk;
mod dragonfly;
mod faketime;
mod logs;
mod port;
mod process;
mod proxy;
mod python;
mod sentinel;
mod server;
mod stop;
mod tmpfs;
mod venv;
mod wait;

pub use ca::{Authority, Certificate, replace};
pub use canary::{Canary, time_without_cpu};
pub use child::Child;
pub use cluster::{Cluster, ClusterProxies, SlotMove};
pub use disk::{CrashingDisk, Image};
pub use dragonfly::Dragonfly;
pub use faketime::FakeClock;
pub use logs::{Event, Logs};
pub use port::Address;
pub use proxy::{Direction, Proxy};
pub use python::{Python, python};
pub use sentinel::Watched;
pub use server::{Builder, Server};
pub use stop::{Stop, StopOnDrop};
pub use tmpfs::Tmpfs;
pub use wait::{eventually, eventually_some};
