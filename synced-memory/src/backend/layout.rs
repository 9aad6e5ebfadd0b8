//! Where the keys are: the primaries of a cluster and their slots, or the one server that there is.

use std::fmt;
use std::sync::Arc;

use crate::backend::shards::Shard;

/// How many slots a cluster has.
pub(crate) const SLOTS: usize = 16_384;

/// A hash slot of a cluster.
pub(crate) type SlotNumber = u16;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

impl Node {
    /// What stands for the server of a backend that has one: the backend knows where it is.
    pub(crate) fn only() -> Self {
        Self {
            host: Arc::from(""),
            port: 0,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Which server of a cluster has which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterLayout {
    /// The primaries that have slots, each once.
    pub(crate) nodes: Vec<Node>,
    /// For each slot the index of its primary in `nodes`; `None` if nobody serves it.
    pub(crate) slots: Vec<Option<u16>>,
    /// Some slot is being moved, as far as that was asked.
    pub(crate) is_moving: bool,
    /// Where slots are being moved to, as far as that was asked: some of these may have no slot
    /// yet.
    pub(crate) importing: Vec<Node>,
}

impl ClusterLayout {
    fn node_of(&self, slot: usize) -> Option<&Node> {
        let at = (*self.slots.get(slot)?)?;
        self.nodes.get(usize::from(at))
    }

    /// Whether each slot is at the same server.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        (0..SLOTS).all(|slot| self.node_of(slot) == other.node_of(slot))
    }

    /// The shard of a slot. `shards`: that of each server.
    pub(crate) fn shard_of_slot(&self, slot: usize, shards: &[Shard]) -> Shard {
        let at = self.slots.get(slot).copied().flatten();
        let shard = at.and_then(|at| shards.get(usize::from(at)));
        shard.copied().unwrap_or(Shard::FIRST)
    }
}

/// How thoroughly the layout is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayoutQuery {
    /// One server, another one each time: whether anything has changed.
    Glance,
    /// Several servers, and what most of them say.
    Vote,
    /// All servers, and whether any slot is being moved.
    WithMoves,
}

/// Where a server sends us for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) slot: SlotNumber,
    pub(crate) node: Node,
}

/// The slot of a key: CRC16 (XMODEM) of the text in its first braces, or of all of it.
pub(crate) fn slot_of(key: &str) -> SlotNumber {
    const COUNT: SlotNumber = 16_384;
    const _: () = assert!(COUNT as usize == SLOTS);
    crc16(hashed_part(key).as_bytes()) % COUNT
}

fn hashed_part(key: &str) -> &str {
    hash_tag(key).unwrap_or(key)
}

/// The text in the first braces of a key, if it has any.
pub(crate) fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    Some(tag).filter(|tag| !tag.is_empty())
}

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}

const CRC16: [u16; 256] = crc16_table();

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_that_of_the_text_in_the_first_braces() {
        for (key, slot) in [
            ("foo", 12_182),
            ("123456789", 12_739),
            ("{user1000}.following", 3_443),
            ("{user1000}.followers", 3_443),
            ("", 0),
        ] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
        assert_eq!(slot_of("foo{}{bar}"), crc16(b"foo{}{bar}") % 16_384);
        assert_eq!(slot_of("foo{{bar}}zap"), slot_of("{bar"));
        assert_eq!(slot_of("foo{bar}{zap}"), slot_of("bar"));
    }
}
