use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use redis::Value;

use crate::ca::{Authority, Certificate};
use crate::proxy::Proxy;
use crate::server::{Builder, Server};
use crate::wait::{eventually, eventually_some, poll};

const START: Duration = Duration::from_secs(20);
const SLOTS: u16 = 16_384;
/// When a replica has given up a failover in good order, and its primary serves again: 5 s.
const GIVES_UP: Duration = Duration::from_secs(6);

/// A Redis Cluster of real servers: its primaries share the slots out evenly, and each has as many
/// replicas as the test says. Each node is a [`Server`], which can be killed, frozen and started
/// again.
///
/// `cluster-node-timeout` is 2 s, nodes serve what they have while others are away, and a replica
/// may take over however old its data is.
#[derive(Debug)]
pub struct Cluster {
    /// The primaries, then their replicas: those of the first, those of the second, …
    nodes: Vec<Server>,
}

/// A slot on its way from one node to another, which a test moves on step by step.
#[derive(Debug)]
#[must_use = "a slot that is on its way stays so until it is settled"]
pub struct SlotMove<'a> {
    cluster: &'a Cluster,
    slot: u16,
    from: usize,
    to: usize,
}

/// A proxy before each node.
#[derive(Debug)]
pub struct ClusterProxies {
    proxies: Vec<Proxy>,
    ports: Vec<u16>,
}

impl Cluster {
    /// Starts a cluster of this program, and waits until every node serves:
    /// `Cluster::start(Server::redis, 3, 1)`.
    #[track_caller]
    pub fn start(program: fn() -> Builder, primaries: u16, replicas: u16) -> Self {
        Self::start_with(program, primaries, replicas, |builder| builder)
    }

