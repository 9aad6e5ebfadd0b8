//! Through reads and writes over TLS against bare redis-rs over TLS, on one server, and what TLS
//! costs both of them.
//!
//! `cargo bench -p synced-memory-benches --bench tls`

use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use support::{Authority, Server};
use synced_memory::rustls::pki_types::pem::PemObject;
use synced_memory::rustls::pki_types::{CertificateDer, ServerName};
use synced_memory::rustls::{self, ClientConfig, RootCertStore};
use synced_memory::{Key, Memory};
use synced_memory_benches::{Side, medians, print, report};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

const ROUNDS: usize = 15;
const COUNT: u32 = 2_000;

fn main() {
    let authority = Authority::new("bench");
    let server = Server::redis().tls(&authority.local(), &authority).start();
    let key = Key::<u64>::new("number");
    let plain = Memory::open(&server.url()).expect("the server is there");
    let secured = Memory::builder()
        .url(format!("rediss://127.0.0.1:{}", server.tls_port()))
        .tls_ca(authority.file())
        .timeout(Duration::from_secs(5))
        .build()
        .expect("the server is there");
    plain.set(&key, 1).expect("the server takes writes");

    let runtime = runtime();
    let connection = runtime.block_on(bare(&server, &authority));
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let other = background.block_on(bare(&server, &authority));
    let (over_tls, without) = (secured.synced(&key), plain.synced(&key));
    let envelope = r#"{"value": 12345,"last_modified": 1719400000000000000}"#;

    let mut reads: Vec<Side<'_>> = vec![
        (
            "through read, TLS",
            Box::new(|count| (0..count).for_each(|_| _ = over_tls.get().expect("it is set"))),
        ),
        ("bare GET, TLS", {
            let (runtime, mut connection) = (&runtime, connection.clone());
            Box::new(move |count| {
                for _ in 0..count {
                    let _: String = runtime
                        .block_on(connection.get("memory:number"))
                        .expect("it is set");
                }
            })
        }),
        ("bare GET, TLS, connection on another thread", {
            let mut other = other.clone();
            Box::new(move |count| {
                for _ in 0..count {
                    let _: String =
                        pollster::block_on(other.get("memory:number")).expect("it is set");
                }
            })
        }),
        (
            "through read",
            Box::new(|count| (0..count).for_each(|_| _ = without.get().expect("it is set"))),
        ),
    ];
    let figures = medians(ROUNDS, COUNT, &mut reads);
    print(&reads, &figures);
    report(
        "TLS: through read / bare multiplexed GET, one thread",
        figures[0] / figures[1],
        "<= 1.15",
    );
    report(
        "  … with the connection on another thread",
        figures[0] / figures[2],
        "",
    );
    report(
        "  … what TLS costs a through read",
        figures[0] / figures[3],
        "",
    );
    drop(reads);

    let mut writes: Vec<Side<'_>> = vec![
        (
            "through write, TLS",
            Box::new(|count| {
                (0..count).for_each(|n| _ = over_tls.set(u64::from(n)).expect("it is there"));
            }),
        ),
        ("bare SET, TLS", {
            let (runtime, mut connection) = (&runtime, connection.clone());
            Box::new(move |count| {
                for _ in 0..count {
                    let () = runtime
                        .block_on(connection.set("bare", envelope))
                        .expect("it is there");
                }
            })
        }),
    ];
    let figures = medians(ROUNDS, COUNT, &mut writes);
    print(&writes, &figures);
    report(
        "TLS: through write / bare multiplexed SET, one thread",
        figures[0] / figures[1],
        "",
    );
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The multiplexed connection of redis-rs over the same TLS library, as its own feature makes it.
async fn bare(server: &Server, authority: &Authority) -> MultiplexedConnection {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(authority.file()).expect("a certificate");
    roots.add(root).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("it has some")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(("127.0.0.1", server.tls_port()));
    let socket = socket.await.expect("the server is there");
    socket.set_nodelay(true).expect("a socket");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket);
    let stream = stream.await.expect("the certificate is good");
    let login = redis::RedisConnectionInfo::default();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let (connection, driver) = MultiplexedConnection::new_with_config(&login, stream, config)
        .await
        .expect("the server is there");
    tokio::spawn(driver);
    connection
}
