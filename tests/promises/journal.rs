//! Rules 2, 3, 6 and 11: what is queued survives the process.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use support::{Child, CrashingDisk, Image, Proxy, Server, Tmpfs, eventually};
use synced_memory::{Builder, Durability, ErrorKind, Key, Memory, SyncedMemory, Written};
use tempfile::TempDir;

use crate::line::{Line, durable, forget_dead_letters, quick, wait_disconnected};
use crate::sizes::{Size, with_both_sizes};

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(SyncedMemory)]
struct Lists {
    #[synced(default)]
    lists: BTreeMap<String, Vec<i64>>,
}

fn items() -> Key<Vec<String>> {
    Key::new("items")
}

/// The items without those that were there before the test.
fn items_of(memory: &Memory, size: Size) -> Vec<String> {
    let mut items = memory.get(&items()).unwrap().unwrap();
    let filler = size.items();
    let own = items.split_off(filler.len());
    assert_eq!(items, filler);
    own
}

/// A memory on this line, with its journal in `directory`.
fn journalling(line: &Line, directory: &Path) -> Builder {
    line.builder().journal(directory)
}

/// Ends a memory as a crash would: nothing is delivered, and its journal stays.
fn crash(memory: Memory, line: &Line) {
    line.down(&memory);
    // A close that delivers nothing leaves the journal as it is.
    assert_eq!(
        memory.close(Duration::ZERO).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    drop(memory);
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

with_both_sizes!(
    what_was_queued_is_delivered_by_the_next_memory_in_order_and_once,
    a_write_whose_answer_was_lost_is_not_doubled_by_the_process_that_adopts_it,
    every_write_that_returned_is_on_the_server_once_however_often_the_process_is_killed,
);

fn what_was_queued_is_delivered_by_the_next_memory_in_order_and_once(size: Size) {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = journalling(&line, directory.path()).build().unwrap();
    memory.set(&Key::new("stays"), 1).unwrap();
    size.fill(&memory.synced(&items()));
    line.down(&memory);
    for item in ["a", "b", "c"] {
        assert_eq!(
            memory.synced(&items()).push(item.to_owned()).unwrap(),
            Written::Queued
        );
    }
    memory.set(&Key::new("theme"), "old".to_owned()).unwrap();
    memory.set(&Key::new("theme"), "dark".to_owned()).unwrap();
    memory.add(&Key::<i64>::new("count"), 5).unwrap();
    memory.delete(&Key::<i64>::new("stays")).unwrap();
    crash(memory, &line);

    line.up();
    for _ in 0..2 {
        let memory = journalling(&line, directory.path()).build().unwrap();
        memory.flush(DEADLINE).unwrap();
        assert_eq!(items_of(&memory, size), ["a", "b", "c"]);
        assert_eq!(
            memory.get(&Key::<String>::new("theme")).unwrap().unwrap(),
            "dark"
        );
        assert_eq!(memory.get(&Key::<i64>::new("count")).unwrap(), Some(5));
        assert_eq!(memory.get(&Key::<i64>::new("stays")).unwrap(), None);
        memory.close(DEADLINE).unwrap();
        assert_eq!(
            files(directory.path()),
            0,
            "nothing is left once everything is delivered"
        );
    }
}

fn a_write_whose_answer_was_lost_is_not_doubled_by_the_process_that_adopts_it(size: Size) {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = journalling(&line, directory.path()).build().unwrap();
    let list = memory.synced(&items());
    size.fill(&list);
    list.push("a".to_owned()).unwrap();
    // The server applies it, and its answer never arrives.
    line.proxy.lose_answer_to(crate::line::commits);
    line.proxy.refuse(true);
    assert_eq!(list.push("b".to_owned()).unwrap(), Written::Queued);
    assert_eq!(list.push("c".to_owned()).unwrap(), Written::Queued);
    assert_eq!(items_of(&line.open_patiently(), size), ["a", "b"]);
    drop(list);
    crash(memory, &line);

    line.up();
    let memory = journalling(&line, directory.path()).build().unwrap();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(items_of(&memory, size), ["a", "b", "c"]);
}

#[test]
fn a_journal_that_is_in_use_or_for_another_target_is_left_alone() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = journalling(&line, directory.path()).build().unwrap();
    line.down(&memory);
    memory.synced(&items()).push("mine".to_owned()).unwrap();

    let beside = quick(line.server.url())
        .journal(directory.path())
        .build()
        .unwrap();
    beside.flush(DEADLINE).unwrap();
    assert_eq!(
        beside.get(&items()).unwrap(),
        None,
        "it is in use, and for another target"
    );
    crash(memory, &line);
    let other = quick(line.server.url())
        .journal(directory.path())
        .build()
        .unwrap();
    other.flush(DEADLINE).unwrap();
    assert_eq!(
        other.get(&items()).unwrap(),
        None,
        "it is for another target"
    );

    line.up();
    let prefixed = journalling(&line, directory.path())
        .prefix("other:")
        .build()
        .unwrap();
    prefixed.flush(DEADLINE).unwrap();
    assert_eq!(
        other.get(&items()).unwrap(),
        None,
        "it is for another prefix"
    );
    let next = journalling(&line, directory.path()).build().unwrap();
    next.flush(DEADLINE).unwrap();
    assert_eq!(other.get(&items()).unwrap().unwrap(), ["mine"]);
}

#[test]
fn memories_of_one_target_share_a_directory_and_only_what_is_left_behind_is_adopted() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let open = || journalling(&line, directory.path()).build().unwrap();
    let (ends, lives) = (open(), open());
    line.down(&ends);
    wait_disconnected(&lives);
    ends.synced(&items())
        .push("of the one that ends".to_owned())
        .unwrap();
    lives
        .synced(&items())
        .push("of the one that lives".to_owned())
        .unwrap();
    assert_eq!(files(directory.path()), 2, "each has its own");
    crash(ends, &line);
    let next = open();
    assert_eq!(
        next.get(&items()).unwrap().unwrap(),
        ["of the one that ends"],
        "it has adopted this alone"
    );
    assert_eq!(files(directory.path()), 2, "and the old one is gone");
    line.up();
    next.flush(DEADLINE).unwrap();
    lives.flush(DEADLINE).unwrap();
    let mut all = lives.get(&items()).unwrap().unwrap();
    all.sort_unstable();
    assert_eq!(all, ["of the one that ends", "of the one that lives"]);
    next.close(DEADLINE).unwrap();
    lives.close(DEADLINE).unwrap();
    assert_eq!(files(directory.path()), 0);
}

