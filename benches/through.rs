//! Through reads and writes against bare redis-rs and against the Python package, on one server.
//!
//! `cargo bench -p synced-memory-benches --bench through`

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use redis::{AsyncCommands, Commands};
use support::{Server, python};
use synced_memory::{Key, Memory};
use synced_memory_benches::{Side, medians, print, report};
use tokio::runtime::Runtime;

const ROUNDS: usize = 15;
const COUNT: u32 = 2_000;
const THREADS: u32 = 8;

fn main() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).expect("the server is there");
    let key = Key::<u64>::new("number");
    memory.set(&key, 1).expect("the server takes writes");
    one_thread(&server, &memory, &key);
    many_threads(&server, &memory);
    against_python(&server, &memory, &key);
    pushes(&server, &memory);
}

fn multiplexed(server: &Server, runtime: &Runtime) -> redis::aio::MultiplexedConnection {
    let info: redis::ConnectionInfo =
        redis::IntoConnectionInfo::into_connection_info(server.url()).expect("a URL");
    let info = info.set_tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true));
    let client = redis::Client::open(info).expect("a URL");
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    runtime.block_on(connection).expect("the server is there")
}

fn background_runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn one_thread(server: &Server, memory: &Memory, key: &Key<u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let connection = multiplexed(server, &runtime);
    let background = background_runtime();
    let other = multiplexed(server, &background);
    let envelope = r#"{"value": 12345,"last_modified": 1719400000000000000}"#;
    let view = memory.synced(key);
    let counter = memory.synced(&Key::<i64>::new("counter"));

    let mut reads: Vec<Side<'_>> = vec![
        (
            "through read",
            Box::new(|count| (0..count).for_each(|_| _ = view.get().expect("it is set"))),
        ),
        ("bare GET", {
            let (runtime, mut connection) = (&runtime, connection.clone());
            Box::new(move |count| {
                for _ in 0..count {
                    let _: String = runtime
                        .block_on(connection.get("memory:number"))
                        .expect("it is set");
                }
            })
        }),
        ("bare GET, connection on another thread", {
            let mut other = other.clone();
            Box::new(move |count| {
                for _ in 0..count {
                    let _: String = pollster(other.get("memory:number")).expect("it is set");
                }
            })
        }),
    ];
    let figures = medians(ROUNDS, COUNT, &mut reads);
    print(&reads, &figures);
    report(
        "through read / bare multiplexed GET, one thread",
        figures[0] / figures[1],
        "<= 1.3",
    );
    report(
        "  … with the connection on another thread",
        figures[0] / figures[2],
        "",
    );
    drop(reads);

    let mut writes: Vec<Side<'_>> = vec![
        (
            "through write",
            Box::new(|count| {
                (0..count).for_each(|n| _ = view.set(u64::from(n)).expect("it is there"));
            }),
        ),
        ("bare SET", {
            let (runtime, mut connection) = (&runtime, connection.clone());
            Box::new(move |count| {
                for _ in 0..count {
                    let () = runtime
                        .block_on(connection.set("bare", envelope))
                        .expect("it is there");
                }
            })
        }),
        (
            "through add",
            Box::new(|count| (0..count).for_each(|_| _ = counter.add(1).expect("it is there"))),
        ),
        ("bare SET, connection on another thread", {
            let mut other = other.clone();
            Box::new(move |count| {
                for _ in 0..count {
                    let () = pollster(other.set("bare", envelope)).expect("it is there");
                }
            })
        }),
    ];
    let figures = medians(ROUNDS, COUNT, &mut writes);
    print(&writes, &figures);
    report(
        "through write / bare multiplexed SET, one thread",
        figures[0] / figures[1],
        "<= 1.5",
    );
    report(
        "  … with the connection on another thread",
        figures[0] / figures[3],
        "",
    );
    report(
        "through add / bare multiplexed SET, one thread",
        figures[2] / figures[1],
        "<= 1.8",
    );
}

