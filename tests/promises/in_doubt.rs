//! A confirmed call whose answer was lost was made once or never. Its caller gets the fact if it is
//! known in time, and `InDoubt` if not; the memory settles the doubt later and makes nothing twice.

use std::thread;
use std::time::{Duration, Instant};

use redis::Value;
use support::Direction::{ToClient, ToServer};
use support::{Proxy, eventually};
use synced_memory::{ErrorKind, Key, Memory, Synced, Written};

use crate::line::{DEADLINE, Line, commits, quick, wait_connected, wait_disconnected};
use crate::sizes::{Size, with_both_sizes};

const TIMEOUT: Duration = Duration::from_millis(500);

fn list() -> Key<Vec<u64>> {
    Key::new("list")
}

struct Two {
    line: Line,
    memory: Memory,
    mine: Synced<Vec<u64>>,
    theirs: Synced<Vec<u64>>,
    size: Size,
}

impl Two {
    fn new(size: Size, timeout: Duration) -> Self {
        let line = Line::new();
        let memory = line
            .builder()
            .timeout(size.timeout(timeout))
            .build()
            .unwrap();
        let theirs = line.open_patiently().synced(&list());
        let filler = size.filler(20_000).map(u64::from);
        theirs.set(filler.chain([1]).collect()).unwrap();
        let two = Self {
            mine: memory.synced(&list()),
            line,
            memory,
            theirs,
            size,
        };
        assert_eq!(two.i_see(), [1]);
        two
    }

    fn i_see(&self) -> Vec<u64> {
        self.of(&self.mine)
    }

    fn they_see(&self) -> Vec<u64> {
        self.of(&self.theirs)
    }

    /// The list without what was there before the test.
    fn of(&self, view: &Synced<Vec<u64>>) -> Vec<u64> {
        let mut list = view.get().unwrap();
        let filler = self.size.filler(20_000).map(u64::from);
        let own = list.split_off(filler.len());
        assert!(filler.eq(list), "what was there is there");
        own
    }

    /// Pushes 2. The server makes the push, but no answer comes within the timeout.
    fn push_in_doubt(&self) {
        self.line.proxy.lose_answer_to(commits);
        self.line.proxy.refuse(true);
        let error = self.mine.confirmed().push(2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InDoubt, "{error}");
        assert!(error.to_string().contains("memory:list"), "{error}");
        assert_eq!(self.they_see(), [1, 2]);
    }

    /// Pushes 2. The request is held back for longer than the timeout.
    fn push_held(&self) {
        self.line.proxy.hold_requests();
        self.line.proxy.refuse(true);
        let error = self.mine.confirmed().push(2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InDoubt, "{error}");
        assert!(self.line.proxy.held() > 0);
        self.line.proxy.cut();
        wait_disconnected(&self.memory);
    }

    /// Whether a number of this writer is barred at the list.
    fn is_barred(&self) -> bool {
        let Value::Array(sidecar) = self
            .line
            .server
            .cli(&["HVALS", "synced-memory/{memory:list}"])
        else {
            return false;
        };
        sidecar.into_iter().any(|value| {
            redis::from_redis_value::<String>(value)
                .unwrap()
                .ends_with('-')
        })
    }

    fn up(&self) {
        self.line.deliver(&self.memory);
        let status = self.memory.status();
        assert_eq!(
            (status.pending, status.dead_letters, status.superseded),
            (0, 0, 0),
            "{status:?}"
        );
    }
}

with_both_sizes!(
    a_call_whose_answer_was_lost_returns_its_fact_if_the_line_is_back_in_time,
    a_write_that_was_made_in_doubt_is_there_once_and_before_later_writes,
    an_attempt_that_was_not_made_is_barred_and_refused_when_it_arrives_late,
    no_later_write_to_a_key_is_sent_before_its_write_in_doubt_is_settled,
    other_keys_go_on_while_one_is_in_doubt,
    a_confirmed_push_over_a_line_cut_at_any_byte_is_made_once_or_never_and_its_fact_is_true,
);