#[test]
fn many_sets_of_one_key_do_not_grow_the_journal() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = journalling(&line, directory.path()).build().unwrap();
    line.down(&memory);
    let mut most = 0;
    for round in 0..100_000_u64 {
        memory.set(&Key::new("number"), round).unwrap();
        if round % 1_000 == 0 {
            let size = |entry: fs::DirEntry| entry.metadata().unwrap().len();
            most = most.max(
                fs::read_dir(directory.path())
                    .unwrap()
                    .map(|entry| size(entry.unwrap()))
                    .sum(),
            );
        }
    }
    assert!(most < 2 << 20, "{most} bytes");
    crash(memory, &line);
    line.up();
    let memory = journalling(&line, directory.path()).build().unwrap();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(
        memory.get(&Key::<u64>::new("number")).unwrap(),
        Some(99_999)
    );
}

/// The CPU time of this thread so far: wall time would include the other tests that run meanwhile.
fn time_on_cpu() -> Duration {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(times.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_journal_of_many_keys_is_adopted_quickly() {
    const KEYS: u64 = 20_000;
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let open = || journalling(&line, directory.path()).build().unwrap();
    let memory = open();
    line.down(&memory);
    let began = time_on_cpu();
    let key = |n: u64| Key::<u64>::named(format!("n{n}"));
    (0..KEYS).for_each(|n| _ = memory.set(&key(n), n).unwrap());
    let queued = time_on_cpu().saturating_sub(began);
    // Some of them are delivered.
    line.up();
    eventually(DEADLINE, "a part is delivered", || {
        memory.status().pending < 15_000
    });
    crash(memory, &line);
    let began = time_on_cpu();
    let memory = open();
    let adopted = time_on_cpu().saturating_sub(began);
    let left = memory.status().pending;
    println!("{KEYS} keys were queued in {queued:?}; {left} adopted in {adopted:?}");
    // Code that scans all queued keys for each key takes ten times as long.
    assert!(
        queued < Duration::from_secs(8) && adopted < Duration::from_secs(4),
        "{queued:?}, {adopted:?}"
    );
    line.up();
    memory.flush(3 * DEADLINE).unwrap();
    let direct = line.open_directly();
    assert!(
        (0..KEYS)
            .step_by(97)
            .all(|n| direct.get(&key(n)).unwrap() == Some(n))
    );
}

#[test]
fn a_damaged_journal_is_kept_and_reported_and_its_whole_records_are_delivered() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = journalling(&line, directory.path()).build().unwrap();
    line.down(&memory);
    for item in ["a", "b", "c"] {
        memory.synced(&items()).push(item.to_owned()).unwrap();
    }
    crash(memory, &line);
    // Within the last record a byte is another one.
    let journal = fs::read_dir(directory.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut damaged = fs::read(&journal).unwrap();
    let last = damaged.len() - 3;
    damaged[last] ^= 1;
    fs::write(&journal, &damaged).unwrap();

    line.up();
    let memory = journalling(&line, directory.path()).build().unwrap();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&items()).unwrap().unwrap(), ["a", "b"]);
    let error = memory.status().last_error.expect("the damage is reported");
    assert_eq!(error.kind(), ErrorKind::Journal, "{error}");
    memory.close(DEADLINE).unwrap();
    let left: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        fs::read(&left[0]).unwrap(),
        damaged,
        "the damaged file is kept aside"
    );
}

