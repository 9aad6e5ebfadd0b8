//! TLS: who is trusted, what a refusal says, and that everything else holds over it.
//!
//! On Redis 7.0, which Debian builds with TLS; the other servers of the tests are built without.

use std::sync::Arc;
use std::time::Duration;

use support::Direction::{ToClient, ToServer};
use support::{Authority, Certificate, Logs, Proxy, Server, eventually};
use synced_memory::rustls::crypto::{CryptoProvider, ring};
use synced_memory::rustls::pki_types::CertificateDer;
use synced_memory::rustls::pki_types::pem::PemObject;
use synced_memory::rustls::{ClientConfig, RootCertStore};
use synced_memory::{Builder, ConnectPolicy, Error, ErrorKind, Key, Memory, ReadPolicy, Written};

use crate::line::{DEADLINE, quick, wait_connected, wait_disconnected};

const MIB: usize = 1 << 20;

fn number() -> Key<u64> {
    Key::new("n")
}

fn url(host: &str, port: u16) -> String {
    format!("rediss://{host}:{port}")
}

/// A server whose certificate this authority has signed, and a memory that trusts the authority.
struct Setup {
    authority: Authority,
    server: Server,
}

impl Setup {
    fn new(certificate: impl Fn(&Authority) -> Certificate) -> Self {
        let authority = Authority::new("ours");
        let certificate = certificate(&authority);
        let server = Server::redis().tls(&certificate, &authority).start();
        Self { authority, server }
    }

    fn good() -> Self {
        Self::new(Authority::local)
    }

    fn url(&self, host: &str) -> String {
        url(host, self.server.tls_port())
    }

    fn builder(&self) -> Builder {
        quick(self.url("127.0.0.1"))
            .timeout(DEADLINE)
            .tls_ca(self.authority.file())
    }
}

/// Checks that the memory is connected to a server that stores what it is told.
fn assert_stores(builder: Builder) -> Memory {
    let memory = builder.connect(ConnectPolicy::Required).build().unwrap();
    assert_eq!(memory.set(&number(), 7).unwrap(), Written::Stored);
    assert_eq!(memory.get(&number()).unwrap(), Some(7));
    memory
}

/// Checks that opening is `Rejected`, with all of these words.
fn assert_rejected(builder: Builder, words: &[&str]) {
    let error = builder.build().expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert_says(&error, words);
}

fn assert_says(error: &Error, words: &[&str]) {
    let said = error.to_string();
    for word in words {
        assert!(said.contains(word), "no {word}: {said}");
    }
}

fn last_error(memory: &Memory) -> Error {
    memory.status().last_error.expect("an error")
}

#[test]
fn a_server_with_a_good_certificate_is_used_by_name_and_by_address() {
    let setup = Setup::good();
    let (port, ca) = (setup.server.tls_port(), setup.authority.file());
    for scheme in ["rediss", "valkeys"] {
        for host in ["localhost", "127.0.0.1"] {
            let query = format!("{scheme}://{host}:{port}?tls_ca={}", ca.display());
            assert_stores(quick(query).timeout(DEADLINE));
            let url = format!("{scheme}://{host}:{port}");
            assert_stores(quick(url).timeout(DEADLINE).tls_ca(&ca));
        }
    }
    assert!(
        CryptoProvider::get_default().is_none(),
        "the process's own choice of a provider is left to it"
    );
    assert!(setup.server.get_text("memory:n").is_some());
}

#[test]
fn a_certificate_for_another_host_is_refused_and_both_names_are_said() {
    let setup = Setup::new(|authority| authority.named(&["cache.example.com"]));
    let words = ["localhost", "cache.example.com", "certificate"];
    assert_rejected(
        quick(setup.url("localhost"))
            .timeout(DEADLINE)
            .tls_ca(setup.authority.file()),
        &words,
    );
    assert_rejected(setup.builder(), &["cache.example.com"]);
}

#[test]
fn a_server_at_an_address_is_verified_by_the_name_that_it_is_to_have() {
    let setup = Setup::new(|authority| authority.named(&["cache.example.com"]));
    assert_stores(setup.builder().tls_name("cache.example.com"));
    assert_rejected(
        setup.builder().tls_name("other.example.com"),
        &["other.example.com"],
    );
}

