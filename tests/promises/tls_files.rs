//! The files of TLS: what is wrong with one is said when the memory is opened, and one that is
//! replaced is used from the next connect on.

use std::fs;

use support::{Authority, Certificate, Event, Logs, Server, eventually, eventually_some, replace};
use synced_memory::{Builder, ErrorKind, Key, Memory, Written};
use tempfile::TempDir;

use crate::line::{DEADLINE, quick, wait_connected};

fn number() -> Key<u64> {
    Key::new("n")
}

fn builder(server: &Server, authority: &Authority) -> Builder {
    quick(format!("rediss://127.0.0.1:{}", server.tls_port()))
        .timeout(DEADLINE)
        .tls_ca(authority.file())
}

fn reconnect(server: &Server) {
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
}

/// Checks that the memory has connected anew and that its writes are stored.
fn assert_goes_on(memory: &Memory, value: u64) {
    memory.flush(DEADLINE).unwrap();
    eventually(DEADLINE, "its writes are stored", || {
        memory.set(&number(), value).unwrap() == Written::Stored
    });
    wait_connected(memory);
}

fn show(server: &Server, certificate: &Certificate) {
    let file = certificate.file.display().to_string();
    let key = certificate.key.display().to_string();
    server.cli(&[
        "CONFIG",
        "SET",
        "tls-cert-file",
        &file,
        "tls-key-file",
        &key,
    ]);
}

#[test]
fn each_file_that_cannot_be_used_is_an_error_that_names_it() {
    let authority = Authority::new("ours");
    let (one, other) = (authority.local(), authority.local());
    let dir = TempDir::new().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "no PEM").unwrap();
    let torn = dir.path().join("torn");
    let whole = fs::read_to_string(&one.key).unwrap();
    let secret = whole.lines().nth(1).unwrap();
    fs::write(&torn, &whole[..whole.len() - 10]).unwrap();
    let damaged = dir.path().join("damaged");
    fs::write(&damaged, whole.replace(secret, &format!("!{secret}"))).unwrap();
    let locked = dir.path().join("locked");
    fs::write(
        &locked,
        whole.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
    )
    .unwrap();
    let no_certificate = dir.path().join("no certificate");
    let wrong = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(&no_certificate, wrong).unwrap();
    let missing = dir.path().join("missing");

    let ca = authority.file();
    let key = |key: &std::path::Path| {
        Memory::builder()
            .tls_ca(&ca)
            .tls_cert(&one.file)
            .tls_key(key)
    };
    for (builder, option, path) in [
        (Memory::builder().tls_ca(&missing), "tls_ca", &missing),
        (Memory::builder().tls_ca(&text), "tls_ca", &text),
        (
            Memory::builder().tls_ca(dir.path()),
            "tls_ca",
            &dir.path().to_owned(),
        ),
        (Memory::builder().tls_ca(&one.key), "tls_ca", &one.key),
        (
            Memory::builder().tls_ca(&no_certificate),
            "tls_ca",
            &no_certificate,
        ),
        (
            Memory::builder()
                .tls_ca(&ca)
                .tls_cert(&text)
                .tls_key(&one.key),
            "tls_cert",
            &text,
        ),
        (key(&missing), "tls_key", &missing),
        (key(&text), "tls_key", &text),
        (key(&torn), "tls_key", &torn),
        (key(&damaged), "tls_key", &damaged),
        (key(&locked), "tls_key", &locked),
        (key(&one.file), "tls_key", &one.file),
        (key(&other.key), "tls_key", &other.key),
    ] {
        let opened = builder.url("rediss://127.0.0.1:1").build();
        let error = opened.expect_err("the file cannot be used");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let said = format!("{error} {error:?}");
        assert!(said.contains(&format!("`{option}`")), "{option}: {said}");
        assert!(
            said.contains(path.to_str().unwrap()),
            "{}: {said}",
            path.display()
        );
        assert!(!said.contains(&secret[..8]), "no part of a key is said");
    }
}

