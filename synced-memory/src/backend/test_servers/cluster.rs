//! Clusters that a test starts.

use std::sync::Mutex;

use super::server::{Program, TestServer, eventually};

/// A cluster of primaries that share the slots out evenly.
pub(crate) struct TestCluster(pub(crate) Vec<TestServer>);

impl TestCluster {
    const OPTIONS: [(&str, &str); 3] = [
        ("cluster-enabled", "yes"),
        ("cluster-node-timeout", "2000"),
        ("cluster-require-full-coverage", "no"),
    ];

    /// Starts it without waiting until it serves.
    pub(crate) fn launch(program: Program, primaries: u16, options: &[(&str, &str)]) -> Self {
        let options = [&Self::OPTIONS[..], options].concat();
        let nodes: Vec<_> = (0..primaries)
            .map(|_| TestServer::launch(program, &options))
            .collect();
        let slots = 16_384 / primaries;
        for (number, node) in (0..primaries).zip(&nodes) {
            node.wait();
            let end = if number + 1 == primaries {
                16_384
            } else {
                (number + 1) * slots
            };
            let own: Vec<_> = (number * slots..end).map(|slot| slot.to_string()).collect();
            node.ask::<()>(&format!("CLUSTER ADDSLOTS {}", own.join(" ")));
            node.ask::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1));
        }
        for node in &nodes[1..] {
            nodes[0].ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {}", node.port));
        }
        Self(nodes)
    }

    pub(crate) fn start(program: Program, primaries: u16, options: &[(&str, &str)]) -> Self {
        let cluster = Self::launch(program, primaries, options);
        cluster.wait();
        cluster
    }

    /// A cluster of one primary. A node serves only two seconds after its start: so some are
    /// started at once, and those that nobody needs end with this process.
    pub(crate) fn of_one() -> Self {
        const AT_ONCE: usize = 6;
        static LAUNCHED: Mutex<Vec<TestCluster>> = Mutex::new(Vec::new());

        let cluster = {
            let mut launched = LAUNCHED.lock().unwrap();
            if launched.is_empty() {
                let one = |_| Self::launch(Program::Redis, 1, &[]);
                launched.extend((0..AT_ONCE).map(one));
            }
            launched.pop().expect("some were just launched")
        };
        cluster.wait();
        cluster
    }

    /// Waits until every node serves, and knows all others.
    pub(crate) fn wait(&self) {
        let known = format!("cluster_known_nodes:{}\r\n", self.0.len());
        eventually("the cluster serves", || {
            let is_ready = |node: &TestServer| {
                let info: String = node.ask("CLUSTER INFO");
                let is_whole = info.contains("cluster_slots_ok:16384\r\n");
                is_whole && info.contains("cluster_state:ok") && info.contains(&known)
            };
            self.0.iter().all(is_ready).then_some(())
        });
    }

    /// The name of a node in the cluster.
    pub(crate) fn id(&self, node: usize) -> String {
        self.0[node].ask("CLUSTER MYID")
    }

    /// Begins to move a slot.
    pub(crate) fn open_slot(&self, slot: u16, from: usize, to: usize) {
        let (source, target) = (self.id(from), self.id(to));
        self.0[to].ask::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}"));
        self.0[from].ask::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}"));
    }

    /// Moves these keys.
    pub(crate) fn migrate(&self, keys: &[&str], from: usize, to: usize) {
        let port = self.0[to].port;
        let keys = keys.join(" ");
        let answer: String =
            self.0[from].ask(&format!("MIGRATE 127.0.0.1 {port}  0 5000 KEYS {keys}"));
        assert_eq!(answer, "OK", "{keys}");
    }

    /// Ends the move of a slot.
    pub(crate) fn settle_slot(&self, slot: u16, to: usize) {
        let target = self.id(to);
        // The target first, so that somebody has the slot all the time.
        for node in [to]
            .into_iter()
            .chain((0..self.0.len()).filter(|node| *node != to))
        {
            self.0[node].ask::<()>(&format!("CLUSTER SETSLOT {slot} NODE {target}"));
        }
    }
}