#[test]
fn an_expired_certificate_is_refused() {
    let setup = Setup::new(|authority| authority.expired(&["localhost", "127.0.0.1"]));
    assert_rejected(setup.builder(), &["expired"]);
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let setup = Setup::good();
    let other = Authority::new("theirs");
    let another = quick(setup.url("localhost"))
        .timeout(DEADLINE)
        .tls_ca(other.file());
    assert_rejected(another, &["certificate of the server", "UnknownIssuer"]);
    // The system's authorities have not signed it either.
    assert_rejected(
        quick(setup.url("localhost")).timeout(DEADLINE),
        &["UnknownIssuer"],
    );
}

/// Under TLS 1.3 the server says so after the handshake, when the login is under way.
#[test]
fn a_server_that_asks_for_a_certificate_and_gets_none_says_so() {
    let authority = Authority::new("ours");
    for protocols in ["TLSv1.3", "TLSv1.2"] {
        let server = Server::redis()
            .tls(&authority.local(), &authority)
            .asks_for_certificates()
            .arg("tls-protocols", protocols)
            .start();
        let builder = || {
            quick(url("127.0.0.1", server.tls_port()))
                .timeout(DEADLINE)
                .tls_ca(authority.file())
        };
        assert_rejected(builder(), &["alert", "tls_cert"]);

        let stranger = Authority::new("theirs");
        let theirs = stranger.local();
        let wrong = builder().tls_cert(&theirs.file).tls_key(&theirs.key);
        assert_rejected(wrong, &["alert", "nknown"]);

        let ours = authority.named(&["client"]);
        assert_stores(builder().tls_cert(&ours.file).tls_key(&ours.key));
    }
}

#[test]
fn a_url_with_tls_to_a_port_without_ends_in_time_and_says_what_to_write() {
    let server = Server::redis().start();
    let port = server.port();
    let authority = Authority::new("ours");
    // Some handshakes hold a line end, which Redis answers to; to most it does not.
    for _ in 0..8 {
        let error = Memory::builder()
            .url(url("127.0.0.1", port))
            .tls_ca(authority.file())
            .timeout(Duration::from_millis(200))
            .connect(ConnectPolicy::Required)
            .build()
            .expect_err("there is no TLS");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_says(
            &error,
            &["TLS", &format!("write redis://127.0.0.1:{port}/0")],
        );
    }
}

#[test]
fn a_url_without_tls_to_a_port_with_it_says_what_to_write() {
    let setup = Setup::good();
    let port = setup.server.tls_port();
    for (scheme, with_tls) in [("redis", "rediss"), ("valkey", "valkeys")] {
        let url = format!("{scheme}://127.0.0.1:{port}");
        let error = quick(url)
            .timeout(Duration::from_secs(2))
            .connect(ConnectPolicy::Required)
            .build()
            .expect_err("it speaks TLS alone");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_says(
            &error,
            &["TLS", &format!("write {with_tls}://127.0.0.1:{port}/0")],
        );
    }
}

#[test]
fn without_verification_every_certificate_is_taken_and_each_open_warns() {
    let setup = Setup::new(|authority| authority.expired(&["cache.example.com"]));
    let port = setup.server.tls_port();
    let logs = Logs::capture();
    let warnings = || {
        let warnings = logs.containing("`tls_insecure`").into_iter();
        let of_this = format!("127.0.0.1:{port}/0");
        warnings
            .filter(move |event| event.to_string().contains(&of_this))
            .count()
    };
    for opened in 1..=3 {
        assert_stores(quick(url("127.0.0.1", port) + "?tls_insecure=true").timeout(DEADLINE));
        assert_eq!(warnings(), opened);
    }
    assert_rejected(setup.builder(), &[]);
    assert_eq!(warnings(), 3);
}

