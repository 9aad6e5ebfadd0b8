//! Sessions and layouts on real clusters: what is answered while slots move, and by whom.

use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::{ClusterBackend, ClusterTarget};
use crate::backend::commit::{Attempt, Expects, KeyChange, Outcome, TimeToLive};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::layout::{ClusterLayout, LayoutQuery, Node, Redirect, slot_of};
use crate::backend::redis::{RedisBackend, SessionOptions};
use crate::backend::sidecar::sidecar;
use crate::backend::test_servers::cluster::TestCluster;
use crate::backend::test_servers::server::{Program, TestServer, eventually, free_port};
use crate::backend::{Backend, Invalidation, KeyRead, LARGE_VALUE, ReadKind, Session, SizeHint};
use crate::base::address_map::AddressMap;
use crate::base::clock::{self, Deadline, Stamp};
use crate::base::settings::Settings;

/// How long a node may be silent.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long a session reports nothing before nothing more is expected of it.
const QUIET: Duration = Duration::from_millis(100);

/// A cluster, and how it is connected to.
struct Clustered {
    cluster: TestCluster,
    backend: ClusterBackend,
    runtime: Runtime,
}

impl Clustered {
    fn new(cluster: TestCluster) -> Self {
        let target = ClusterTarget::of_ports(cluster.0.iter().map(|server| server.port));
        Self {
            backend: backend(target),
            cluster,
            runtime: runtime(),
        }
    }

    fn connect(&self, number: usize) -> TestedSession<'_> {
        let node = self.cluster.0[number].node();
        TestedSession {
            runtime: &self.runtime,
            inner: self.runtime.block_on(self.backend.connect(&node)).unwrap(),
        }
    }

    fn layout(&self, known: &[Node], query: LayoutQuery) -> ClusterLayout {
        layout(&self.runtime, &self.backend, known, query).unwrap()
    }
}

fn backend(target: ClusterTarget) -> ClusterBackend {
    let settings = Settings {
        timeout: TIMEOUT,
        ..Settings::default()
    };
    ClusterBackend::new(target, "test", &settings).unwrap()
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn layout(
    runtime: &Runtime,
    backend: &ClusterBackend,
    known: &[Node],
    query: LayoutQuery,
) -> Result<ClusterLayout, BackendError> {
    runtime.block_on(backend.layout(known, query))
}

/// A session whose answers are waited for.
struct TestedSession<'a> {
    runtime: &'a Runtime,
    inner: Box<dyn Session>,
}

type Committed = Result<Outcome, BackendError>;

impl TestedSession<'_> {
    fn commit_all(&self, batch: &[Attempt]) -> Vec<Committed> {
        let answers = self.inner.commit(batch, clock::wall());
        self.runtime.block_on(answers).unwrap()
    }

    fn commit(&self, attempt: &Attempt) -> Committed {
        self.commit_all(std::slice::from_ref(attempt)).remove(0)
    }

    fn read(&self, read: &KeyRead) -> Result<Option<Bytes>, BackendError> {
        let answers = self.inner.read(std::slice::from_ref(read));
        let answer = self.runtime.block_on(answers).unwrap().remove(0);
        answer.map(|(stored, _)| stored.map(|stored| stored.to_bytes()))
    }

    fn read_apart(&self, key: &str, asking: bool) -> Result<Option<Bytes>, BackendError> {
        let answer = self.inner.read_apart(&key.into(), asking);
        let answer = self.runtime.block_on(answer);
        answer.map(|(stored, _)| stored.map(|stored| stored.to_bytes()))
    }

    /// What is reported until nothing is for a while.
    fn reported(&self) -> Vec<String> {
        let mut reported = Vec::new();
        let next = || async { tokio::time::timeout(QUIET, self.inner.invalidations()).await };
        while let Ok(invalidation) = self.runtime.block_on(next()) {
            match invalidation.unwrap() {
                Invalidation::Keys(keys) => reported.extend(keys.iter().map(ToString::to_string)),
                Invalidation::All => panic!("nothing was dropped"),
            }
        }
        reported
    }
}