fn a_call_whose_answer_was_lost_returns_its_fact_if_the_line_is_back_in_time(size: Size) {
    let two = Two::new(size, DEADLINE);
    let claims = two
        .memory
        .synced(&Key::<std::collections::HashSet<u64>>::new("claims"))
        .confirmed();
    let rounds = size.scaled(20, 5);
    for round in 0..rounds {
        two.line.proxy.lose_answer_to(commits);
        assert!(
            claims.insert(round).unwrap(),
            "the fact is the same although the answer was lost"
        );
        assert!(!claims.insert(round).unwrap());
        let cuts = two.line.proxy.cuts();
        two.line.proxy.lose_answer_to(commits);
        assert_eq!(two.mine.confirmed().push(round).unwrap(), Written::Stored);
        assert_eq!(two.line.proxy.cuts(), cuts + 1);
    }
    assert_eq!(
        two.they_see(),
        [1].into_iter().chain(0..rounds).collect::<Vec<_>>()
    );
    two.up();
}

#[test]
fn a_delete_whose_answer_was_lost_returns_whether_the_key_was_set() {
    let two = Two::new(Size::Small, DEADLINE);
    for is_there in [true, false] {
        let key = Key::<u64>::named(format!("never_read_{is_there}"));
        if is_there {
            two.line.open_directly().set(&key, 1).unwrap();
        }
        two.line.proxy.lose_answer_to(commits);
        assert_eq!(
            two.memory.synced(&key).confirmed().delete().unwrap(),
            is_there
        );
        two.line.proxy.lose_answer_to(commits);
        assert!(!two.memory.synced(&key).confirmed().delete().unwrap());
    }
}

fn a_write_that_was_made_in_doubt_is_there_once_and_before_later_writes(size: Size) {
    let two = Two::new(size, TIMEOUT);
    two.push_in_doubt();
    assert_eq!(two.i_see(), [1], "it is not visible before it is confirmed");
    let other = Key::<u64>::new("other");
    assert_eq!(two.mine.push(3).unwrap(), Written::Queued);
    assert_eq!(two.memory.set(&other, 1).unwrap(), Written::Queued);
    assert_eq!(two.i_see(), [1, 3]);
    two.theirs.push(4).unwrap();
    two.up();
    assert_eq!(two.they_see(), [1, 2, 4, 3]);
    assert_eq!(two.i_see(), [1, 2, 4, 3]);
    assert_eq!(two.memory.get(&other).unwrap(), Some(1));
    assert_eq!(two.mine.confirmed().push(5).unwrap(), Written::Stored);
}

fn an_attempt_that_was_not_made_is_barred_and_refused_when_it_arrives_late(size: Size) {
    for is_changed_since in [false, true] {
        let two = Two::new(size, TIMEOUT);
        two.push_held();
        if is_changed_since {
            assert_eq!(two.mine.push(3).unwrap(), Written::Queued);
        }
        two.up();
        let expected = if is_changed_since {
            vec![1, 3]
        } else {
            vec![1]
        };
        assert_eq!(two.they_see(), expected);
        two.line.proxy.release();
        eventually(DEADLINE, "the late attempt has arrived", || {
            two.line.proxy.open() == 1
        });
        // The server handles this after the late attempt.
        assert_eq!(two.theirs.confirmed().push(4).unwrap(), Written::Stored);
        assert!(
            !two.they_see().contains(&2),
            "the barred push is never made"
        );
    }
}