#[test]
fn options_that_do_not_go_together_are_errors() {
    let authority = Authority::new("ours");
    let one = authority.local();
    let url = "rediss://127.0.0.1:1";
    let builder = || Memory::builder().url(url).tls_ca(authority.file());
    for (builder, words) in [
        (builder().tls_cert(&one.file), ["`tls_cert`", "`tls_key`"]),
        (builder().tls_key(&one.key), ["`tls_cert`", "`tls_key`"]),
        (builder().tls_insecure(true), ["`tls_insecure`", "`tls_ca`"]),
        (builder().tls_name("a b"), ["`tls_name`", "a b"]),
        (
            builder().url("redis://127.0.0.1:1"),
            ["`tls_ca`", "rediss://"],
        ),
        (builder().url("memory:"), ["`tls_ca`", "rediss://"]),
        (
            builder().url("redis+unix:///run/redis.sock"),
            ["`tls_ca`", "rediss://"],
        ),
    ] {
        let error = builder.build().expect_err("they do not go together");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "no {word}: {error}");
        }
    }
}

#[test]
fn an_authority_that_is_replaced_is_trusted_from_the_next_connect_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = Server::redis().tls(&old.local(), &old).start();
    let memory = builder(&server, &old).build().unwrap();
    assert_goes_on(&memory, 1);

    // The server first, and then, while it is refused, the client.
    show(&server, &new.local());
    reconnect(&server);
    eventually(DEADLINE, "the new certificate is refused", || {
        let error = memory.status().last_error;
        error.is_some_and(|error| error.to_string().contains("certificate of the server"))
    });
    replace(&old.file(), &new.file());
    assert_goes_on(&memory, 2);
}

#[test]
fn a_client_certificate_that_is_replaced_is_shown_from_the_next_connect_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = Server::redis()
        .tls(&old.local(), &old)
        .asks_for_certificates()
        .start();
    let mine = old.named(&["client"]);
    let memory = builder(&server, &old)
        .tls_cert(&mine.file)
        .tls_key(&mine.key)
        .build()
        .unwrap();
    assert_goes_on(&memory, 1);

    // From now on the server knows clients of the new authority alone.
    let ca = new.file().display().to_string();
    server.cli(&["CONFIG", "SET", "tls-ca-cert-file", &ca]);
    reconnect(&server);
    eventually(DEADLINE, "the old certificate is refused", || {
        let error = memory.status().last_error;
        error.is_some_and(|error| error.to_string().contains("refuses the TLS connection"))
    });
    mine.replace_by(&new.named(&["client"]));
    assert_goes_on(&memory, 2);
}

#[test]
fn a_broken_new_file_keeps_the_old_one_and_says_so_until_it_is_mended() {
    let authority = Authority::new("ours");
    let server = Server::redis()
        .tls(&authority.local(), &authority)
        .asks_for_certificates()
        .start();
    let mine = authority.named(&["client"]);
    let memory = builder(&server, &authority)
        .tls_cert(&mine.file)
        .tls_key(&mine.key)
        .build()
        .unwrap();
    assert_goes_on(&memory, 1);
    let good = fs::read(&mine.key).unwrap();

    let logs = Logs::capture();
    let broken: [&dyn Fn(); 3] = [
        &|| fs::write(&mine.key, "no key at all").unwrap(),
        &|| fs::remove_file(&mine.key).unwrap(),
        // The key of another certificate, as in the middle of a rotation.
        &|| {
            fs::copy(authority.named(&["client"]).key, &mine.key)
                .map(drop)
                .unwrap();
        },
    ];
    for (n, make_broken) in broken.iter().enumerate() {
        make_broken();
        reconnect(&server);
        let of_this = |event: &Event| {
            event.to_string().contains("files of TLS have changed")
                && event
                    .to_string()
                    .contains(&format!(":{}/0", server.tls_port()))
        };
        eventually_some(DEADLINE, "an event says so", || {
            logs.events().into_iter().filter(of_this).nth(n)
        });
        let error = memory.status().last_error.expect("the status says so");
        let said = error.to_string();
        assert!(
            said.contains("tls_key") && said.contains(mine.key.to_str().unwrap()),
            "{said}"
        );
        assert_goes_on(&memory, n as u64);
        // Once for each change, and not at each connect.
        reconnect(&server);
        assert_goes_on(&memory, n as u64 + 10);
        assert_eq!(logs.events().into_iter().filter(of_this).count(), n + 1);
    }
    let (new, before) = (authority.named(&["client"]), memory.status().last_error);
    fs::write(&mine.key, good).unwrap();
    mine.replace_by(&new);
    reconnect(&server);
    assert_goes_on(&memory, 100);
    let error = memory.status().last_error.map(|error| error.to_string());
    assert!(
        before.is_some() && error.is_some(),
        "what was said is not taken back"
    );
}
