//! One state for Rust and Python, byte by byte.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{Proxy, Python, Server};
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory, Written};

use crate::line::{DEADLINE, quick, wait_disconnected};

#[derive(SyncedMemory, Debug, PartialEq)]
struct Sample {
    count: i64,
    huge: u64,
    ratio: f64,
    text: String,
    flag: bool,
    nothing: Option<String>,
    nested: Value,
    map: BTreeMap<String, Vec<i32>>,
}

fn sample() -> Sample {
    Sample {
        count: i64::MIN,
        huge: u64::MAX,
        ratio: 0.1 + 0.2,
        text: "grüße \u{1F980} \"quoted\" \\ \n \u{0} end".to_owned(),
        flag: true,
        nothing: None,
        nested: json!({"z": [1, {"a": null}], "a": {"deep": [[], {}]}}),
        map: BTreeMap::from([("ключ".to_owned(), vec![1, 2])]),
    }
}

#[test]
fn what_rust_writes_python_reads() {
    let server = Server::redis().start();
    let handle = Sample::open(&server.url()).unwrap();
    assert_eq!(handle.restore(sample()).unwrap(), Written::Stored);
    let mut python = Python::against(&server);
    python.run("from synced_memory import Memory; m = Memory()");
    let printed = python.run(
        "import json; print(json.dumps([m.count, m.huge, m.ratio.hex(), m.text, m.flag, m.nothing, m.nested, m.map]))",
    );
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let expected = sample();
    assert_eq!(printed[0], json!(expected.count));
    assert_eq!(printed[1], json!(expected.huge));
    assert_eq!(printed[2], json!("0x1.3333333333334p-2"));
    assert_eq!(printed[3], json!(expected.text));
    assert_eq!(printed[4], json!(true));
    assert_eq!(printed[5], json!(null));
    assert_eq!(printed[6], expected.nested);
    assert_eq!(printed[7], json!(expected.map));
}

#[test]
fn what_python_writes_rust_reads() {
    let server = Server::redis().start();
    let mut python = Python::against(&server);
    python.run(
        "from synced_memory import Memory; m = Memory()
m.count = -2**63; m.huge = 2**64 - 1; m.ratio = 0.1 + 0.2; m.flag = True; m.nothing = None
m.text = 'grüße \\U0001F980 \"quoted\" \\\\ \\n \\0 end'
m.nested = {'z': [1, {'a': None}], 'a': {'deep': [[], {}]}}
m.map = {'ключ': [1, 2]}",
    );
    let handle = Sample::open(&server.url()).unwrap();
    assert_eq!(handle.snapshot().unwrap(), sample());
    assert_eq!(handle.ratio().unwrap().to_bits(), (0.1_f64 + 0.2).to_bits());
}

#[test]
fn every_float_survives_bit_for_bit_both_ways() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    let key = Key::<f64>::new("ratio");
    let mut python = Python::against(&server);
    python.run("from synced_memory import Memory; import struct; m = Memory()");
    for float in [
        0.0,
        -0.0,
        0.1,
        1.0 / 3.0,
        5e-324,
        f64::MIN_POSITIVE,
        f64::MAX,
        -1e300,
        123_456_789.123_456_79,
    ] {
        let bits = float.to_bits();
        memory.set(&key, float).unwrap();
        assert_eq!(
            python.run("print(struct.unpack('<Q', struct.pack('<d', m.ratio))[0])"),
            bits.to_string()
        );
        python.run(&format!(
            "m.ratio = struct.unpack('<d', struct.pack('<Q', {bits}))[0]"
        ));
        assert_eq!(memory.get(&key).unwrap().unwrap().to_bits(), bits);
    }
}

#[test]
fn a_delete_on_either_side_is_seen_on_the_other() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    let key = Key::<i64>::new("count");
    let mut python = Python::against(&server);
    memory.set(&key, 1).unwrap();
    python.run("from synced_memory import Memory; m = Memory(); m.count; del m.count");
    assert_eq!(memory.get(&key).unwrap(), None);
    memory.set(&key, 2).unwrap();
    assert!(memory.delete(&key).unwrap());
    assert_eq!(server.get_raw("memory:count"), None);
    assert_eq!(
        python.run("n = Memory()\ntry: n.count\nexcept AttributeError: print('unset')"),
        "unset"
    );
}

#[test]
fn of_a_python_and_a_rust_write_the_later_one_wins() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    let key = Key::<String>::new("who");
    let mut python = Python::against(&server);
    python.run("from synced_memory import Memory; m = Memory()");
    for _ in 0..3 {
        assert_eq!(
            memory.set(&key, "rust".to_owned()).unwrap(),
            Written::Stored
        );
        assert_eq!(python.run("print(m.who)"), "rust");
        python.run("m.who = 'python'");
        assert_eq!(memory.get(&key).unwrap().as_deref(), Some("python"));
    }
}

#[test]
fn a_value_without_an_envelope_is_read_and_has_the_stamp_zero() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    let synced = memory.synced(&Key::<Value>::new("raw"));
    for raw in [
        "5",
        "\"text\"",
        "null",
        "[1, 2]",
        r#"{"last_modified": 5, "value": 1}"#,
    ] {
        server.set_raw("memory:raw", raw);
        assert_eq!(
            synced.get().unwrap(),
            serde_json::from_str::<Value>(raw).unwrap()
        );
        assert_eq!(synced.last_modified().unwrap(), Some(0));
    }
    assert_eq!(synced.set(json!(6)).unwrap(), Written::Stored);
    assert!(synced.last_modified().unwrap().unwrap() > 1_700_000_000_000_000_000);
}

