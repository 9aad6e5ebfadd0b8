//! What is extreme ends in an answer or an error: the largest durations, thousands of watches, a
//! server that never comes to an end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Server, eventually};
use synced_memory::{ErrorKind, Key, Memory};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);
const THOUSAND_YEARS: Duration = Duration::from_secs(1_000 * 31_557_600);
const LEAST: Duration = Duration::from_nanos(1);

/// A server that answers each command with what `answer` says of its words.
fn serve(answer: impl Fn(&[String]) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || converse(&stream, &*answer));
        }
    });
    format!("redis://127.0.0.1:{port}")
}

fn converse(stream: &TcpStream, answer: &dyn Fn(&[String]) -> String) -> Option<()> {
    let mut lines = BufReader::new(stream);
    let number = move |lines: &mut BufReader<&TcpStream>| -> Option<usize> {
        let mut line = String::new();
        lines.read_line(&mut line).ok()?;
        line.trim_end().get(1..)?.parse().ok()
    };
    let mut stream = stream;
    loop {
        let words = number(&mut lines)?;
        let mut command = Vec::new();
        for _ in 0..words {
            let mut word = vec![0; number(&mut lines)? + 2];
            lines.read_exact(&mut word).ok()?;
            word.truncate(word.len() - 2);
            command.push(String::from_utf8_lossy(&word).into_owned());
        }
        stream.write_all(answer(&command).as_bytes()).ok()?;
    }
}

/// What an ordinary server says to the commands that a connection begins with.
fn plainly(command: &[String]) -> String {
    let hello = "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n";
    match command[0].as_str() {
        "HELLO" => hello.to_owned(),
        "TIME" => "*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n".to_owned(),
        "INFO" => "$0\r\n\r\n".to_owned(),
        "CLIENT" | "SELECT" => "+OK\r\n".to_owned(),
        _ => "_\r\n".to_owned(),
    }
}

#[test]
fn the_names_of_a_server_whose_scan_does_not_end_are_an_error() {
    let pages = Arc::new(AtomicUsize::new(0));
    let page = Arc::clone(&pages);
    let url = serve(move |command| match command[0].as_str() {
        "SCAN" => {
            let page = page.fetch_add(1, Ordering::Relaxed);
            format!("*2\r\n$2\r\n17\r\n*1\r\n${}\r\nmemory:s:{page:020}\r\n", 29)
        }
        "DBSIZE" => ":5\r\n".to_owned(),
        _ => plainly(command),
    });
    let memory = Memory::open(&url).unwrap();
    for ended in [
        memory.names().map(drop),
        memory.scope("s").purge().map(drop),
    ] {
        let error = ended.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(error.to_string().contains("SCAN"), "{error}");
    }
    let listed = pages.load(Ordering::Relaxed);
    assert!(listed < 50_000, "{listed} pages of a database of 5 keys");
}

#[test]
fn a_server_whose_clock_cannot_be_counted_is_refused_when_the_memory_is_opened() {
    for seconds in ["18446744074", "18446744073709551615"] {
        let url = serve(move |command| match command[0].as_str() {
            "TIME" => format!("*2\r\n${}\r\n{seconds}\r\n$1\r\n0\r\n", seconds.len()),
            _ => plainly(command),
        });
        let error = Memory::open(&url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(error.to_string().contains("no time"), "{error}");
    }
}

#[test]
fn a_server_that_takes_no_connections_as_a_replica_is_asked_again_after_a_pause() {
    for refused in ["HELLO", "TIME", "TRACKING"] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let url = serve(move |command| {
            if command.iter().any(|word| word == refused) {
                count.fetch_add(1, Ordering::Relaxed);
                return "-READONLY You can't write against a read only replica.\r\n".to_owned();
            }
            plainly(command)
        });
        let pause = Duration::from_millis(100);
        let started = Instant::now();
        let memory = Memory::builder()
            .url(&url)
            .backoff(pause, pause)
            .build()
            .unwrap();
        let _watch = memory.watch(&Key::<i64>::new("n"));
        eventually(DEADLINE, "it was asked 20 times", || {
            asked.load(Ordering::Relaxed) >= 20
        });
        // With full jitter 20 pauses take a second, give or take 130 ms.
        let took = started.elapsed();
        assert!(took > Duration::from_millis(400), "{refused}: {took:?}");
    }
}

#[test]
fn a_call_takes_the_longest_and_the_shortest_durations() {
    let memory = Memory::open("memory:").unwrap();
    let number = Key::<i64>::new("number");
    memory.set(&number, 1).unwrap();
    let mut watch = memory.watch(&number);
    assert_eq!(watch.recv_timeout(Duration::MAX).unwrap(), Some(1));
    for none in [Duration::ZERO, LEAST] {
        let error = watch.recv_timeout(none).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    for limit in [Duration::ZERO, LEAST, THOUSAND_YEARS, Duration::MAX] {
        memory.flush(limit).unwrap();
        futures_executor::block_on(memory.flush_async(limit)).unwrap();
    }
    let writer = memory.clone();
    let changed = thread::spawn(move || watch.recv_timeout(Duration::MAX));
    writer.set(&number, 2).unwrap();
    assert_eq!(changed.join().unwrap().unwrap(), Some(2));
    for limit in [Duration::ZERO, LEAST, THOUSAND_YEARS, Duration::MAX] {
        Memory::open("memory:").unwrap().close(limit).unwrap();
        let memory = Memory::open("memory:").unwrap();
        futures_executor::block_on(memory.close_async(limit)).unwrap();
    }
}

#[test]
fn a_memory_whose_durations_are_the_longest_works_on_every_backend() {
    let (server, directory) = (Server::redis().start(), TempDir::new().unwrap());
    let file = format!("sqlite:{}", directory.path().join("state.db").display());
    for url in [server.url(), file, "memory:".to_owned()] {
        let memory = Memory::builder()
            .url(&url)
            .timeout(THOUSAND_YEARS)
            .tombstone_ttl(THOUSAND_YEARS)
            .backoff(LEAST, THOUSAND_YEARS)
            .build()
            .unwrap();
        let number = Key::<i64>::new("number");
        memory.set(&number, 1).unwrap();
        assert!(memory.delete(&number).unwrap(), "{url}");
        assert_eq!(memory.get(&number).unwrap(), None, "{url}");
        memory.synced(&number).confirmed().set(2).unwrap();
        memory.update(&number, |number| *number = Some(3)).unwrap();
        let view = memory.synced(&number);
        assert_eq!(
            futures_executor::block_on(view.get_async()).unwrap(),
            3,
            "{url}"
        );
        futures_executor::block_on(view.set_async(4)).unwrap();
        memory.close(THOUSAND_YEARS).unwrap();
    }
}

/// Each drop takes the lock that every other call needs.
#[test]
fn thousands_of_watches_of_one_key_are_dropped_in_no_more_time_than_they_are_made() {
    const WATCHES: usize = 40_000;
    let memory = Memory::open("memory:").unwrap();
    let number = Key::<i64>::new("number");
    let started = Instant::now();
    let watches: Vec<_> = (0..WATCHES).map(|_| memory.watch(&number)).collect();
    let made = started.elapsed();
    let started = Instant::now();
    drop(watches);
    let dropped = started.elapsed();
    assert!(
        dropped < 3 * made,
        "made in {made:?}, dropped in {dropped:?}"
    );
}
