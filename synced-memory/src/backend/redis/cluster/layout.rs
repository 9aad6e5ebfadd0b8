//! What the nodes of a cluster say about it, and what most of them say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use redis::Value;

use super::super::reply;
use crate::backend::error::BackendError;
use crate::backend::layout::{ClusterLayout, Node, SLOTS, SlotNumber};

/// Slots that follow each other, and their primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backend::redis) struct SlotRange {
    pub(super) first: SlotNumber,
    pub(super) last: SlotNumber,
    pub(super) node: Node,
}

/// What one node says.
#[derive(Debug)]
pub(super) struct NodeAnswer {
    pub(super) ranges: Vec<SlotRange>,
    /// Whether a slot of its own is being moved, or may be; not if it was not asked.
    pub(super) is_moving: bool,
    /// Where its slots are being moved to.
    pub(super) importing: Vec<Node>,
}

/// The answer to CLUSTER SLOTS. `asked`: the host that was asked, which is that of every node that
/// has none in the answer. Slots of a node whose host the server does not know are left out.
pub(in crate::backend::redis) fn slot_ranges(
    answer: Value,
    asked: &str,
) -> Result<Vec<SlotRange>, BackendError> {
    let answer = reply::checked(answer)?;
    let Value::Array(ranges) = answer else {
        return Err(reply::unexpected(&answer));
    };
    let ranges = ranges.into_iter().map(|range| slot_range(range, asked));
    ranges.filter_map(Result::transpose).collect()
}

fn slot_range(range: Value, asked: &str) -> Result<Option<SlotRange>, BackendError> {
    let no_range = || BackendError::rejected("the server answered with no range of slots");
    let Value::Array(parts) = range else {
        return Err(no_range());
    };
    // The primary is the first of the nodes; replicas come after it.
    let Ok([Value::Int(first), Value::Int(last), Value::Array(node)]) =
        <[Value; 3]>::try_from(parts.into_iter().take(3).collect::<Vec<_>>())
    else {
        return Err(no_range());
    };
    let slot = |number| SlotNumber::try_from(number).ok();
    let (Some(first), Some(last)) = (slot(first), slot(last)) else {
        return Err(no_range());
    };
    if first > last || usize::from(last) >= SLOTS {
        return Err(no_range());
    }

    let mut node = node.into_iter();
    let (Some(host), Some(Value::Int(port))) = (node.next(), node.next()) else {
        return Err(no_range());
    };
    let host = match host {
        Value::Nil => String::new(),
        host => reply::text(host)?,
    };
    if host == reply::UNKNOWN_HOST {
        return Ok(None);
    }
    let host = if host.is_empty() { asked } else { &host };
    Ok(Some(SlotRange {
        first,
        last,
        node: Node {
            host: host.into(),
            port: u16::try_from(port).map_err(|_| no_range())?,
        },
    }))
}

/// Whether a node says in the answer to CLUSTER NODES that a slot of its own is being moved: its
/// line is the only one that has them, as `[slot->-id]` and `[slot-<-id]`.
pub(super) fn is_moving(nodes: &str) -> bool {
    let is_open = |word: &str| word.contains("->-") || word.contains("-<-");
    own_line(nodes).is_none_or(|own| {
        own.split(' ')
            .any(|word| word.starts_with('[') && is_open(word))
    })
}

fn own_line(nodes: &str) -> Option<&str> {
    nodes.lines().find(|line| {
        let flags = line.split(' ').nth(2).unwrap_or_default();
        flags.split(',').any(|flag| flag == "myself")
    })
}