/// Opens a crash image of every length of the journal.
#[test]
fn a_journal_that_ends_at_any_byte_opens_and_keeps_its_whole_records() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = journalling(&line, directory.path())
        .durability(Durability::Fsync)
        .build()
        .unwrap();
    line.down(&memory);
    let read = || {
        let journal = fs::read_dir(directory.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        (fs::read(&journal).unwrap(), journal)
    };
    // The length after each write: that much of the journal holds every write that had returned.
    let mut lengths = vec![read().0.len()];
    for item in ["a", "b", "c", "d"] {
        memory.synced(&items()).push(item.to_owned()).unwrap();
        lengths.push(read().0.len());
    }
    let (whole, path) = read();
    crash(memory, &line);
    let image = TempDir::new().unwrap();
    for end in 0..=whole.len() {
        for entry in fs::read_dir(image.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let journal = image.path().join(path.file_name().unwrap());
        fs::write(&journal, &whole[..end]).unwrap();
        // It was being rewritten at that moment, too.
        fs::write(journal.with_extension("new"), &whole[..end / 2]).unwrap();
        // The backend is away, so the memory shows only what it has adopted.
        let memory = journalling(&line, image.path())
            .timeout(Duration::from_millis(1))
            .build()
            .unwrap();
        let returned = lengths
            .iter()
            .filter(|length| **length <= end)
            .count()
            .saturating_sub(1);
        match memory.synced(&items()).to_vec() {
            Ok(shown) => assert_eq!(shown, ["a", "b", "c", "d"][..returned], "after {end} bytes"),
            Err(error) => assert_eq!(
                (error.kind(), returned),
                (ErrorKind::Unavailable, 0),
                "after {end} bytes"
            ),
        }
        let _ = memory.close(Duration::ZERO);
    }
}

/// Checks the journal after a crash of the process, or of the machine, at each step of a process
/// that opens a journal, adopts another one, and writes until its own was rewritten.
fn assert_whole_after_every_crash(durability: &str) {
    const LEFT: u64 = 3;
    const ALL: u64 = 20;
    let (server, directory, disk) = (
        Server::redis().start(),
        TempDir::new().unwrap(),
        CrashingDisk::new(),
    );
    let proxy = Proxy::to(&server);
    proxy.refuse(true);
    let url = |directory: &Path| {
        format!(
            "{}?timeout=50ms&journal={}",
            proxy.url(),
            directory.display()
        )
    };
    let run = |from: u64, to: u64, watch: bool| {
        let arguments = [
            &url(directory.path()),
            &from.to_string(),
            &to.to_string(),
            durability,
        ];
        let mut child =
            Child::spawn_with(env!("CARGO_BIN_EXE_journal_filler"), arguments, |command| {
                if watch {
                    disk.watch(directory.path(), command);
                }
            });
        assert_eq!(child.recv(), "opened");
        (from..to).for_each(|n| assert_eq!(child.recv(), n.to_string()));
        child.kill();
    };
    run(0, LEFT, false);
    run(LEFT, ALL, true);
    proxy.refuse(false);
    let (images, mut rewritten) = (disk.images(), 0);
    let checked = images
        .iter()
        .filter(|image| !image.is_loss_of_power || durability == "fsync");
    for Image {
        path,
        lines,
        is_loss_of_power,
    } in checked.clone()
    {
        rewritten += usize::from(fs::read_dir(path).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            path.extension().is_some_and(|extension| extension == "new")
        }));
        server.cli(&["FLUSHALL"]);
        let memory = quick(url(path))
            .timeout(DEADLINE)
            .build()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        memory.flush(DEADLINE).unwrap();
        let items = memory.get(&Key::<Vec<u64>>::new("items")).unwrap().unwrap();
        let image = format!("{}, power lost: {is_loss_of_power}", path.display());
        // The first line is `opened`, not a write.
        let returned = LEFT + (*lines as u64).saturating_sub(1);
        let is_whole = (returned..=returned + 1).any(|count| items.iter().copied().eq(0..count));
        assert!(
            is_whole,
            "{image}: {items:?} of {returned} that had returned"
        );
        let big = memory.get(&Key::<String>::new("big")).unwrap().unwrap();
        let last: u64 = big.split(':').next().unwrap().parse().unwrap();
        assert!(
            (returned - 1..=returned).contains(&last),
            "{image}: {last} of {returned}"
        );
        memory.close(DEADLINE).unwrap();
    }
    println!(
        "{durability}: {} images, {rewritten} of them with a journal that was being rewritten",
        checked.count()
    );
    assert!(rewritten > 3, "{rewritten}");
}

