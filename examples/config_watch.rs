//! A server whose configuration changes while it runs: it is notified of each change, never
//! restarts, reads no file again, and no request waits for the configuration.
//!
//! ```text
//! cargo run --example config_watch
//! ```
//!
//! Needs no server: this process, the operator, and the server, which is this program started a
//! second time, share a SQLite file in a temporary directory; or what `SYNCED_MEMORY_URL` names.

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, RwLock};
use std::thread;

use synced_memory::SyncedMemory;
use synced_memory_examples::wait_until;
use tempfile::TempDir;

/// `near`: a getter reads local memory, which the backend's invalidations keep current.
#[derive(SyncedMemory)]
#[synced(prefix = "config-watch:", near)]
struct Config {
    #[synced(default = "Hello".to_string(), into)]
    greeting: String,
    /// Who is not greeted: names, or prefixes of names followed by `*`.
    blocked: Vec<String>,
    #[synced(default)]
    shut_down: bool,
}

/// The compiled form of `blocked`. To compile it takes time, so the server does that when the rules
/// change, and not for each request.
#[derive(Default)]
struct Filter {
    names: Vec<String>,
    prefixes: Vec<String>,
}

impl Filter {
    fn of(rules: &[String]) -> Self {
        let (prefixes, names): (Vec<_>, Vec<_>) =
            rules.iter().partition(|rule| rule.ends_with('*'));
        let prefixes = prefixes
            .iter()
            .map(|rule| rule.trim_end_matches('*').to_owned())
            .collect();
        Self {
            names: names.into_iter().cloned().collect(),
            prefixes,
        }
    }

    fn blocks(&self, name: &str) -> bool {
        self.names.iter().any(|other| other == name)
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).as_deref() == Some("server") {
        server()
    } else {
        operator()
    }
}

fn server() -> Result<(), Box<dyn Error>> {
    let config = Config::from_env()?;
    let filter = Arc::new(RwLock::new(Filter::default()));
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    let requests = {
        let (config, filter) = (config.clone(), Arc::clone(&filter));
        move || {
            listener
                .incoming()
                .flatten()
                .for_each(|client| _ = answer(&client, &config, &filter));
        }
    };
    thread::spawn(requests);

    // The first item names all fields, so what depends on them is made here and nowhere else.
    for changed in config.watch() {
        let changed = changed?.expect("a handle is never deleted");
        eprintln!("server:   {} changed", changed.join(", "));
        if changed.contains(&"blocked") {
            *filter.write().expect("no thread panics with it") =
                Filter::of(&config.blocked().get()?);
        }
        if config.shut_down()? {
            eprintln!("server:   shuts down");
            break;
        }
    }
    Ok(())
}

/// One request: a line with a name.
fn answer(
    mut client: &TcpStream,
    config: &SyncedConfig,
    filter: &RwLock<Filter>,
) -> Result<(), Box<dyn Error>> {
    let mut name = String::new();
    BufReader::new(client).read_line(&mut name)?;
    let name = name.trim();
    if filter
        .read()
        .expect("no thread panics with it")
        .blocks(name)
    {
        writeln!(client, "no")?;
    } else {
        writeln!(client, "{}, {name}!", config.greeting()?)?;
    }
    Ok(())
}

fn operator() -> Result<(), Box<dyn Error>> {
    let directory = TempDir::new()?;
    let url = env::var("SYNCED_MEMORY_URL")
        .ok()
        .filter(|url| !url.is_empty());
    let url =
        url.unwrap_or_else(|| format!("sqlite:{}", directory.path().join("config.db").display()));
    let config = Config::open(&url)?;
    config.memory().purge()?; // what an earlier run may have left behind

    let mut server = Command::new(env::current_exe()?);
    let mut server = server
        .arg("server")
        .env("SYNCED_MEMORY_URL", &url)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut port = String::new();
    BufReader::new(server.stdout.take().expect("it is a pipe")).read_line(&mut port)?;
    let port = port.trim().parse()?;
    let greets = |name: &str, expected: &str| {
        wait_until(&format!("{name} gets `{expected}`"), || {
            ask(port, name).is_ok_and(|answer| answer == expected)
        });
        println!("operator: {name} gets `{expected}`");
    };

    greets("Ada", "Hello, Ada!"); // nothing is set yet: the default
    config.set_greeting("Good evening")?;
    greets("Ada", "Good evening, Ada!");
    config
        .blocked()
        .extend(["Mallory".to_string(), "bot-*".to_string()])?;
    greets("Mallory", "no");
    greets("bot-7", "no");
    greets("Ada", "Good evening, Ada!");
    config.blocked().at(0).set("Eve".to_string())?;
    greets("Mallory", "Good evening, Mallory!");
    config.synced_greeting().delete()?; // and it reads as its default again
    greets("Mallory", "Hello, Mallory!");

    config.set_shut_down(true)?;
    assert!(
        server.wait()?.success(),
        "it is still the process that was started"
    );
    config.memory().purge()?;
    Ok(())
}

fn ask(port: u16, name: &str) -> Result<String, Box<dyn Error>> {
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    writeln!(server, "{name}")?;
    let mut answer = String::new();
    BufReader::new(server).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}
