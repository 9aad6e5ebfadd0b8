//! Two instances of a web service share a state, and no handler blocks its thread: near reads take
//! local memory, behind writes are queued, calls that have to wait are awaited, and a watch is a
//! stream of events.
//!
//! ```text
//! cargo run --example axum_state
//! ```
//!
//! Needs no server: both instances are in this process, with a memory of their own each, and share
//! a SQLite file in a temporary directory; or what `SYNCED_MEMORY_URL` names. It makes requests to
//! itself over the loopback, and ends.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt};
use synced_memory::{ErrorKind, SyncedMemory, Written};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(SyncedMemory)]
#[synced(prefix = "axum-state:")]
struct Site {
    /// Counted in both instances: adds merge.
    #[synced(near, behind, default)]
    visits: u64,
    #[synced(near, behind)]
    pages: BTreeMap<String, u64>,
    /// Written through: whether it is stored is part of the answer.
    #[synced(default = "hello".to_string())]
    motto: String,
}

/// Reads local memory, and so awaits nothing. Only the first read of a key asks the backend.
async fn visits(State(site): State<SyncedSite>) -> Result<Json<u64>, Failure> {
    Ok(Json(site.visits()?))
}

/// Returns at once: the count goes to the backend when it can.
async fn visit(
    State(site): State<SyncedSite>,
    Path(page): Path<String>,
) -> Result<StatusCode, Failure> {
    site.add_visits(1)?;
    // Never `update_pages(|pages| …  += 1)`: a closure waits for the answer, and is compared with
    // what it saw. Adds of all instances count, also those that were queued.
    site.pages().at(&page).add(1)?;
    Ok(StatusCode::ACCEPTED)
}

async fn pages(State(site): State<SyncedSite>) -> Result<Json<BTreeMap<String, u64>>, Failure> {
    Ok(Json(site.pages().to_map()?))
}

async fn motto(State(site): State<SyncedSite>) -> Result<String, Failure> {
    Ok(site.synced_motto().get_async().await?)
}

/// Awaits the backend's answer; the thread serves other requests meanwhile.
async fn set_motto(State(site): State<SyncedSite>, motto: String) -> Result<StatusCode, Failure> {
    match site.synced_motto().set_async(motto).await? {
        Written::Stored => Ok(StatusCode::OK),
        _ => Ok(StatusCode::ACCEPTED), // the backend is away: it is queued
    }
}

/// The motto and each later change of it, as server-sent events.
async fn follow(
    State(site): State<SyncedSite>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mottos = site
        .synced_motto()
        .watch()
        .filter_map(|motto| async { motto.ok() });
    Sse::new(mottos.map(|motto| Ok(Event::default().data(motto.as_deref().unwrap_or("not set")))))
}

/// An error as an answer: what a handler may return with `?`.
struct Failure(synced_memory::Error);

impl From<synced_memory::Error> for Failure {
    fn from(error: synced_memory::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.kind() {
            ErrorKind::Unset => StatusCode::NOT_FOUND,
            ErrorKind::Unavailable | ErrorKind::OutboxFull | ErrorKind::Closed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.0.to_string()).into_response()
    }
}

/// Starts an instance, and returns its port.
async fn start(url: &str) -> Result<(u16, SyncedSite), Box<dyn Error>> {
    let site = Site::open(url)?;
    let service = Router::new()
        .route("/visits", get(visits))
        .route("/visits/{page}", post(visit))
        .route("/pages", get(pages))
        .route("/motto", put(set_motto).get(motto))
        .route("/follow", get(follow))
        .with_state(site.clone());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async { axum::serve(listener, service).await });
    Ok((port, site))
}

// One thread for everything: a handler that blocked it would block all others.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = TempDir::new()?;
    let url = env::var("SYNCED_MEMORY_URL")
        .ok()
        .filter(|url| !url.is_empty());
    let url =
        url.unwrap_or_else(|| format!("sqlite:{}", directory.path().join("site.db").display()));
    let (one, site) = start(&url).await?;
    let (other, _) = start(&url).await?;
    site.memory().purge()?; // what an earlier run may have left behind

    let mut events = Events::of(other).await?;
    assert_eq!(events.next().await?, "not set");
    assert_eq!(
        request(other, "GET", "/motto", "").await?,
        (200, "hello".to_string())
    );
    assert_eq!(request(one, "PUT", "/motto", "good evening").await?.0, 200);
    assert_eq!(events.next().await?, "good evening");
    assert_eq!(
        request(other, "GET", "/motto", "").await?,
        (200, "good evening".to_string())
    );
    println!("what one instance sets, the other sends to a client that asked once");

    for n in 0..20 {
        let (port, page) = if n % 2 == 0 {
            (one, "/visits/home")
        } else {
            (other, "/visits/about")
        };
        assert_eq!(request(port, "POST", page, "").await?.0, 202);
    }
    for port in [one, other] {
        until(port, "/visits", "20").await?;
        until(port, "/pages", r#"{"about":10,"home":10}"#).await?;
    }
    println!("20 visits, 10 in each instance: both count them all");

    site.memory().purge()?;
    until(other, "/visits", "0").await?;
    Ok(())
}

/// Repeats a request until the answer is `expected`.
async fn until(port: u16, path: &str, expected: &str) -> Result<(), Box<dyn Error>> {
    let asked = async {
        while request(port, "GET", path, "").await? != (200, expected.to_string()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    timeout(DEADLINE, asked).await?
}

/// One request of HTTP/1.0, so that the answer ends with the connection: its status and its body.
async fn request(
    port: u16,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String), Box<dyn Error>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!(
        "{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await??;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or("an answer has a head and a body")?;
    let status = head.split(' ').nth(1).ok_or("a head has a status")?;
    Ok((status.parse()?, body.to_owned()))
}

/// The events of `/follow`.
struct Events(BufReader<TcpStream>);

impl Events {
    async fn of(port: u16) -> Result<Self, Box<dyn Error>> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /follow HTTP/1.0\r\n\r\n").await?;
        Ok(Self(BufReader::new(stream)))
    }

    async fn next(&mut self) -> Result<String, Box<dyn Error>> {
        loop {
            let mut line = String::new();
            timeout(DEADLINE, self.0.read_line(&mut line)).await??;
            if let Some(data) = line.strip_prefix("data:") {
                return Ok(data.trim().to_owned());
            }
            if line.is_empty() {
                return Err("the events have ended".into());
            }
        }
    }
}