/// Where a node moves slots of its own to, by its answer to CLUSTER NODES: to the nodes in its
/// line's `[slot->-id]`, whose lines begin with `id host:port@bus-port,name`. `named`: the hosts as
/// CLUSTER SLOTS names them, which has names or addresses, or none of both; `asked`: as for
/// [`slot_ranges`].
pub(super) fn import_targets(nodes: &str, named: &[Arc<str>], asked: &str) -> Vec<Node> {
    let words = own_line(nodes).into_iter().flat_map(|own| own.split(' '));
    let targets =
        words.filter_map(|word| word.strip_prefix('[')?.strip_suffix(']')?.split_once("->-"));
    let targets: HashSet<&str> = targets.map(|(_, id)| id).collect();
    if targets.is_empty() {
        return Vec::new();
    }
    let lines: Vec<NodeLine<'_>> = nodes.lines().filter_map(NodeLine::of).collect();
    let is_named = |host: &str| named.iter().any(|named| **named == *host);
    let has_names = lines.iter().any(|line| is_named(line.name));
    let has_addresses = lines.iter().any(|line| is_named(line.address));
    let targets = lines.iter().filter(|line| targets.contains(line.id));
    let targets = targets.map(|line| {
        let preferred = match (has_names, has_addresses) {
            (true, _) => line.name,
            (false, true) => line.address,
            (false, false) => asked,
        };
        // Whoever has no name may be reached by its address.
        let mut hosts = [preferred, line.address, asked].into_iter();
        let host = hosts.find(|host| !host.is_empty()).unwrap_or_default();
        Node {
            host: host.into(),
            port: line.port,
        }
    });
    targets.collect()
}

/// A line of CLUSTER NODES.
struct NodeLine<'a> {
    id: &'a str,
    address: &'a str,
    port: u16,
    name: &'a str,
}

impl<'a> NodeLine<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (id, rest) = line.split_once(' ')?;
        let (address, behind) = rest.split(' ').next()?.split_once('@')?;
        let (address, port) = address.rsplit_once(':')?;
        Some(Self {
            id,
            address,
            port: port.parse().ok()?,
            name: behind.split(',').nth(1).unwrap_or_default(),
        })
    }
}

/// How many primaries there are.
pub(in crate::backend::redis) fn primaries(ranges: &[SlotRange]) -> usize {
    let mut nodes: Vec<_> = ranges.iter().map(|range| &range.node).collect();
    nodes.sort_by_key(|node| (&node.host, node.port));
    nodes.dedup();
    nodes.len()
}

/// No node.
const NOBODY: u16 = u16::MAX;

/// For each slot what most of the answers say, which are in the order in which they arrived. If as
/// many say one thing as another, it is what `moved` says, which is what a node last said to a
/// request; else what the newest of them says. That nobody serves a slot weighs least.
pub(super) fn vote(answers: &[NodeAnswer], moved: &HashMap<SlotNumber, Node>) -> ClusterLayout {
    let mut nodes = Nodes::default();
    let views: Vec<_> = answers
        .iter()
        .map(|answer| nodes.view(&answer.ranges))
        .collect();
    let slots = (0..SLOTS).map(|slot| {
        let last_moved = || {
            let slot = SlotNumber::try_from(slot).ok()?;
            nodes.numbers.get(moved.get(&slot)?).copied()
        };
        most_say(&views.iter().map(|view| view[slot]), last_moved)
    });
    let slots: Vec<_> = slots.collect();
    let importing = answers.iter().flat_map(|answer| &answer.importing);
    ClusterLayout {
        is_moving: answers.iter().any(|answer| answer.is_moving),
        importing: importing.cloned().collect(),
        ..nodes.layout(&slots)
    }
}

/// The nodes by number, in the order in which they were named.
#[derive(Default)]
struct Nodes {
    nodes: Vec<Node>,
    numbers: HashMap<Node, u16>,
}

impl Nodes {
    fn number(&mut self, node: &Node) -> u16 {
        if let Some(number) = self.numbers.get(node) {
            return *number;
        }
        // There are at most as many nodes as slots.
        let number = u16::try_from(self.nodes.len()).unwrap_or(NOBODY);
        self.nodes.push(node.clone());
        self.numbers.insert(node.clone(), number);
        number
    }

    /// For each slot the number of its node.
    fn view(&mut self, ranges: &[SlotRange]) -> Vec<u16> {
        let mut view = vec![NOBODY; SLOTS];
        for range in ranges {
            let number = self.number(&range.node);
            view[usize::from(range.first)..=usize::from(range.last)].fill(number);
        }
        view
    }