#[test]
fn wherever_a_process_is_killed_its_journal_is_whole() {
    assert_whole_after_every_crash("process");
}

#[test]
fn wherever_the_machine_loses_its_power_a_synced_journal_is_whole() {
    assert_whole_after_every_crash("fsync");
}

#[test]
fn a_journal_that_cannot_be_written_is_an_error_of_that_call_alone() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let file = directory.path().join("a_file");
    fs::write(&file, "").unwrap();
    let error = journalling(&line, &file).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Journal, "{error}");
}

/// A pseudorandom number for the moments of kills: the sequence is the same in every run.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

fn every_write_that_returned_is_on_the_server_once_however_often_the_process_is_killed(size: Size) {
    let rounds = if std::env::var_os("SYNCED_MEMORY_SOAK").is_some() {
        200
    } else {
        size.scaled(30, 4)
    };
    let server = durable();
    // With a long timeout it returns what the server holds, even on a busy machine.
    let reader = quick(server.url()).timeout(DEADLINE).build().unwrap();
    size.fill(&reader.synced(&items()));
    let (proxy, directory) = (Proxy::to(&server), TempDir::new().unwrap());
    let path = directory.path().to_str().unwrap();
    let url = format!("{}?timeout=50ms&journal={path}", proxy.url());
    let mut random = 7;
    let mut returned: Vec<Vec<u64>> = Vec::new();
    for round in 0..rounds {
        // Down, up, or flapping.
        let fault_mode = draw(&mut random, 3);
        proxy.refuse(fault_mode == 0);
        let mut child = Child::spawn(
            env!("CARGO_BIN_EXE_endless_writer"),
            [url.as_str(), &format!("r{round}")],
        );
        assert_eq!(child.recv(), "opened");
        let mut said = Vec::new();
        for _ in 0..=draw(&mut random, 60) {
            said.push(child.recv().parse().unwrap());
            match draw(&mut random, 8) {
                0 if fault_mode == 2 => proxy.cut(),
                1 if fault_mode == 2 => proxy.refuse(true),
                2 if fault_mode == 2 => proxy.refuse(false),
                _ => {}
            }
        }
        child.kill();
        // What it printed before it was killed had returned as well.
        said.extend(
            child
                .unread_lines()
                .iter()
                .filter_map(|word| word.parse::<u64>().ok()),
        );
        returned.push(said);
    }
    proxy.refuse(false);
    let memory = quick(url).build().unwrap();
    memory.flush(DEADLINE).unwrap();
    let status = memory.status();
    assert_eq!(
        (status.dead_letters, status.superseded),
        (0, 0),
        "{status:?}"
    );
    let items = items_of(&reader, size);
    let mut total = 0;
    for (round, said) in returned.iter().enumerate() {
        let prefix = format!("r{round}/");
        let there: Vec<u64> = items
            .iter()
            .filter_map(|item| item.strip_prefix(&prefix)?.parse().ok())
            .collect();
        // One more may have been pushed and not printed.
        let expected: Vec<u64> = (0..there.len() as u64).collect();
        assert_eq!(there, expected, "each item of round {round} once, in order");
        assert!(
            there.len() >= said.len(),
            "round {round}: {} of {} are there",
            there.len(),
            said.len()
        );
        let last = reader
            .get(&Key::<u64>::named(format!("last_r{round}")))
            .unwrap();
        assert!(
            last >= said.last().copied(),
            "round {round}: {last:?} of {:?}",
            said.last()
        );
        total += there.len();
    }
    let count: usize = reader.get(&Key::new("count")).unwrap().unwrap_or(0);
    let said: usize = returned.iter().map(Vec::len).sum();
    println!(
        "{rounds} kills: {said} writes of each kind had returned; {total} pushes and {count} adds are there"
    );
    assert!(
        count >= said && count <= total + rounds,
        "{count} adds, {total} pushes, {said} said"
    );
    assert_eq!(items.len(), total);
    memory.close(DEADLINE).unwrap();
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_memory_whose_backend_was_never_there_keeps_its_journal() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    line.proxy.refuse(true);
    let memory = journalling(&line, directory.path()).build().unwrap();
    wait_disconnected(&memory);
    assert_eq!(
        memory.synced(&items()).push("early".to_owned()).unwrap(),
        Written::Queued
    );
    drop(memory);
    line.up();
    let memory = journalling(&line, directory.path()).build().unwrap();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&items()).unwrap().unwrap(), ["early"]);
}