    /// The same with more configuration.
    #[track_caller]
    pub fn start_with(
        program: fn() -> Builder,
        primaries: u16,
        replicas: u16,
        configure: impl Fn(Builder) -> Builder,
    ) -> Self {
        let node = |_| configure(node_of(program)).start();
        let count = primaries * (1 + replicas);
        let cluster = Self {
            nodes: (0..count).map(node).collect(),
        };
        for (number, node) in (0..primaries).zip(&cluster.nodes) {
            let end = |number: u16| u32::from(number) * u32::from(SLOTS) / u32::from(primaries);
            let slots = end(number)..end(number + 1);
            let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
            let slots = slots.iter().map(String::as_str);
            let command: Vec<&str> = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots).collect();
            node.cli(&command);
        }
        for (number, node) in cluster.nodes.iter().enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            let port = node.node_port().to_string();
            if number > 0 {
                cluster.nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port]);
            }
        }
        let (primaries, replicas) = (usize::from(primaries), usize::from(replicas));
        for (number, replica) in cluster.nodes[primaries..].iter().enumerate() {
            let id = cluster.id(number / replicas);
            eventually(START, "a replica knows its primary", || {
                replica.try_cli(&["CLUSTER", "REPLICATE", &id]).is_ok()
            });
        }
        cluster.wait_ready();
        cluster
    }

    /// The same, whose nodes speak TLS to each other and to clients.
    #[track_caller]
    pub fn start_with_tls(
        primaries: u16,
        replicas: u16,
        certificate: &Certificate,
        authority: &Authority,
    ) -> Self {
        Self::start_with(Server::redis, primaries, replicas, |builder| {
            let builder = builder.tls(certificate, authority);
            let builder = builder.arg("tls-cluster", "yes");
            builder.arg("tls-replication", "yes")
        })
    }

    /// Starts another primary, which has no slots yet, and waits until all nodes know it. Returns
    /// which node it is.
    #[track_caller]
    pub fn add_primary(&mut self, program: fn() -> Builder) -> usize {
        let (number, node) = (self.nodes.len(), node_of(program).start());
        node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        let port = node.port().to_string();
        self.any_cli(&["CLUSTER", "MEET", "127.0.0.1", &port]);
        self.nodes.push(node);
        self.wait_ready();
        number
    }

    /// Waits until every node serves, is connected to all others and knows that all slots are
    /// served, all agree who serves which, and every replica follows its primary.
    #[track_caller]
    pub fn wait_ready(&self) {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        eventually(START, "the cluster serves", || {
            let is_whole = |node: &Server| {
                let state = node.try_cli(&["CLUSTER", "INFO"]).map(text);
                let is_whole = state.is_ok_and(|state| {
                    let has = |line: &str| state.lines().any(|other| other == line);
                    has("cluster_state:ok") && has("cluster_slots_ok:16384") && has(&known)
                });
                let replication = node.try_cli(&["INFO", "replication"]).map(text);
                let follows = |info: String| !info.contains("master_link_status:down");
                // A vote for a node that its voter is not connected to, since it has just started,
                // is not sent.
                let nodes = node.try_cli(&["CLUSTER", "NODES"]).map(text);
                let is_connected = |nodes: String| !nodes.contains(" disconnected");
                is_whole && replication.is_ok_and(follows) && nodes.is_ok_and(is_connected)
            };
            // One that was away may take itself for a primary that it is no more.
            let layout = |node: &Server| {
                let slots = node.try_cli(&["CLUSTER", "SLOTS"]).ok();
                slots.map(|slots| layout_of(&slots))
            };
            let first = layout(&self.nodes[0]);
            let agrees = |node: &Server| is_whole(node) && layout(node) == first;
            first.is_some() && self.nodes.iter().all(agrees)
        });
    }

    /// Waits until the replica of a primary has all that the primary has made so far.
    #[track_caller]
    pub fn wait_replicated(&self, primary: usize) {
        let replica = &self.nodes[self.replica_of(primary)];
        let made = self.nodes[primary].info("replication");
        let field = |info: &str, name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            let of_name = lines.find(|(other, _)| *other == name);
            of_name.map(|(_, value)| value.to_owned())
        };
        let offset = |info: &str, name: &str| field(info, name)?.parse::<u64>().ok();
        let history = field(&made, "master_replid");
        let made = offset(&made, "master_repl_offset");
        eventually(START, "the replica has what was made", || {
            let has = replica.info("replication");
            has.contains("master_link_status:up")
                && field(&has, "master_replid") == history
                && offset(&has, "slave_repl_offset") >= made
        });
    }

    /// `redis-cluster://`, with the primaries of the start as seeds.
    pub fn url(&self) -> String {
        url(self.nodes.iter().map(Server::node_port))
    }

    /// The nodes: the primaries of the start, then their replicas.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The name of a node in the cluster.
    #[track_caller]
    pub fn id(&self, node: usize) -> String {
        text(self.nodes[node].cli(&["CLUSTER", "MYID"]))
    }

    /// The slot of a key, as a node says.
    #[track_caller]
    pub fn slot_of(&self, key: &str) -> u16 {
        let slot = self.any_cli(&["CLUSTER", "KEYSLOT", key]);
        redis::from_redis_value(slot).expect("a slot is a number")
    }

    /// Which node has a slot, as most of those that answer say.
    #[track_caller]
    pub fn owner(&self, slot: u16) -> usize {
        let mut votes = vec![0; self.nodes.len()];
        for node in &self.nodes {
            let Ok(slots) = node.try_cli(&["CLUSTER", "SLOTS"]) else {
                continue;
            };
            let owner = port_of(&slots, slot);
            let owner = owner.and_then(|port| self.nodes.iter().position(|of| of.port() == port));
            if let Some(owner) = owner {
                votes[owner] += 1;
            }
        }
        let most = (0..votes.len()).max_by_key(|node| votes[*node]);
        most.filter(|node| votes[*node] > 0)
            .unwrap_or_else(|| panic!("nobody has the slot {slot}"))
    }

    /// Which node has a slot, as soon as all nodes that answer say so, and know of each other's
    /// last moves. Before that a slot must not be moved: a node that takes one over calls itself
    /// newer than what it knows of, and if it is not, it loses the slot again, and its keys with
    /// it.
    #[track_caller]
    pub fn agreed_owner(&self, slot: u16) -> usize {
        eventually_some(START, "the nodes agree", || {
            let owner = self.owner(slot);
            let port = self.nodes[owner].port();
            let mut epochs = Vec::new();
            for node in &self.nodes {
                let Ok(slots) = node.try_cli(&["CLUSTER", "SLOTS"]) else {
                    continue;
                };
                if port_of(&slots, slot) != Some(port) {
                    return None;
                }
                let info = text(node.try_cli(&["CLUSTER", "INFO"]).ok()?);
                let epoch =
                    |line: &str| Some(line.strip_prefix("cluster_current_epoch:")?.to_owned());
                epochs.push(info.lines().find_map(epoch)?);
            }
            epochs
                .windows(2)
                .all(|pair| pair[0] == pair[1])
                .then_some(owner)
        })
    }

    /// Which node is a replica of another one now.
    #[track_caller]
    pub fn replica_of(&self, primary: usize) -> usize {
        let id = self.id(primary);
        let follows = |node: &Server| {
            let nodes = node.try_cli(&["CLUSTER", "NODES"]).map(text);
            nodes.is_ok_and(|nodes| {
                let own = nodes.lines().find(|line| line.contains("myself"));
                own.is_some_and(|own| own.split(' ').nth(3) == Some(id.as_str()))
            })
        };
        let replica = self.nodes.iter().position(follows);
        replica.unwrap_or_else(|| panic!("node {primary} has no replica"))
    }

    /// Begins to move a slot to another primary.
    #[track_caller]
    pub fn begin_move(&self, slot: u16, to: usize) -> SlotMove<'_> {
        let (slot_name, target) = (slot.to_string(), self.id(to));
        let set = ["CLUSTER", "SETSLOT", &slot_name];
        let from = self.agreed_owner(slot);
        assert_ne!(from, to, "the slot {slot} is there already");
        let source = self.id(from);
        self.nodes[to].cli(&[&set[..], &["IMPORTING", &source]].concat());
        self.nodes[from].cli(&[&set[..], &["MIGRATING", &target]].concat());
        SlotMove {
            cluster: self,
            slot,
            from,
            to,
        }
    }

    /// Moves a slot to another primary, some keys at a time, as `redis-cli` does.
    #[track_caller]
    pub fn move_slot(&self, slot: u16, to: usize) {
        if self.agreed_owner(slot) == to {
            return;
        }
        let moving = self.begin_move(slot, to);
        while moving.migrate_some(10) > 0 {}
        moving.settle();
    }

    /// Moves slots at once, as only Valkey from 9 on can, and waits until that is done.
    #[track_caller]
    pub fn move_slots_atomically(&self, slots: Range<u16>, to: usize) {
        let from = self.owner(slots.start);
        let (first, last) = (slots.start.to_string(), (slots.end - 1).to_string());
        let command = [
            "CLUSTER",
            "MIGRATESLOTS",
            "SLOTSRANGE",
            &first,
            &last,
            "NODE",
        ];
        self.nodes[from].cli(&[&command[..], &[&self.id(to)]].concat());
        eventually(START, "the slots were moved", || {
            self.owner(slots.start) == to
        });
    }

    /// Lets a slot change hands without its keys: the new primary has it by a higher epoch, and the
    /// old one keeps what it had.
    #[track_caller]
    pub fn take_slot_over(&self, slot: u16, to: usize) {
        let (slot, id) = (slot.to_string(), self.id(to));
        self.nodes[to].cli(&["CLUSTER", "BUMPEPOCH"]);
        self.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
    }

    /// Lets a replica take over in good order (`CLUSTER FAILOVER`), as where servers are replaced
    /// by newer ones: it is started anew, gets all that its primary has, takes over, and all nodes
    /// know it.
    #[track_caller]
    pub fn failover(&self, replica: usize) {
        let node = &self.nodes[replica];
        eventually(START * 3, "the replica has taken over", || {
            // For some seconds after an election of its own, a node would count those votes again:
            // it would take over without a new one, and lose its slots again, with what was
            // written to it meanwhile.
            node.kill();
            node.start();
            self.wait_ready();
            node.cli(&["CLUSTER", "FAILOVER"]);
            // The others may not have voted, since they have for this shard a short while ago:
            // then it gives up.
            let is_primary = || {
                let replication = node.info("replication");
                replication.contains("role:master").then_some(())
            };
            poll(GIVES_UP, is_primary).is_some()
        });
        self.wait_ready();
    }

    /// Cuts the replicas of a primary off from it: what is written from now on is lost with it.
    /// [`restore_replication`](Self::restore_replication) ends it.
    #[track_caller]
    pub fn cut_replication(&self, primary: usize) {
        let replica = &self.nodes[self.replica_of(primary)];
        replica.cli(&["CONFIG", "SET", "masterauth", "wrong"]);
        replica.cli(&["CONFIG", "SET", "masteruser", "nobody"]);
        let primary = &self.nodes[primary];
        eventually(START, "the replica is cut off", || {
            primary.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
            primary.info("replication").contains("connected_slaves:0")
        });
    }

    /// Lets all replicas follow their primaries again.
    #[track_caller]
    pub fn restore_replication(&self) {
        for node in &self.nodes {
            let _ = node.try_cli(&["CONFIG", "SET", "masteruser", ""]);
            let _ = node.try_cli(&["CONFIG", "SET", "masterauth", ""]);
        }
    }

    /// A proxy before each node, which `Builder::addresses` leads to.
    pub fn proxied(&self) -> ClusterProxies {
        ClusterProxies {
            proxies: self.nodes.iter().map(Proxy::to).collect(),
            ports: self.nodes.iter().map(Server::port).collect(),
        }
    }

    #[track_caller]
    fn any_cli(&self, command: &[&str]) -> Value {
        let answer = self
            .nodes
            .iter()
            .find_map(|node| node.try_cli(command).ok());
        answer.unwrap_or_else(|| panic!("nobody answers {command:?}"))
    }
}