/// A write of a key that nobody else writes.
fn put(key: &str, sequence: u64) -> Attempt {
    put_value(key, sequence, "1")
}

fn put_value(key: &str, sequence: u64, value: &str) -> Attempt {
    let envelope = format!(r#"{{"value": {value},"last_modified": {sequence}}}"#);
    Attempt {
        key: key.into(),
        writer: 1,
        sequence,
        stamp: Stamp::new(sequence),
        change: KeyChange::Put {
            envelope: envelope.into(),
            ttl: TimeToLive::Keep,
        },
        expects: Expects::Anything,
        retry: None,
        recorded: None,
        asking: false,
    }
}

fn delete(key: &str, sequence: u64) -> Attempt {
    Attempt {
        change: KeyChange::Delete,
        ..put(key, sequence)
    }
}

fn asked(attempt: Attempt) -> Attempt {
    Attempt {
        asking: true,
        ..attempt
    }
}

/// What a commit was answered.
fn kind(answer: &Committed) -> Option<BackendErrorKind> {
    match answer {
        Ok(Outcome::Applied { .. }) => None,
        Ok(other) => panic!("{other:?}"),
        Err(error) => Some(error.kind),
    }
}

/// Where a request is sent.
fn sent_to(slot: u16, to: &TestServer) -> Redirect {
    let node = to.node();
    Redirect { slot, node }
}

/// In one slot, of the first node.
const TAG: &str = "{b}";

#[test]
fn a_script_at_both_ends_of_a_move_runs_only_where_both_its_keys_are() {
    use BackendErrorKind::{Ask, Moved, TryAgain};

    for program in Program::ALL {
        let tested = Clustered::new(TestCluster::start(program, 2, &[]));
        let (source, target) = (tested.connect(0), tested.connect(1));
        let slot = slot_of(TAG);
        let name = |name: &str| format!("{TAG}{name}");
        let names = [
            "stays",
            "moved",
            "key left",
            "sidecar left",
            "deleted",
            "deleted moved",
        ];
        let keys = names.map(|of| name(&of.replace(' ', "_")));
        let [stays, moved, key_left, sidecar_left, deleted, deleted_moved] = &keys;
        for key in &keys {
            assert_eq!(kind(&source.commit(&put(key, 1))), None, "{program:?}");
        }
        for key in [deleted, deleted_moved] {
            assert_eq!(kind(&source.commit(&delete(key, 2))), None);
        }
        let (foreign, new) = (name("foreign"), name("new"));
        tested.cluster.0[0].ask::<()>(&format!("SET {foreign} 5"));

        tested.cluster.open_slot(slot, 0, 1);
        let sidecars = [moved, key_left, deleted_moved].map(|key| sidecar(key));
        let [of_moved, of_key_left, of_deleted_moved] = sidecars.each_ref().map(|key| &**key);
        tested.cluster.migrate(
            &[moved, of_moved, sidecar_left, of_key_left, of_deleted_moved],
            0,
            1,
        );

        // Redis 6.2 looks only at the first key that it lacks.
        let split = if program == Program::Redis6 {
            Ask
        } else {
            TryAgain
        };
        for (key, at_source, at_target) in [
            (stays, None, None),
            (moved, Some(Ask), None),
            (key_left, Some(split), Some(TryAgain)),
            (sidecar_left, Some(split), Some(TryAgain)),
            (deleted, Some(split), Some(TryAgain)),
            (deleted_moved, Some(Ask), Some(TryAgain)),
            (&foreign, Some(split), Some(TryAgain)),
            (&new, Some(Ask), Some(TryAgain)),
        ] {
            let answer = source.commit(&put(key, 3));
            assert_eq!(kind(&answer), at_source, "{program:?}: {key} at the source");
            if at_source == Some(Ask) {
                let found = answer.unwrap_err().redirect;
                assert_eq!(found.as_deref(), Some(&sent_to(slot, &tested.cluster.0[1])));
            }
            if key != stays {
                let answer = target.commit(&asked(put(key, 4)));
                assert_eq!(kind(&answer), at_target, "{program:?}: {key} at the target");
            }
            let answer = target.commit(&put(key, 5));
            assert_eq!(kind(&answer), Some(Moved), "{key}: not asked for");
            let found = answer.unwrap_err().redirect;
            assert_eq!(found.as_deref(), Some(&sent_to(slot, &tested.cluster.0[0])));
        }

        let others = [
            stays,
            key_left,
            &sidecar(stays),
            &sidecar(sidecar_left),
            &foreign,
        ];
        let others: Vec<_> = others.iter().map(|key| key.as_str()).collect();
        tested.cluster.migrate(&others, 0, 1);
        let of_deleted = sidecar(deleted);
        tested.cluster.migrate(&[&of_deleted], 0, 1);
        tested.cluster.settle_slot(slot, 1);
        for key in keys.iter().chain([&foreign, &new]) {
            let answer = source.commit(&put(key, 6));
            assert_eq!(kind(&answer), Some(Moved), "{program:?}: {key}");
            let found = answer.unwrap_err().redirect;
            assert_eq!(found.as_deref(), Some(&sent_to(slot, &tested.cluster.0[1])));
            assert_eq!(
                kind(&target.commit(&put(key, 7))),
                None,
                "{program:?}: {key}"
            );
        }
    }
}

#[test]
fn what_was_moved_is_read_where_it_is_and_never_tracked_by_an_asked_read() {
    for program in Program::ALL {
        let tested = Clustered::new(TestCluster::start(program, 2, &[]));
        let (source, target) = (tested.connect(0), tested.connect(1));
        for session in [&source, &target] {
            tested.runtime.block_on(session.inner.track()).unwrap();
        }
        let slot = slot_of(TAG);
        let (small, large) = (format!("{TAG}small"), format!("{TAG}large"));
        let value = format!("\"{}\"", "x".repeat(LARGE_VALUE));
        assert_eq!(kind(&source.commit(&put(&small, 1))), None);
        assert_eq!(kind(&source.commit(&put_value(&large, 1, &value))), None);
        let stored = source.read(&KeyRead::new(&small.as_str().into(), ReadKind::Through));
        let stored = stored.unwrap().expect("it was just written");
        tested.cluster.open_slot(slot, 0, 1);
        tested.cluster.migrate(&[&small, &large], 0, 1);

        let to_target = sent_to(slot, &tested.cluster.0[1]);
        for kind in [ReadKind::Through, ReadKind::Tracked] {
            for size in [SizeHint::Small, SizeHint::Unknown] {
                let mut read = KeyRead {
                    size,
                    ..KeyRead::new(&small.as_str().into(), kind)
                };
                let error = source.read(&read).unwrap_err();
                assert_eq!(error.kind, BackendErrorKind::Ask, "{program:?} {read:?}");
                assert_eq!(error.redirect.as_deref(), Some(&to_target));
                let error = target.read(&read).unwrap_err();
                assert_eq!(error.kind, BackendErrorKind::Moved, "{program:?} {read:?}");
                read.asking = true;
                let found = target.read(&read);
                assert_eq!(found.unwrap(), Some(stored.clone()), "{program:?} {read:?}");
                let missing = KeyRead {
                    key: format!("{TAG}missing").into(),
                    ..read
                };
                assert_eq!(target.read(&missing).unwrap(), None, "{program:?}");
            }
        }

        // In one request with reads of keys that this node has.
        let own = "{a}own";
        assert_eq!(kind(&target.commit(&put(own, 1))), None);
        let tracked = |key: &str, asking| KeyRead {
            size: SizeHint::Small,
            asking,
            ..KeyRead::new(&key.into(), ReadKind::Tracked)
        };
        let reads = [
            tracked(own, false),
            tracked(&small, true),
            tracked(own, false),
        ];
        let answers = tested.runtime.block_on(target.inner.read(&reads)).unwrap();
        assert!(
            answers.iter().all(Result::is_ok),
            "{program:?}: {answers:?}"
        );
        target.reported();
        let admin = &tested.cluster.0[1];
        admin.ask::<()>("ASKING");
        admin.ask::<()>(&format!("SET {small} 7"));
        admin.ask::<()>(&format!("SET {own} 7"));
        assert_eq!(target.reported(), [own], "{program:?}");

        let error = source.read_apart(&large, false).unwrap_err();
        assert_eq!(error.kind, BackendErrorKind::Ask, "{program:?}");
        assert_eq!(error.redirect.as_deref(), Some(&to_target));
        let found = target.read_apart(&large, true).unwrap();
        assert!(
            found.is_some_and(|found| found.len() > LARGE_VALUE),
            "{program:?}"
        );
        let read = KeyRead {
            asking: true,
            ..KeyRead::new(&large.as_str().into(), ReadKind::Through)
        };
        let error = target.read(&read).unwrap_err();
        assert_eq!(error.kind, BackendErrorKind::TooLarge, "{program:?}");
    }
}

#[test]
fn a_batch_is_calls_of_one_slot_each_and_a_slot_on_the_move_is_called_key_by_key() {
    let tested = Clustered::new(TestCluster::start(Program::Redis, 2, &[]));
    let source = tested.connect(0);
    let server = &tested.cluster.0[0];
    let slot = slot_of(TAG);
    let other = (0..100).map(|n| format!("{{{n}}}")).find(|tag| {
        let of_tag = slot_of(tag);
        of_tag < 8_192 && of_tag != slot
    });
    let other = other.unwrap();
    // Alternating, so that no two of a slot follow each other.
    let keys = |n: u64| [format!("{TAG}{n}"), format!("{other}{n}")];
    let batch = |sequence| -> Vec<_> {
        let keys = (0..40).flat_map(keys);
        keys.map(|key| put(&key, sequence)).collect()
    };
    let calls = || server.calls_of("evalsha") + server.calls_of("eval");
    server.ask::<()>("CONFIG RESETSTAT");
    let answers = source.commit_all(&batch(1));
    assert!(answers.iter().all(|answer| kind(answer).is_none()));
    assert_eq!(calls(), 4, "two of 32 and two of 8");

    // One key of a slot is half at the other node: a call for it and others is refused.
    tested.cluster.open_slot(slot, 0, 1);
    tested.cluster.migrate(&[&format!("{TAG}7")], 0, 1);
    let refused = |sequence| -> Vec<_> {
        let batch = batch(sequence);
        let answers = source.commit_all(&batch);
        let all = batch.iter().zip(answers);
        all.filter(|(_, answer)| kind(answer).is_some())
            .map(|(attempt, answer)| (attempt.key.to_string(), kind(&answer).unwrap()))
            .collect()
    };
    let first = refused(2);
    assert_eq!(first.len(), 32, "as many as were in its call: {first:?}");
    assert!(
        first
            .iter()
            .all(|(_, kind)| *kind == BackendErrorKind::TryAgain)
    );
    let second = refused(3);
    let expected = [(format!("{TAG}7"), BackendErrorKind::TryAgain)];
    assert_eq!(second, expected, "the others were tried by themselves");
}

#[test]
fn the_layout_is_what_the_nodes_say_and_a_node_that_hangs_is_not_waited_for() {
    for program in [Program::Redis, Program::Redis6] {
        let tested = Clustered::new(TestCluster::start(program, 3, &[]));
        let nodes: Vec<_> = tested.cluster.0.iter().map(TestServer::node).collect();
        let first = tested.layout(&[], LayoutQuery::Vote);
        assert_eq!(first.nodes, nodes, "in the order of their slots");
        let owner = |layout: &ClusterLayout, slot: u16| {
            let index = layout.slots[usize::from(slot)].expect("somebody has it");
            layout.nodes[usize::from(index)].clone()
        };
        assert_eq!(owner(&first, 0), nodes[0]);
        assert_eq!(owner(&first, 16_383), nodes[2]);
        for query in [LayoutQuery::Glance, LayoutQuery::WithMoves] {
            assert_eq!(tested.layout(&nodes, query), first, "{query:?}");
            assert_eq!(tested.layout(&[], query), first, "{query:?}");
        }

        let slot = slot_of(TAG);
        tested.cluster.open_slot(slot, 0, 1);
        for known in [&nodes[..], &nodes[..1], &[]] {
            let layout = tested.layout(known, LayoutQuery::WithMoves);
            assert!(layout.is_moving, "{known:?}");
            assert_eq!(layout.slots, first.slots, "{known:?}");
        }
        assert!(
            !tested.layout(&nodes, LayoutQuery::Vote).is_moving,
            "not asked"
        );
        tested.cluster.settle_slot(slot, 1);
        let settled = tested.layout(&nodes, LayoutQuery::WithMoves);
        assert!(!settled.is_moving);
        assert_eq!(owner(&settled, slot), nodes[1]);

        // Over the connections of sessions, and over others.
        let sessions: Vec<_> = (0..3).map(|number| tested.connect(number)).collect();
        for sessions in [sessions, Vec::new()] {
            let frozen = tested.cluster.0[2].freeze();
            for query in [LayoutQuery::Vote, LayoutQuery::Vote, LayoutQuery::WithMoves] {
                let end = Deadline::after(TIMEOUT);
                let layout = tested.layout(&nodes, query);
                assert!(!end.remaining().is_zero(), "{query:?}");
                assert_eq!(layout.slots, settled.slots);
                // Nobody knows whether the silent one is moving anything.
                assert_eq!(layout.is_moving, query == LayoutQuery::WithMoves);
            }
            for _ in 0..3 {
                let end = Deadline::after(TIMEOUT);
                assert_eq!(tested.layout(&nodes, LayoutQuery::Glance), settled);
                assert!(!end.remaining().is_zero());
            }
            drop((frozen, sessions));
        }
    }
}

#[test]
fn a_seed_that_does_not_answer_is_no_error_and_nobody_is_one() {
    let tested = Clustered::new(TestCluster::start(Program::Redis, 2, &[]));
    let ports = tested.cluster.0.iter().map(|server| server.port);
    let ports: Vec<_> = ports.collect();
    let dead = free_port();
    // A listener that accepts nothing beyond its backlog hangs as a host behind a firewall does.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = hanging.local_addr().unwrap().port();

    let seeds = ClusterTarget::of_ports([dead, silent, ports[1]]);
    let end = Deadline::after(TIMEOUT);
    let found = layout(&tested.runtime, &backend(seeds), &[], LayoutQuery::Vote).unwrap();
    assert!(!end.remaining().is_zero());
    assert_eq!(found, tested.layout(&[], LayoutQuery::Vote));

    let seeds = backend(ClusterTarget::of_ports([dead, silent]));
    let error = layout(&tested.runtime, &seeds, &[], LayoutQuery::Vote).unwrap_err();
    assert_eq!(error.kind, BackendErrorKind::ConnectionLost, "{error}");
    let expected = "none of the 2 servers of redis-cluster://test answers: ";
    assert!(error.to_string().starts_with(expected), "{error}");

    // The nodes that were known are gone, and a seed is there again.
    let gone = Node {
        host: "127.0.0.1".into(),
        port: dead,
    };
    for query in [
        LayoutQuery::Glance,
        LayoutQuery::Vote,
        LayoutQuery::WithMoves,
    ] {
        assert_eq!(tested.layout(std::slice::from_ref(&gone), query), found);
    }
}

#[test]
fn the_wrong_scheme_for_the_server_is_rejected_with_the_one_to_write() {
    let runtime = runtime();
    for program in Program::ALL {
        let alone = TestServer::start(program, &[]);
        let seeds = backend(ClusterTarget::of_ports([alone.port]));
        let error = layout(&runtime, &seeds, &[], LayoutQuery::Vote).unwrap_err();
        assert_eq!(
            error.kind,
            BackendErrorKind::Rejected,
            "{program:?}: {error}"
        );
        assert!(
            error.to_string().contains("write redis://host:port"),
            "{error}"
        );

        let cluster = TestCluster::start(program, 2, &[]);
        let single = single_backend(&cluster.0[0], 0);
        let error = runtime.block_on(single.connect(&Node::only())).unwrap_err();
        assert_eq!(
            error.kind,
            BackendErrorKind::Rejected,
            "{program:?}: {error}"
        );
        let expected = "write redis-cluster://host:port";
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_cluster_of_one_primary_is_a_server_and_what_it_sends_elsewhere_later_is_not_refused_for_good()
{
    let cluster = TestCluster::of_one();
    let server = &cluster.0[0];
    let runtime = runtime();
    let single = single_backend(server, 0);
    let session = TestedSession {
        inner: runtime.block_on(single.connect(&Node::only())).unwrap(),
        runtime: &runtime,
    };
    assert_eq!(kind(&session.commit(&put("a", 1))), None);
    // A call for keys of several slots is refused once; then they go one by one.
    let batch = [put("b", 1), put("c", 1)];
    let answers = session.commit_all(&batch);
    let kinds = answers.iter().map(kind);
    assert!(kinds.eq([Some(BackendErrorKind::Retry); 2]), "{answers:?}");
    let answers = session.commit_all(&batch);
    assert!(answers.iter().map(kind).eq([None; 2]), "{answers:?}");

    let other = TestCluster::of_one();
    let second = &other.0[0];
    second.ask::<()>("CLUSTER RESET HARD");
    server.ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {}", second.port));
    let id: String = second.ask("CLUSTER MYID");
    // A slot without keys.
    let assign = format!("CLUSTER SETSLOT {} NODE {id}", slot_of("d"));
    eventually("the node knows the other one", || {
        server.try_ask::<()>(&assign).ok()
    });
    let error = session.commit(&put("d", 2)).unwrap_err();
    assert_eq!(error.code(), Some("MOVED"), "{error}");
    assert_eq!(error.kind, BackendErrorKind::Unavailable);
    assert!(error.redirect.is_none());
    let read = KeyRead::new(&"d".into(), ReadKind::Through);
    let error = session.read(&read).unwrap_err();
    assert_eq!(error.kind, BackendErrorKind::Unavailable, "{error}");
}

fn single_backend(server: &TestServer, replicas: u16) -> RedisBackend {
    use ::redis::{ConnectionAddr, IntoConnectionInfo};

    let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), server.port);
    let options = SessionOptions {
        timeout: TIMEOUT,
        sidecar_ttl: Duration::from_secs(3600),
        replicas,
    };
    let target = format!("redis://127.0.0.1:{}/0", server.port);
    let server = address.into_connection_info().unwrap();
    RedisBackend::new(&server, target, String::new(), None, options)
}

#[test]
fn nodes_are_reached_by_the_addresses_that_they_announce_or_as_these_are_mapped() {
    for program in [Program::Redis, Program::Valkey] {
        let tested = Clustered::new(TestCluster::start(program, 2, &[]));
        let ports: Vec<_> = tested.cluster.0.iter().map(|server| server.port).collect();
        let nodes = |host: &str| {
            let node = |port: &u16| Node {
                host: host.into(),
                port: *port,
            };
            ports.iter().map(node).collect::<Vec<_>>()
        };
        let in_layout = |host: &str| {
            let what = format!("{program:?}: the nodes are called {host}");
            eventually(&what, || {
                let layout = tested.layout(&[], LayoutQuery::Vote);
                (layout.nodes == nodes(host)).then_some(())
            });
        };
        let source = tested.connect(0);
        // It is the other node that has it.
        let moved = |host: &str| {
            let what = format!("{program:?}: MOVED leads to {host}");
            eventually(&what, || {
                let error = source.commit(&put("{a}", 1)).unwrap_err();
                assert_eq!(error.kind, BackendErrorKind::Moved);
                let node = error.redirect.map(|redirect| redirect.node);
                (node.as_ref() == Some(&nodes(host)[1])).then_some(())
            });
        };
        in_layout("127.0.0.1");
        moved("127.0.0.1");

        for server in &tested.cluster.0 {
            server.ask::<()>("CONFIG SET cluster-preferred-endpoint-type unknown-endpoint");
        }
        in_layout("127.0.0.1");
        moved("127.0.0.1");
        let error = source.commit(&put("{a}", 1)).unwrap_err();
        assert!(error.to_string().contains(" :"), "no host: {error}");

        for server in &tested.cluster.0 {
            server.ask::<()>("CONFIG SET cluster-announce-hostname localhost");
            server.ask::<()>("CONFIG SET cluster-preferred-endpoint-type hostname");
        }
        in_layout("localhost");
        moved("localhost");

        let target = ClusterTarget {
            addresses: Some(AddressMap::new(|host, port| {
                assert_eq!(host, "localhost");
                ("mapped".to_owned(), port)
            })),
            ..ClusterTarget::of_ports(ports.clone())
        };
        let mapped = backend(target);
        let layout = layout(&tested.runtime, &mapped, &[], LayoutQuery::Vote).unwrap();
        assert_eq!(layout.nodes, nodes("mapped"));
        let node = tested.cluster.0[0].node();
        let source = TestedSession {
            inner: tested.runtime.block_on(mapped.connect(&node)).unwrap(),
            runtime: &tested.runtime,
        };
        let error = source.commit(&put("{a}", 1)).unwrap_err();
        let node = error.redirect.map(|redirect| redirect.node);
        assert_eq!(node, Some(nodes("mapped")[1].clone()));
    }
}

#[test]
fn a_write_that_is_on_too_few_replicas_is_in_doubt_until_it_is_on_enough() {
    for program in Program::ALL {
        let (primary, replica) = (
            TestServer::start(program, &[]),
            TestServer::start(program, &[]),
        );
        replica.ask::<()>(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        eventually("the replica follows", || {
            let info: String = primary.ask("INFO replication");
            info.contains("state=online").then_some(())
        });
        let runtime = runtime();
        let backend = single_backend(&primary, 1);
        let connect = || TestedSession {
            inner: runtime.block_on(backend.connect(&Node::only())).unwrap(),
            runtime: &runtime,
        };
        let session = connect();
        let mut sequence = 0;
        eventually("the replica acknowledges", || {
            sequence += 1;
            let answer = session.commit(&put("a", sequence));
            kind(&answer).is_none().then_some(())
        });

        let frozen = replica.freeze();
        let answers = session.commit_all(&[put("b", 1), put("a", sequence + 1)]);
        let under = BackendErrorKind::UnderReplicated;
        let kinds = answers.iter().map(kind);
        assert!(kinds.eq([Some(under); 2]), "{program:?}: {answers:?}");
        // What was not made is answered as ever.
        let older = Attempt {
            writer: 2,
            ..put("b", 1)
        };
        let refused = session.commit(&older);
        assert!(
            matches!(refused, Ok(Outcome::Refused(_))),
            "{program:?}: {refused:?}"
        );

        // The same over another connection, which has written nothing yet.
        let retry = Attempt {
            retry: Some(Duration::ZERO),
            ..put("b", 1)
        };
        let other = connect();
        let answer = other.commit(&retry);
        assert_eq!(kind(&answer), Some(under), "{program:?}: {answer:?}");
        drop(frozen);
        let answer = other.commit(&retry);
        assert!(
            matches!(answer, Ok(Outcome::AlreadyApplied(_))),
            "{program:?}: {answer:?}"
        );
        assert_eq!(
            replica.ask::<String>("GET b"),
            primary.ask::<String>("GET b")
        );
    }
}