#[test]
fn a_bad_value_in_one_key_breaks_that_key_alone_and_is_not_repeated_in_the_message() {
    let server = Server::redis().start();
    let handle = Sample::open(&server.url()).unwrap();
    handle.restore(sample()).unwrap();
    for garbage in [
        "s3cret garbage",
        r#"{"value": "s3cret", "last_modified": 5}"#,
        "",
        "{\"value\": 1",
        "\u{7f}\u{0}",
    ] {
        server.set_raw("memory:count", garbage);
        let error = handle.count().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{garbage}");
        assert!(error.to_string().contains("memory:count"), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert_eq!(handle.huge().unwrap(), u64::MAX);
        assert_eq!(handle.text().unwrap(), sample().text);
        assert_eq!(handle.snapshot().unwrap_err().kind(), ErrorKind::Decode);
    }
    assert_eq!(handle.set_count(7).unwrap(), Written::Stored);
    assert_eq!(handle.count().unwrap(), 7);
}

#[test]
fn a_key_of_another_type_is_rejected_alone() {
    let server = Server::redis().start();
    let handle = Sample::open(&server.url()).unwrap();
    handle.restore(sample()).unwrap();
    server.cli(&["DEL", "memory:count"]);
    server.cli(&["LPUSH", "memory:count", "x"]);
    assert_eq!(handle.count().unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(handle.set_count(1).unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(handle.huge().unwrap(), u64::MAX);
    assert_eq!(handle.memory().status().pending, 0);
}

#[test]
fn a_value_that_json_cannot_hold_is_refused_and_nothing_is_changed() {
    let server = Server::redis().start();
    let handle = Sample::open(&server.url()).unwrap();
    handle.restore(sample()).unwrap();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = handle.set_ratio(value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Serialize);
        assert!(error.to_string().contains("memory:ratio"), "{error}");
    }
    assert_eq!(
        handle
            .restore(Sample {
                ratio: f64::NAN,
                count: 1,
                ..sample()
            })
            .unwrap_err()
            .kind(),
        ErrorKind::Serialize
    );
    assert_eq!(handle.snapshot().unwrap(), sample());
}

#[test]
fn the_wire_form_is_the_same_on_valkey_and_on_redis_6() {
    for server in [Server::valkey().start(), Server::redis_6().start()] {
        let handle = Sample::open(&server.url()).unwrap();
        assert_eq!(handle.restore(sample()).unwrap(), Written::Stored);
        assert_eq!(handle.snapshot().unwrap(), sample());
        let stored = server.get_text("memory:flag").unwrap();
        let (value, stamp) = stored.split_once(r#","last_modified": "#).unwrap();
        assert_eq!(value, r#"{"value": true"#);
        assert_eq!(stamp.len(), "1719400000000000000}".len());
        assert!(handle.memory().delete(&SyncedSample::FLAG).unwrap());
        assert_eq!(server.get_raw("memory:flag"), None);
    }
}

/// Beyond the stamps of today and of the next years.
const LATER: u64 = 3_000_000_000_000_000_000;

#[test]
fn the_last_bytes_alone_decide_what_an_envelope_is_here_and_in_the_script() {
    let stamped = |text: &str| text.replace('@', &LATER.to_string());
    // What is stored, and whether that is a stamp.
    let table = [
        (r#"{"value": 1, "last_modified": @}"#, true),
        (r#"{"value":1,"last_modified":@}"#, true),
        (
            "{\"value\": 1,\n \"last_modified\"\u{b}:\t@ }\r\n\u{c}",
            false,
        ),
        ("{\"value\": 1,\n \"last_modified\":\t@ }\r\n\u{b}", true),
        (
            r#"{"value": {"value": 2, "last_modified": 5}, "last_modified": @}"#,
            true,
        ),
        (r#"{"other": true, "last_modified": @}"#, true),
        (r#"{"last_modified": @, "value": 1}"#, false),
        (r#"{"a": {"value": 1, "last_modified": @}}"#, false),
        (r#"[{"value": 1, "last_modified": @}]"#, false),
        (r#"{"value": "\"last_modified\": @}"}"#, false),
        (r#""{\"value\": 1, \"last_modified\": @}""#, false),
        (r#"{"value": 1, "last_modified": -@}"#, false),
        (r#"{"value": 1, "last_modified": @.0}"#, false),
        (r#"{"value": 1, "last_modified": "@"}"#, false),
        (r#"{"value": 1, "last_modified": @e0}"#, false),
        (r#"{"value": 1, "last_modified": 9999@}"#, false),
        (
            r#"{"value": 1, "last_modified": 4611686018427387905}"#,
            false,
        ),
        ("@", false),
        ("7", false),
    ];
    for server in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = server.start();
        let proxy = Proxy::to(&server);
        let memory = quick(proxy.url()).build().unwrap();
        let beside = Memory::open(&server.url()).unwrap();
        proxy.refuse(true);
        proxy.cut();
        wait_disconnected(&memory);
        let key = |row: usize| Key::<Value>::named(format!("row{row}"));
        for (row, (text, is_stamp)) in table.iter().enumerate() {
            server.set_raw(&format!("memory:row{row}"), stamped(text));
            let read = beside.synced(&key(row)).last_modified().unwrap();
            assert_eq!(
                read,
                Some(if *is_stamp { LATER } else { 0 }),
                "{text:?} here"
            );
            memory.set(&key(row), Value::from("queued")).unwrap();
        }
        proxy.refuse(false);
        memory.flush(DEADLINE).unwrap();
        // A queued write gives way to a later stamp, and to nothing else.
        for (row, (text, is_stamp)) in table.iter().enumerate() {
            let stored = server.get_text(&format!("memory:row{row}")).unwrap();
            let is_kept = stored == stamped(text);
            assert_eq!(is_kept, *is_stamp, "{text:?} in the script: {stored:?}");
        }
    }
}