#[test]
fn a_configuration_of_the_users_own_decides_by_itself() {
    let setup = Setup::good();
    let config = |authority: Option<&Authority>| {
        let mut roots = RootCertStore::empty();
        if let Some(authority) = authority {
            roots
                .add(CertificateDer::from_pem_file(authority.file()).unwrap())
                .unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    };
    let builder = || quick(setup.url("127.0.0.1")).timeout(DEADLINE);
    assert_stores(builder().tls_config(config(Some(&setup.authority))));
    assert_rejected(builder().tls_config(config(None)), &["UnknownIssuer"]);
    assert_stores(
        builder()
            .tls_config(config(Some(&setup.authority)))
            .tls_name("localhost"),
    );
}

/// Its certificates may be in the middle of being replaced.
#[test]
fn a_certificate_that_is_refused_later_is_an_outage_and_not_an_end() {
    let setup = Setup::good();
    let memory = assert_stores(setup.builder());
    let stranger = Authority::new("theirs");
    let theirs = stranger.local();
    let ours = setup.authority.local();
    let show = |certificate: &Certificate| {
        let file = certificate.file.display().to_string();
        let key = certificate.key.display().to_string();
        let set = [
            "CONFIG",
            "SET",
            "tls-cert-file",
            &file,
            "tls-key-file",
            &key,
        ];
        setup.server.cli(&set);
        setup
            .server
            .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    };
    show(&theirs);
    wait_disconnected(&memory);
    eventually(DEADLINE, "the refusal shows", || {
        last_error(&memory).to_string().contains("UnknownIssuer")
    });
    assert_eq!(last_error(&memory).kind(), ErrorKind::Unavailable);
    assert_eq!(memory.set(&number(), 8).unwrap(), Written::Queued);

    show(&ours);
    memory.flush(DEADLINE).unwrap();
    wait_connected(&memory);
    assert_eq!(memory.get(&number()).unwrap(), Some(8));
}

/// A line of 10 MB/s over which both sides send several megabytes of TLS records.
#[test]
fn near_reads_and_large_values_go_over_a_slow_line_with_tls() {
    let setup = Setup::good();
    let proxy = Proxy::to(&setup.server.tls_port());
    let memory = quick(url("127.0.0.1", proxy.port()))
        .tls_ca(setup.authority.file())
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    let theirs = quick(setup.server.url()).timeout(DEADLINE).build().unwrap();
    let large = Key::<String>::new("large");
    memory.set(&number(), 0).unwrap();
    let text = "x".repeat(10 * MIB);
    theirs.set(&large, text.clone()).unwrap();
    proxy.pace(ToClient, Some(10_000_000));
    proxy.pace(ToServer, Some(10_000_000));

    let mut calls = 0;
    eventually(DEADLINE, "the large value has arrived", || {
        calls += 1;
        memory.set(&number(), calls).unwrap();
        assert_eq!(memory.get(&number()).unwrap(), Some(calls));
        memory
            .get(&large)
            .is_ok_and(|found| found.as_ref() == Some(&text))
    });
    let large_write = "y".repeat(4 * MIB);
    memory.set(&large, large_write.clone()).unwrap();
    memory.flush(DEADLINE).unwrap();
    assert!(theirs.get(&large).unwrap() == Some(large_write));
    assert_eq!(
        proxy.connections(),
        2,
        "one for others, one for large values, and none was taken for dead"
    );

    proxy.pace(ToClient, None);
    for n in 1_000..1_020 {
        theirs.set(&number(), n).unwrap();
        eventually(DEADLINE, "the change is seen", || {
            memory.get(&number()).unwrap() == Some(n)
        });
    }
    theirs.set(&large, "z".to_owned()).unwrap();
    eventually(DEADLINE, "the change to a small one is seen", || {
        memory.get(&large).unwrap() == Some("z".to_owned())
    });
}

#[test]
fn a_line_with_tls_that_goes_silent_is_noticed_and_made_anew() {
    let setup = Setup::good();
    let proxy = Proxy::to(&setup.server.tls_port());
    let memory = quick(url("127.0.0.1", proxy.port()))
        .tls_ca(setup.authority.file())
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let list = memory.synced(&Key::<Vec<u64>>::new("list"));
    assert_eq!(list.push(0).unwrap(), Written::Stored);
    proxy.swallow_answers(true);
    assert_eq!(list.push(1).unwrap(), Written::Queued);
    wait_disconnected(&memory);
    proxy.swallow_answers(false);
    proxy.cut();
    memory.flush(DEADLINE).unwrap();
    let theirs = quick(setup.server.url()).timeout(DEADLINE).build().unwrap();
    let found = theirs.get(&Key::<Vec<u64>>::new("list")).unwrap();
    assert_eq!(found, Some(vec![0, 1]), "each once");
}