#[test]
fn a_full_disk_is_an_error_of_that_call_and_what_was_journalled_before_is_delivered() {
    let (line, disk) = (Line::new(), Tmpfs::of(256));
    let memory = journalling(&line, disk.path()).build().unwrap();
    line.down(&memory);
    let list = memory.synced(&items());
    let long = |n: u32| format!("{n}{}", "x".repeat(2_000));
    list.push(long(0)).unwrap();
    let filler = disk.fill();
    // The rest of the page that the last record ends in may have room for a few more.
    let mut pushed = 1;
    let error = loop {
        match list.push(long(pushed)) {
            Ok(_) => pushed += 1,
            Err(error) => break error,
        }
        assert!(pushed < 100, "the disk is full");
    };
    assert_eq!(error.kind(), ErrorKind::Journal, "{error}");
    assert_eq!(
        list.len().unwrap(),
        pushed as usize,
        "a write that failed was withdrawn"
    );
    assert_eq!(
        memory.set(&Key::new("other"), long(0)).unwrap_err().kind(),
        ErrorKind::Journal
    );
    let other = memory.get(&Key::<String>::new("other"));
    assert_eq!(
        other.unwrap_err().kind(),
        ErrorKind::Unavailable,
        "its value is not known"
    );

    fs::remove_file(filler).unwrap();
    list.push("after".to_owned()).unwrap();
    memory.set(&Key::new("other"), "after".to_owned()).unwrap();
    drop(list);
    crash(memory, &line);
    line.up();
    let memory = journalling(&line, disk.path()).build().unwrap();
    memory.flush(DEADLINE).unwrap();
    let expected: Vec<String> = (0..pushed).map(long).chain(["after".to_owned()]).collect();
    assert_eq!(memory.get(&items()).unwrap().unwrap(), expected);
    assert_eq!(
        memory.get(&Key::<String>::new("other")).unwrap().unwrap(),
        "after"
    );
}

/// A memory with a journal in which the push of this item is a dead letter.
fn with_a_dead_push(line: &Line, directory: &Path, item: &str) -> Memory {
    let memory = journalling(line, directory).build().unwrap();
    memory.synced(&items()).push("a".to_owned()).unwrap();
    line.down(&memory);
    memory.synced(&items()).push(item.to_owned()).unwrap();
    // The key holds no list any more, so the push cannot be applied.
    line.open_directly().set(&Key::new("items"), 5).unwrap();
    line.up();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.status().dead_letters, 1);
    memory
}