fn many_threads(server: &Server, memory: &Memory) {
    let client = redis::Client::open(server.url()).expect("a URL");
    let locked = Mutex::new(client.get_connection().expect("the server is there"));
    let views: Vec<_> = (0..THREADS)
        .map(|n| memory.synced(&Key::<u64>::named(format!("of_{n}"))))
        .collect();
    for view in &views {
        view.set(0).expect("the server takes writes");
    }
    let get = |thread: usize| _ = views[thread].get().expect("it is set");
    let set = |thread: usize| _ = views[thread].set(5).expect("it is there");
    let bare_get = |thread: usize| {
        let _: String = locked
            .lock()
            .expect("no thread panics")
            .get(format!("memory:of_{thread}"))
            .expect("it is set");
    };
    let bare_set = |thread: usize| {
        let () = locked
            .lock()
            .expect("no thread panics")
            .set(format!("bare_{thread}"), 5)
            .expect("it is there");
    };
    // The multiplexed connection of redis-rs, shared by 8 threads that wait.
    let background = background_runtime();
    let connection = multiplexed(server, &background);
    let shared_get = |thread: usize| {
        let _: String =
            pollster(connection.clone().get(format!("memory:of_{thread}"))).expect("it is set");
    };
    let shared_set = |thread: usize| {
        let () =
            pollster(connection.clone().set(format!("bare_{thread}"), 5)).expect("it is there");
    };
    let mut sides: Vec<Side<'_>> = vec![
        ("through read, 8 threads", in_threads(&get)),
        ("Mutex<Connection> GET, 8 threads", in_threads(&bare_get)),
        ("through write, 8 threads", in_threads(&set)),
        ("Mutex<Connection> SET, 8 threads", in_threads(&bare_set)),
        ("bare multiplexed GET, 8 threads", in_threads(&shared_get)),
        ("bare multiplexed SET, 8 threads", in_threads(&shared_set)),
    ];
    let figures = medians(ROUNDS, 4 * COUNT, &mut sides);
    print(&sides, &figures);
    report(
        "8 threads: through reads per Mutex<Connection> GET",
        figures[1] / figures[0],
        ">= 3",
    );
    report(
        "8 threads: through writes per Mutex<Connection> SET",
        figures[3] / figures[2],
        ">= 3",
    );
    report(
        "  … reads per bare multiplexed GET",
        figures[4] / figures[0],
        "",
    );
    report(
        "  … writes per bare multiplexed SET",
        figures[5] / figures[2],
        "",
    );
}

/// Runs an operation on 8 threads at once, `count` times in all; it gets the number of its thread.
fn in_threads<'a>(operate: &'a (dyn Fn(usize) + Sync)) -> Box<dyn FnMut(u32) + 'a> {
    Box::new(move |count| {
        thread::scope(|scope| {
            for thread in 0..THREADS as usize {
                scope.spawn(move || (0..count / THREADS).for_each(|_| operate(thread)));
            }
        });
    })
}

fn against_python(server: &Server, memory: &Memory, key: &Key<u64>) {
    let times = python(
        server,
        "
import time
from synced_memory import Memory
m = Memory()
m.number = 1
def median(operate):
    times = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(100): operate()
        times.append((time.perf_counter() - start) / 100)
    return sorted(times)[3]
print(median(lambda: m.number), median(lambda: setattr(m, 'number', 2)))
",
    );
    let times: Vec<f64> = times
        .split_whitespace()
        .map(|time| time.parse().expect("a number"))
        .collect();
    let mut ours: Vec<Side<'_>> = vec![
        (
            "through read",
            Box::new(|count| (0..count).for_each(|_| _ = memory.get(key).expect("it is set"))),
        ),
        (
            "through write",
            Box::new(|count| (0..count).for_each(|_| _ = memory.set(key, 7).expect("it is there"))),
        ),
    ];
    let figures = medians(ROUNDS, COUNT, &mut ours);
    println!(
        "the Python package: read {:.0} us, write {:.0} us",
        times[0] * 1e6,
        times[1] * 1e6
    );
    report(
        "the Python package's read / ours",
        times[0] / figures[0],
        ">= 10",
    );
    report(
        "the Python package's write / ours",
        times[1] / figures[1],
        ">= 10",
    );
}

/// A push onto a list of 10,000 messages, about 1 MB.
fn pushes(server: &Server, memory: &Memory) {
    const MESSAGES: usize = 10_000;
    let text = "m".repeat(60);
    let message = || serde_json::json!({"role": "user", "text": text});
    let history = memory.synced(&Key::<Vec<serde_json::Value>>::new("history"));
    history
        .set((0..MESSAGES).map(|_| message()).collect())
        .expect("it is there");
    let mut ours: Vec<Side<'_>> = vec![(
        "push onto 10,000 messages",
        Box::new(|count| {
            (0..count).for_each(|_| _ = history.push(message()).expect("it is there"));
        }),
    )];
    let figures = medians(5, 40, &mut ours);
    print(&ours, &figures);
    let theirs: f64 = python(
        server,
        "
import time
from synced_memory import Memory
m = Memory()
m.theirs = [{'role': 'user', 'text': 'm' * 60} for _ in range(10_000)]
held = m.theirs
times = []
for _ in range(15):
    start = time.perf_counter()
    m.theirs.append({'role': 'user', 'text': 'm' * 60})
    times.append(time.perf_counter() - start)
print(sorted(times)[7])
",
    )
    .parse()
    .expect("a number");
    println!(
        "{:<62} {:>8.1} us",
        "the Python package's append to 10,000 messages",
        theirs * 1e6
    );
    report(
        "the Python package's append / our push",
        theirs / figures[0],
        "",
    );
}

/// Blocks this thread until a future is ready that another thread's runtime drives.
fn pollster<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    let start = Instant::now();
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no answer");
        thread::park_timeout(Duration::from_secs(1));
    }
}
