use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the kernel's ephemeral range, so that no outgoing connection takes a stopped server's
/// port.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// How far above its port the bus of a node of a cluster listens.
const BUS: u16 = 10_000;

/// Something that listens on a port of this host.
pub trait Address {
    /// The port on 127.0.0.1.
    fn port(&self) -> u16;
}

impl Address for u16 {
    fn port(&self) -> u16 {
        *self
    }
}

/// A port of 127.0.0.1 that no other user of this module, in any process, gets until it is dropped,
/// even while nothing listens on it.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    /// An abstract socket named for the port is the lock; the kernel frees it with the process.
    #[allow(dead_code, reason = "it is held")]
    claim: UnixListener,
    /// The same for the port of the bus.
    #[allow(dead_code, reason = "it is held")]
    bus: Option<UnixListener>,
}

impl Port {
    pub(crate) fn claim() -> Self {
        Self::numbers(COUNT)
            .find_map(Self::try_claim)
            .unwrap_or_else(|| panic!("no free port between {FIRST} and {}", FIRST + COUNT))
    }

    /// A port of a node of a cluster, together with that of its bus, which is 10,000 above it.
    pub(crate) fn claim_with_bus() -> Self {
        let both = |number| {
            let bus = Self::try_claim(number + BUS)?;
            Some(Self {
                bus: Some(bus.claim),
                ..Self::try_claim(number)?
            })
        };
        Self::numbers(COUNT - u32::from(BUS))
            .find_map(both)
            .unwrap_or_else(|| panic!("no two free ports {BUS} apart from {FIRST} on"))
    }

    /// So many numbers to try, each process from another one on.
    fn numbers(count: u32) -> impl Iterator<Item = u16> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        (0..count).map(move |_| {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + (process::id().wrapping_mul(97) + step) % count;
            u16::try_from(number).expect("the range ends below 65536")
        })
    }

    fn try_claim(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("synced-memory-test-port-{number}"))
            .expect("a short name is a valid one");
        let claim = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind(("127.0.0.1", number)).ok()?;
        Some(Self {
            number,
            claim,
            bus: None,
        })
    }
}