impl SlotMove<'_> {
    /// Moves up to so many keys, and returns how many.
    #[track_caller]
    pub fn migrate_some(&self, count: usize) -> usize {
        let (slot, count) = (self.slot.to_string(), count.to_string());
        let keys = self
            .source()
            .cli(&["CLUSTER", "GETKEYSINSLOT", &slot, &count]);
        let keys: Vec<String> = redis::from_redis_value(keys).expect("keys are text");
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.migrate(&names);
        keys.len()
    }

    /// Moves these keys: of a key that a memory wrote, its sidecar is another one.
    #[track_caller]
    pub fn migrate(&self, keys: &[&str]) {
        if keys.is_empty() {
            return;
        }
        let port = self.cluster.nodes[self.to].node_port().to_string();
        let command = [
            "MIGRATE",
            "127.0.0.1",
            &port,
            "",
            "0",
            "5000",
            "REPLACE",
            "KEYS",
        ];
        self.source().cli(&[&command[..], keys].concat());
    }

    /// Ends the move: the slot is the other node's.
    #[track_caller]
    pub fn settle(self) {
        let (slot, id) = (self.slot.to_string(), self.cluster.id(self.to));
        let set = ["CLUSTER", "SETSLOT", &slot, "NODE", &id];
        // The target first, so that somebody has the slot all the time.
        self.cluster.nodes[self.to].cli(&set);
        self.source().cli(&set);
        for (number, node) in self.cluster.nodes.iter().enumerate() {
            // Replicas are told by their primaries; who is away learns it later.
            if number != self.to && number != self.from {
                let _ = node.try_cli(&set);
            }
        }
    }

    fn source(&self) -> &Server {
        &self.cluster.nodes[self.from]
    }
}

