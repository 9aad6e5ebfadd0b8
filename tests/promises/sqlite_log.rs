//! The write-ahead log of `sqlite:path` while somebody reads in a long transaction.

use std::fs;
use std::time::Duration;

use support::{Child, Logs, eventually};
use synced_memory::{Key, Memory, Written};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);
const MB: u64 = 1 << 20;

#[test]
fn a_log_that_a_long_reader_keeps_is_warned_of_and_given_back_after_it() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("state.db");
    let url = format!("sqlite:{}", path.display());
    let memory = Memory::builder().url(url).timeout(DEADLINE);
    let memory = memory.build().unwrap();
    let count = Key::<u64>::new("count");
    let log = || {
        let log = fs::metadata(place.path().join("state.db-wal"));
        log.unwrap().len()
    };
    memory.add(&count, 1).unwrap();
    let program = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    db.execute(line).fetchall()
    print('done', flush=True)
";
    let python = || Child::spawn("python3", ["-c", program, path.to_str().unwrap()]);
    let mut reader = python();
    reader.ask("BEGIN");
    reader.ask("SELECT count(*) FROM keys");

    let (before, adds) = (log(), 1_000);
    for _ in 0..adds {
        assert_eq!(memory.add(&count, 1).unwrap(), Written::Stored);
    }
    println!("an add takes {} bytes of the log", (log() - before) / adds);
    // The rest is written faster.
    let logs = Logs::capture();
    let mut writer = python();
    for n in 0..10 {
        writer.ask(format!(
            "INSERT INTO keys (key, envelope) VALUES ('memory:{n}', hex(randomblob(4000000)))"
        ));
    }
    assert!(log() > 70 * MB, "{}", log());
    let name = path.display().to_string();
    eventually(DEADLINE, "it is warned of", || {
        !logs.containing(&name).is_empty()
    });
    let warning = logs.containing(&name).remove(0);
    assert_eq!(warning.level.as_str(), "WARN", "{warning}");

    reader.ask("COMMIT");
    eventually(DEADLINE, "it is short again", || {
        memory.add(&count, 1).unwrap();
        log() <= 17 * MB
    });
}