#[test]
fn a_barred_attempt_is_refused_even_after_its_writer_has_closed() {
    let two = Two::new(Size::Small, DEADLINE);
    // The writer now has a record at the key, which it drops when it closes.
    two.mine.set(vec![1]).unwrap();
    two.line.proxy.hold_requests();
    let error = thread::scope(|scope| {
        let push = scope.spawn(|| two.mine.confirmed().push(2));
        eventually(DEADLINE, "the push was sent", || two.line.proxy.held() > 0);
        two.line.proxy.cut();
        // The server bars the number, and runs out of memory before the push is sent again.
        two.line.proxy.delay(ToClient, Duration::from_millis(300));
        eventually(DEADLINE, "the number is barred", || two.is_barred());
        two.line.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        push.join().unwrap().unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    two.line.proxy.delay(ToClient, Duration::ZERO);
    two.line.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    two.memory.close(DEADLINE).unwrap();
    two.line.proxy.release();
    eventually(DEADLINE, "the late attempt has arrived", || {
        two.line.proxy.open() == 0
    });
    assert_eq!(
        two.of(&two.theirs.confirmed()),
        [1],
        "the push was withdrawn"
    );
}

#[test]
fn a_call_that_has_only_read_is_unavailable_and_was_not_made() {
    let line = Line::new();
    line.open_directly().synced(&list()).set(vec![1]).unwrap();
    let memory = line.builder().timeout(TIMEOUT).build().unwrap();
    line.proxy.lose_answer_to(commits);
    line.proxy.refuse(true);
    let mine = memory.synced(&list());
    assert_eq!(
        mine.confirmed().push(2).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(memory.status().pending, 0);
    line.up();
    wait_connected(&memory);
    assert_eq!(mine.confirmed().push(3).unwrap(), Written::Stored);
    assert_eq!(mine.confirmed().get().unwrap(), [1, 3]);
}

fn no_later_write_to_a_key_is_sent_before_its_write_in_doubt_is_settled(size: Size) {
    let two = Two::new(size, TIMEOUT);
    two.push_held();
    let other = Key::<u64>::new("other");
    assert_eq!(two.mine.push(3).unwrap(), Written::Queued);
    // The server refuses the question about the push, which is a write too.
    two.line.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    two.line.up();
    eventually(DEADLINE, "the question was refused", || {
        two.memory
            .status()
            .last_error
            .is_some_and(|error| error.to_string().contains("OOM"))
    });
    assert_eq!(two.they_see(), [1]);
    assert_eq!(two.memory.status().pending, 1);
    two.line.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_ne!(two.memory.set(&other, 1).unwrap(), Written::Superseded);
    two.up();
    assert_eq!(
        (two.they_see(), two.memory.get(&other).unwrap()),
        (vec![1, 3], Some(1))
    );
}

fn other_keys_go_on_while_one_is_in_doubt(size: Size) {
    let two = Two::new(size, DEADLINE);
    let other = two.memory.synced(&Key::<u64>::new("other"));
    two.line.proxy.hold_requests();
    thread::scope(|scope| {
        let push = scope.spawn(|| two.mine.confirmed().push(2));
        eventually(DEADLINE, "the push was sent", || two.line.proxy.held() > 0);
        let before = two.line.proxy.connections();
        two.line.proxy.cut();
        eventually(DEADLINE, "the memory reconnects", || {
            two.line.proxy.connections() > before
        });
        wait_connected(&two.memory);
        assert_eq!(other.confirmed().set(1).unwrap(), Written::Stored);
        assert_eq!(
            push.join().unwrap().unwrap(),
            Written::Stored,
            "it was barred, and made under a new number"
        );
    });
    two.line.proxy.release();
    eventually(DEADLINE, "the late attempt has arrived", || {
        two.line.proxy.open() == 1
    });
    assert_eq!(two.of(&two.theirs.confirmed()), [1, 2]);
}

#[test]
fn a_confirmed_write_that_is_in_doubt_for_longer_than_the_tombstone_ttl_is_no_dead_letter() {
    const TOMBSTONE_TTL: Duration = Duration::from_millis(700);
    let line = Line::new();
    let memory = line
        .builder()
        .timeout(Duration::from_millis(200))
        .tombstone_ttl(TOMBSTONE_TTL)
        .build()
        .unwrap();
    let (mine, theirs) = (memory.synced(&list()), line.open_directly().synced(&list()));
    mine.set(vec![1]).unwrap();
    line.proxy.lose_answer_to(commits);
    line.proxy.refuse(true);
    let began = Instant::now();
    assert_eq!(
        mine.confirmed().push(2).unwrap_err().kind(),
        ErrorKind::InDoubt
    );
    eventually(DEADLINE, "the write has waited for too long", || {
        began.elapsed() > 2 * TOMBSTONE_TTL
    });
    line.up();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(
        memory.status().dead_letters,
        0,
        "{:?}",
        memory.dead_letters()
    );
    assert_eq!(theirs.get().unwrap(), [1, 2]);
    assert_eq!(mine.confirmed().push(3).unwrap(), Written::Stored);
    assert_eq!(theirs.get().unwrap(), [1, 2, 3]);
}

#[test]
fn a_slow_line_is_not_mistaken_for_a_silent_one() {
    let line = Line::new();
    let memory = line
        .builder()
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let list = memory.synced(&list());
    list.set(vec![]).unwrap();
    line.proxy.delay(ToClient, Duration::from_millis(600));
    let connections = line.proxy.connections();
    // A read takes more than half of the timeout.
    let error = list.confirmed().pop().map(drop).err();
    assert_eq!(
        error.map(|error| error.kind()),
        None,
        "that the list is empty is a fact"
    );
    let error = list.confirmed().insert(0, 5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InDoubt, "{error}");
    line.proxy.delay(ToClient, Duration::ZERO);
    memory.flush(DEADLINE).unwrap();
    assert_eq!(
        line.proxy.connections(),
        connections,
        "the connection was kept"
    );
    assert_eq!(
        line.open_directly().synced(&self::list()).get().unwrap(),
        [5]
    );
}

fn a_confirmed_push_over_a_line_cut_at_any_byte_is_made_once_or_never_and_its_fact_is_true(
    size: Size,
) {
    let two = Two::new(size, Duration::from_millis(300));
    let mut counts = [0; 3];
    // A large value: as many bytes, and at larger distances.
    for byte in (0..60).step_by(size.scaled(1, 5)) {
        let direction = if byte % 2 == 0 { ToClient } else { ToServer };
        two.line.proxy.cut_after_bytes(direction, byte * 7);
        // In two of three rounds the line does not come back in time.
        two.line.proxy.refuse(byte % 3 > 0);
        let number = 100 + byte;
        match two.mine.confirmed().push(number) {
            Ok(written) => {
                assert_eq!(written, Written::Stored);
                counts[0] += 1;
            }
            Err(error) if error.kind() == ErrorKind::InDoubt => counts[1] += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                counts[2] += 1;
                two.line.up();
                two.memory.flush(DEADLINE).unwrap();
                assert!(
                    !two.they_see().contains(&number),
                    "byte {byte}: the push was withdrawn"
                );
            }
        }
        two.line.proxy.do_not_cut();
        two.line.deliver(&two.memory);
        let made = two
            .theirs
            .get()
            .unwrap()
            .iter()
            .filter(|made| **made == number)
            .count();
        assert!(made <= 1, "byte {byte}");
    }
    eprintln!(
        "{} facts, {} in doubt, {} withdrawn",
        counts[0], counts[1], counts[2]
    );
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    assert_eq!(two.memory.status().dead_letters, 0);
}

#[test]
fn a_close_ends_a_running_confirmed_call_as_closed_or_in_doubt() {
    let two = Two::new(Size::Small, Duration::from_secs(2));
    thread::scope(|scope| {
        two.line.proxy.stall(true);
        let sent = scope.spawn(|| two.mine.confirmed().push(2));
        eventually(DEADLINE, "the push is pending", || {
            two.memory.status().pending == 1
        });
        let waiting = scope.spawn(|| two.mine.confirmed().push(3));
        let closed = scope.spawn(|| two.memory.close(Duration::from_millis(100)));
        assert_eq!(
            closed.join().unwrap().unwrap_err().kind(),
            ErrorKind::Timeout
        );
        assert_eq!(sent.join().unwrap().unwrap_err().kind(), ErrorKind::InDoubt);
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    });
    two.line.proxy.stall(false);
    assert!(!two.they_see().contains(&3));
}

#[test]
fn a_memory_without_a_journal_forgets_its_write_in_doubt_and_does_not_block_another_one() {
    let two = Two::new(Size::Small, TIMEOUT);
    two.push_in_doubt();
    let proxy = Proxy::to(&two.line.server);
    let another = quick(proxy.url()).build().unwrap().synced(&list());
    assert_eq!(another.confirmed().push(3).unwrap(), Written::Stored);
    assert_eq!(
        two.memory.close(Duration::ZERO).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    assert_eq!(another.get().unwrap(), [1, 2, 3]);
}