    /// The layout with only the nodes that have slots, in the order of their lowest: however the
    /// servers list them, the same layout is equal.
    fn layout(self, slots: &[u16]) -> ClusterLayout {
        let mut numbers = vec![None; self.nodes.len()];
        let mut nodes = Vec::new();
        let mut of_slot = |number: u16| {
            let index = usize::from(number);
            let node = self.nodes.get(index)?;
            Some(*numbers[index].get_or_insert_with(|| {
                nodes.push(node.clone());
                u16::try_from(nodes.len() - 1).unwrap_or(NOBODY)
            }))
        };
        let slots = slots.iter().map(|number| of_slot(*number)).collect();
        ClusterLayout {
            nodes,
            slots,
            is_moving: false,
            importing: Vec::new(),
        }
    }
}

/// What most say of one slot: `said` has what each says, the newest at the end.
fn most_say(
    said: &(impl DoubleEndedIterator<Item = u16> + Clone),
    last_moved: impl FnOnce() -> Option<u16>,
) -> u16 {
    let newest = said.clone().next_back().unwrap_or(NOBODY);
    if said.clone().all(|node| node == newest) {
        return newest;
    }
    let votes = |node: u16| said.clone().filter(|other| *other == node).count();
    let weight = |node: u16| (votes(node), node != NOBODY);
    let most = said.clone().map(weight).max();
    let is_first = |node: u16| Some(weight(node)) == most;
    if let Some(moved) = last_moved().filter(|moved| is_first(*moved)) {
        return moved;
    }
    said.clone()
        .rev()
        .find(|node| is_first(*node))
        .unwrap_or(NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry(first: i64, last: i64, host: Value, port: i64) -> Value {
        let id = bulk("07c37dfeb235213a872192d90877d0cd55635b91");
        let metadata = Value::Array(vec![bulk("ip"), bulk("10.0.0.9")]);
        let node = Value::Array(vec![host, Value::Int(port), id, metadata]);
        let replica = Value::Array(vec![bulk("replica"), Value::Int(1), bulk("id")]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node, replica])
    }

    fn node(host: &str, port: u16) -> Node {
        let host = host.into();
        Node { host, port }
    }

    #[test]
    fn a_node_has_the_host_that_the_server_names_or_the_one_that_was_asked() {
        let answer = Value::Array(vec![
            entry(0, 5_460, bulk("10.0.0.1"), 7_000),
            entry(5_461, 5_461, bulk("node-2.example"), 7_001),
            entry(5_462, 9_000, Value::Nil, 7_002),
            entry(9_001, 9_001, bulk(""), 7_003),
            entry(9_002, 9_002, bulk("?"), 7_004),
            entry(9_003, 16_383, bulk("2001:db8::1"), 7_005),
        ]);
        let ranges = slot_ranges(answer, "asked.example").unwrap();
        let found: Vec<_> = ranges
            .iter()
            .map(|range| (range.first, range.last, range.node.to_string()))
            .collect();
        let expected = [
            (0, 5_460, "10.0.0.1:7000"),
            (5_461, 5_461, "node-2.example:7001"),
            (5_462, 9_000, "asked.example:7002"),
            (9_001, 9_001, "asked.example:7003"),
            (9_003, 16_383, "[2001:db8::1]:7005"),
        ];
        assert_eq!(found, expected.map(|(a, b, node)| (a, b, node.to_owned())));
        assert_eq!(primaries(&ranges), 5);
    }

    #[test]
    fn an_answer_that_is_no_list_of_slots_is_an_error() {
        let port_of = |port| Value::Array(vec![entry(0, 1, bulk("h"), port)]);
        for answer in [
            bulk("OK"),
            Value::Array(vec![bulk("x")]),
            Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(1)])]),
            Value::Array(vec![entry(0, 16_384, bulk("h"), 1)]),
            Value::Array(vec![entry(2, 1, bulk("h"), 1)]),
            Value::Array(vec![entry(-1, 1, bulk("h"), 1)]),
            port_of(-1),
            port_of(65_536),
        ] {
            assert!(slot_ranges(answer.clone(), "h").is_err(), "{answer:?}");
        }
    }

    #[test]
    fn a_slot_is_on_the_move_if_the_nodes_own_line_says_so() {
        let other = "0a 127.0.0.1:7001@17001 master - 0 1426238317239 2 connected 5461-10922";
        let own = "0b 127.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-5460";
        for (nodes, expected) in [
            (format!("{other}\n{own}\n"), false),
            (format!("{own} [93->-0a]\n{other}\n"), true),
            (format!("{own} [77-<-0a]\n{other}\n"), true),
            (format!("{own}\n{other} [77-<-0b]\n"), false),
            // Who says nothing of itself may be moving everything.
            (format!("{other}\n"), true),
        ] {
            assert_eq!(is_moving(&nodes), expected, "{nodes}");
        }
    }

    #[test]
    fn a_node_says_where_it_moves_its_slots_to() {
        let nodes = "\
            0a 127.0.0.1:7001@17001,,tls-port=0 master - 0 1 2 connected\n\
            0b :7000@17000 myself,master - 0 0 1 connected 0-99 [93->-0a] [94->-0a] [7-<-0d]\n\
            0c 127.0.0.1:7002@17002 master - 0 1 3 connected [95->-0b]\n\
            0d 127.0.0.1:7003@17003 master - 0 1 3 connected 100-200\n";
        let targets = |nodes: &str, named: &str| import_targets(nodes, &[named.into()], "asked");
        let target = |host| [node(host, 7_001)];
        assert_eq!(targets(nodes, "127.0.0.1"), target("127.0.0.1"));
        let with_name = nodes.replace("17001,,", "17001,db.example,");
        assert_eq!(targets(&with_name, "127.0.0.1"), target("127.0.0.1"));
        assert_eq!(targets(&with_name, "db.example"), target("db.example"));
        assert_eq!(targets(&with_name, "asked"), target("asked"));
        assert_eq!(targets("0a h:1@2 master - 0 1 2 connected", "h"), []);
    }

    fn answer(ranges: &[(SlotNumber, SlotNumber, &str)]) -> NodeAnswer {
        let range = |(first, last, host): &(_, _, &str)| SlotRange {
            first: *first,
            last: *last,
            node: node(host, 1),
        };
        NodeAnswer {
            ranges: ranges.iter().map(range).collect(),
            is_moving: false,
            importing: Vec::new(),
        }
    }

    /// The host of a slot.
    fn host_of(layout: &ClusterLayout, slot: usize) -> Option<&str> {
        layout.slots[slot].map(|index| &*layout.nodes[usize::from(index)].host)
    }

    #[test]
    fn each_slot_is_where_most_say_that_it_is() {
        let none = HashMap::new();
        // One view is that of a node that was cut off.
        let old = answer(&[(0, 99, "a"), (100, 16_383, "b")]);
        let [one, two] = [(); 2].map(|()| answer(&[(0, 49, "a"), (50, 16_383, "c")]));
        let layout = vote(&[old, one, two], &none);
        assert_eq!(layout.nodes, [node("a", 1), node("c", 1)]);
        assert_eq!(host_of(&layout, 0), Some("a"));
        assert_eq!(host_of(&layout, 50), Some("c"));
        assert_eq!(host_of(&layout, 16_383), Some("c"));
    }

    #[test]
    fn a_tie_is_what_a_request_was_told_last_or_else_what_the_newest_answer_says() {
        let answers = || [answer(&[(0, 9, "a")]), answer(&[(0, 8, "b")])];
        let layout = vote(&answers(), &HashMap::new());
        assert_eq!(host_of(&layout, 0), Some("b"));
        assert_eq!(host_of(&layout, 9), Some("a"), "somebody against nobody");
        assert_eq!(host_of(&layout, 10), None);

        let moved = HashMap::from([(0, node("a", 1)), (1, node("c", 1))]);
        let layout = vote(&answers(), &moved);
        assert_eq!(host_of(&layout, 0), Some("a"));
        assert_eq!(host_of(&layout, 1), Some("b"), "nobody votes for it");
    }

    #[test]
    fn the_same_layout_is_equal_however_the_servers_list_it() {
        let none = HashMap::new();
        let one = answer(&[(0, 9, "a"), (10, 20, "b"), (21, 30, "a")]);
        let other = answer(&[(21, 30, "a"), (10, 20, "b"), (0, 4, "a"), (5, 9, "a")]);
        let layout = vote(&[one], &none);
        assert_eq!(layout, vote(&[other], &none));
        assert_eq!(layout.nodes, [node("a", 1), node("b", 1)]);
    }
}
