//! A cluster of three primaries: writes of distinct keys behind, and through reads, against the
//! async cluster client of redis-rs with the same script.
//!
//! `cargo bench -p synced-memory-benches --bench cluster`

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use redis::AsyncCommands;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use support::{Cluster, Server};
use synced_memory::{Key, Memory, SyncedMemory};
use synced_memory_benches::{Side, medians, print, report};
use tokio::runtime::Runtime;

const ROUNDS: usize = 15;
const READS: u32 = 2_000;
const KEYS: u32 = 4_000;
/// How many writes the peer has under way.
const IN_FLIGHT: usize = 512;
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(SyncedMemory)]
struct Counter {
    #[synced(behind, default)]
    number: u64,
}

fn main() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let memory = Memory::builder()
        .url(cluster.url())
        .timeout(Duration::from_secs(5))
        .build()
        .expect("the cluster is there");
    let script = script(&cluster, &memory);
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let client = ClusterClient::new(vec![cluster.nodes()[0].url()]).expect("a URL");
    let connection = background
        .block_on(client.get_async_connection())
        .expect("the cluster is there");

    let counters: Vec<_> = (0..KEYS)
        .map(|n| Counter::attach(&memory.scope(&format!("distinct{n}"))))
        .collect();
    let mut round = 0;
    let mut stamp = 1_719_400_000_000_000_000;
    let mut writes: Vec<Side<'_>> = vec![
        (
            "behind sets of distinct keys, until delivered",
            Box::new(|count| {
                round += 1;
                for counter in counters.iter().take(count as usize) {
                    counter.set_number(round).expect("there is room");
                }
                memory.flush(DEADLINE).expect("the cluster is there");
            }),
        ),
        (
            "the same script, cluster_async, 512 in flight",
            Box::new(|count| {
                stamp += 1;
                let (connection, script) = (&connection, &script);
                background.block_on(async move {
                    stream::iter(0..count)
                        .for_each_concurrent(IN_FLIGHT, |n| {
                            script.write(connection.clone(), n, stamp)
                        })
                        .await;
                });
            }),
        ),
    ];
    let figures = medians(ROUNDS, KEYS, &mut writes);
    print(&writes, &figures);
    report(
        "cluster: cluster_async / behind sets of distinct keys, three primaries",
        figures[1] / figures[0],
        ">= 1.2",
    );
    drop(writes);

    let key = Key::<u64>::new("number");
    memory.set(&key, 1).expect("the cluster is there");
    let value = memory.synced(&key);
    let runtime = runtime();
    let of_runtime = runtime
        .block_on(client.get_async_connection())
        .expect("the cluster is there");
    let mut reads: Vec<Side<'_>> = vec![
        (
            "through read",
            Box::new(|count| (0..count).for_each(|_| _ = value.get().expect("it is set"))),
        ),
        ("cluster_async GET", {
            let (runtime, mut connection) = (&runtime, of_runtime.clone());
            Box::new(move |count| {
                for _ in 0..count {
                    let _: String = runtime
                        .block_on(connection.get("memory:number"))
                        .expect("it is set");
                }
            })
        }),
        ("cluster_async GET, driven by another thread", {
            let mut connection = connection.clone();
            Box::new(move |count| {
                for _ in 0..count {
                    let _: String =
                        pollster::block_on(connection.get("memory:number")).expect("it is set");
                }
            })
        }),
    ];
    let figures = medians(ROUNDS, READS, &mut reads);
    print(&reads, &figures);
    report(
        "cluster: through read / cluster_async GET, one thread",
        figures[0] / figures[1],
        "<= 1.2",
    );
    report("  … driven by another thread", figures[0] / figures[2], "");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The script that the library calls: its hash, and what a call says first.
struct CommitScript {
    hash: String,
    header: String,
}

impl CommitScript {
    /// Stores a new value under a key of the peer's own.
    async fn write(&self, mut connection: ClusterConnection, n: u32, stamp: u64) {
        let key = format!("peer:{n}");
        let (sidecar, sequence) = (format!("synced-memory/{{{key}}}"), stamp);
        let envelope = format!(r#"{{"value": {n},"last_modified": {stamp}}}"#);
        let _: redis::Value = redis::cmd("EVALSHA")
            .arg(&self.hash)
            .arg(2)
            .arg(&key)
            .arg(sidecar)
            .arg(&self.header)
            .arg(7)
            .arg(sequence)
            .arg("")
            .arg(stamp)
            .arg(envelope)
            .arg("keep")
            .query_async(&mut connection)
            .await
            .expect("the cluster is there");
    }
}

/// The script of a write, as a server sees it.
fn script(cluster: &Cluster, memory: &Memory) -> CommitScript {
    let key = Key::<u64>::new("seen");
    memory.set(&key, 1).expect("the cluster is there");
    let owner = cluster.owner(cluster.slot_of("memory:seen"));
    let port = cluster.nodes()[owner].port();
    let mut watching = TcpStream::connect(("127.0.0.1", port)).expect("the node is there");
    watching.write_all(b"MONITOR\r\n").expect("it listens");
    let mut lines = BufReader::new(watching).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("+OK"));
    memory.set(&key, 2).expect("the cluster is there");
    let call = lines.find(|line| line.to_lowercase().contains(r#""evalsha""#));
    let call = call.expect("a write is a call");
    let words: Vec<&str> = call.split('"').skip(1).step_by(2).collect();
    CommitScript {
        hash: words[1].to_owned(),
        header: words[5].to_owned(),
    }
}