impl ClusterProxies {
    /// The proxies, in the order of [`Cluster::nodes`].
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// `redis-cluster://`, with the proxies as seeds.
    pub fn url(&self) -> String {
        url(self.proxies.iter().map(Proxy::port))
    }

    /// The port of each node, and of its proxy.
    pub fn ports(&self) -> impl Iterator<Item = (u16, u16)> {
        let proxies = self.proxies.iter().map(Proxy::port);
        self.ports.iter().copied().zip(proxies)
    }

    /// For `Builder::addresses`.
    pub fn addresses(&self) -> impl Fn(&str, u16) -> (String, u16) + Send + Sync + 'static {
        let ports: Vec<(u16, u16)> = self.ports().collect();
        move |host, port| {
            let proxy = ports.iter().find(|(of_node, _)| *of_node == port);
            (host.to_owned(), proxy.map_or(port, |(_, proxy)| *proxy))
        }
    }
}

fn node_of(program: fn() -> Builder) -> Builder {
    program()
        .cluster_node()
        .arg("cluster-node-timeout", "2000")
        .arg("cluster-require-full-coverage", "no")
        .arg("cluster-replica-validity-factor", "0")
        .arg("repl-ping-replica-period", "1")
        // A replica that comes is served at once, and not after 5 s in which others might come.
        .arg("repl-diskless-sync-delay", "0")
}

fn url(ports: impl Iterator<Item = u16>) -> String {
    let seeds: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    format!("redis-cluster://{}", seeds.join(","))
}

fn text(value: Value) -> String {
    redis::from_redis_value(value).expect("the answer is text")
}

/// The port of the primary of a slot, in an answer to CLUSTER SLOTS.
fn port_of(slots: &Value, slot: u16) -> Option<u16> {
    let layout = layout_of(slots);
    let of_slot = |(range, _): &&(RangeInclusive<i64>, i64)| range.contains(&i64::from(slot));
    let (_, port) = layout.iter().find(of_slot)?;
    u16::try_from(*port).ok()
}

/// Which slots are served at which port, in an answer to CLUSTER SLOTS; in order.
fn layout_of(slots: &Value) -> Vec<(RangeInclusive<i64>, i64)> {
    let Value::Array(ranges) = slots else {
        return Vec::new();
    };
    let range_of = |range: &Value| {
        let Value::Array(parts) = range else {
            return None;
        };
        let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = &parts[..] else {
            return None;
        };
        let Some(Value::Int(port)) = node.get(1) else {
            return None;
        };
        Some((*first..=*last, *port))
    };
    let mut layout: Vec<_> = ranges.iter().filter_map(range_of).collect();
    layout.sort_unstable_by_key(|(range, _)| *range.start());
    layout
}
