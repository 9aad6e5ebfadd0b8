//! Three people write into one conversation, each in a process of their own. One of them is cut off
//! for a while and writes on; in the end every message is there once, and the messages of each
//! person are in order.
//!
//! ```text
//! cargo run --example chat_history
//! ```
//!
//! It starts a redis-server of its own (which must be installed), and itself three more times.

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synced_memory::{Memory, SyncedMemory, Written};
use synced_memory_examples::{Line, RedisServer, wait_until};

/// What all of them share.
#[derive(SyncedMemory)]
#[synced(prefix = "chat:")]
struct Chat {
    history: Vec<Message>,
    /// How many messages there are: every process adds to it.
    #[synced(default)]
    count: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    author: String,
    text: String,
}

const ONLINE: usize = 5;
const OFFLINE: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("cut-off"), Some(author)) => cut_off(&author),
        (Some("online"), Some(author)) => online(&author),
        _ => watch(),
    }
}

/// Starts the three, and cuts the line of one of them.
fn watch() -> Result<(), Box<dyn Error>> {
    let server = RedisServer::on_free_port();
    let line = Line::to(server.port());
    let chat = Chat::open(&server.url())?;

    let mut carol = start("cut-off", "carol", &line.url())?;
    let mut output = BufReader::new(carol.stdout.take().ok_or("carol's output is piped")?).lines();
    wait_until("carol has written", || {
        chat.history().len().is_ok_and(|count| count == ONLINE)
    });
    line.cut();
    println!("carol is cut off");

    let mut others = [
        start("online", "alice", &server.url())?,
        start("online", "bob", &server.url())?,
    ];
    println!("carol: {}", output.next().ok_or("carol ended")??);
    for other in &mut others {
        assert!(other.wait()?.success());
    }
    assert_eq!(
        chat.history().len()?,
        ONLINE + 2 * (ONLINE + OFFLINE),
        "carol's are not there yet"
    );

    line.restore();
    println!("carol is back");
    assert!(carol.wait()?.success());

    let history = chat.history().get()?;
    for author in ["alice", "bob", "carol"] {
        let texts: Vec<_> = history
            .iter()
            .filter(|message| message.author == author)
            .map(|m| m.text.as_str())
            .collect();
        let expected: Vec<String> = (0..ONLINE + OFFLINE)
            .map(|number| format!("message {number}"))
            .collect();
        assert_eq!(
            texts, expected,
            "every message of {author} once, and in order"
        );
    }
    assert_eq!(
        chat.count()?,
        history.len() as u64,
        "and every add was counted"
    );
    println!("{} messages of three people, each once", history.len());
    Ok(())
}

fn start(how: &str, author: &str, url: &str) -> std::io::Result<Child> {
    let output = if how == "cut-off" {
        Stdio::piped()
    } else {
        Stdio::inherit()
    };
    Command::new(env::current_exe()?)
        .args([how, author])
        .env("SYNCED_MEMORY_URL", url)
        .stdout(output)
        .spawn()
}

fn say(chat: &SyncedChat, author: &str, number: usize) -> synced_memory::Result<Written> {
    chat.add_count(1)?;
    chat.history().push(Message {
        author: author.to_owned(),
        text: format!("message {number}"),
    })
}

fn online(author: &str) -> Result<(), Box<dyn Error>> {
    let chat = Chat::from_env()?;
    for number in 0..ONLINE + OFFLINE {
        say(&chat, author, number)?;
    }
    Ok(chat.memory().close(Duration::from_secs(10))?)
}

fn cut_off(author: &str) -> Result<(), Box<dyn Error>> {
    let memory = Memory::builder()
        .backoff(Duration::from_millis(10), Duration::from_millis(100))
        .build()?;
    let chat = Chat::attach(&memory);
    for number in 0..ONLINE {
        say(&chat, author, number)?;
    }
    wait_until("the line is down", || !memory.status().connected);
    for number in ONLINE..ONLINE + OFFLINE {
        assert_eq!(say(&chat, author, number)?, Written::Queued);
    }
    // While she is cut off, a call returns what is known here: her own messages, on top of the
    // server's last answer.
    println!("offline, I see {} messages", chat.history().len()?);
    Ok(memory.close(Duration::from_secs(10))?)
}