#[test]
fn a_dead_letter_stays_in_the_journal_until_it_is_ended() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = with_a_dead_push(&line, directory.path(), "b");
    memory.close(DEADLINE).unwrap();
    drop(memory);

    // The next memory that asks finds it, even if another one was opened and dropped in between.
    drop(journalling(&line, directory.path()).build().unwrap());
    let memory = journalling(&line, directory.path()).build().unwrap();
    assert_eq!(memory.status().dead_letters, 1);
    let letters = forget_dead_letters(&memory);
    assert_eq!(
        (&*letters[0].key, letters[0].reason.kind()),
        ("memory:items", ErrorKind::Conflict)
    );
    assert_eq!(letters[0].changes().len(), 1, "{letters:?}");
    memory.close(DEADLINE).unwrap();
    assert_eq!(files(directory.path()), 0);
}

/// A rewrite drops what is not needed any more, and costs as much as what is still needed.
#[test]
fn a_large_dead_letter_does_not_cause_a_rewrite_at_each_write() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = with_a_dead_push(&line, directory.path(), &"x".repeat(2 << 20));
    line.down(&memory);
    let file = || {
        let file = fs::read_dir(directory.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        file.metadata().unwrap().ino()
    };
    let before = file();
    for n in 0..100 {
        memory.set(&Key::new("n"), n).unwrap();
    }
    assert_eq!(file(), before, "it was rewritten");
    // It is rewritten once enough of it is not needed any more.
    for n in 0..10 {
        memory
            .set(&Key::new("long"), n.to_string().repeat(1 << 20))
            .unwrap();
    }
    assert_ne!(file(), before);
}

/// The journal does not hold the value that a change was recorded on, and the process that adopts
/// it must not guess.
#[test]
fn an_adopted_assignment_is_not_superseded_by_what_was_there_when_it_was_made() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let state = Lists::attach(&journalling(&line, directory.path()).build().unwrap());
    let theirs = Lists::attach(&line.open_directly());
    theirs.lists().insert("a".to_owned(), vec![1]).unwrap();
    assert_eq!(state.lists().at("a").to_vec().unwrap(), [1]);
    line.down(state.memory());
    // The assignment takes the place of the push in the queue.
    state.lists().at("a").push(2).unwrap();
    state.lists().at("a").set(vec![9]).unwrap();
    let queued = state.lists().last_modified().unwrap();
    let memory = state.memory().clone();
    drop(state);
    crash(memory, &line);
    eventually(DEADLINE, "theirs is the later one", || {
        theirs.lists().insert("b".to_owned(), vec![3]).unwrap();
        theirs.lists().last_modified().unwrap() > queued
    });

    line.up();
    let state = Lists::attach(&journalling(&line, directory.path()).build().unwrap());
    state.memory().flush(DEADLINE).unwrap();
    let expected = [("a", vec![9]), ("b", vec![3])].map(|(name, list)| (name.to_owned(), list));
    assert_eq!(theirs.lists().to_map().unwrap(), expected.into());
    assert_eq!(
        (
            state.memory().status().superseded,
            state.memory().status().dead_letters
        ),
        (0, 0)
    );
}

/// The process that adopts a journal ends after it has copied all entries, and before it has
/// removed the old file.
#[test]
fn a_write_that_is_in_two_journals_is_delivered_once() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = journalling(&line, directory.path()).build().unwrap();
    line.down(&memory);
    for item in ["a", "b"] {
        memory.synced(&items()).push(item.to_owned()).unwrap();
    }
    memory.add(&Key::<i64>::new("count"), 5).unwrap();
    let first = fs::read_dir(directory.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let content = fs::read(&first).unwrap();
    crash(memory, &line);

    let memory = journalling(&line, directory.path()).build().unwrap();
    memory.synced(&items()).push("c".to_owned()).unwrap();
    crash(memory, &line);
    fs::write(&first, content).unwrap();
    assert_eq!(files(directory.path()), 2);

    line.up();
    let memory = journalling(&line, directory.path()).build().unwrap();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&items()).unwrap().unwrap(), ["a", "b", "c"]);
    assert_eq!(memory.get(&Key::<i64>::new("count")).unwrap(), Some(5));
    assert_eq!(memory.status().dead_letters, 0);
}
