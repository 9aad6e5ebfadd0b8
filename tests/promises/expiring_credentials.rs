//! Credentials that expire: a callback issues them, and no connection is lost when they change.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use support::{Logs, Proxy, Server, eventually};
use synced_memory::{BoxError, Builder, Credentials, ErrorKind, Key, Memory, ReadPolicy, Written};

use crate::line::{DEADLINE, quick, wait_connected, wait_disconnected};

/// What the user may do; the password comes before it.
const RIGHTS: &str = "~* &* +@all";

/// It is asked for again at once, as often as that may be.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

fn number() -> Key<u64> {
    Key::new("n")
}

/// A server whose default user can do nothing.
fn closed_server() -> Server {
    Server::redis().arg("user", "default off").start()
}

fn set_user(server: &Server, name: &str, rules: &str) {
    let mut command = vec!["ACL", "SETUSER", name, "on"];
    command.extend(rules.split(' '));
    command.extend(RIGHTS.split(' '));
    server.cli(&command);
}

/// What issues a user and a password, and how often it was asked.
#[derive(Clone, Default)]
struct Issuer {
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// A memory whose credentials are what `issue` returns for the number of the call, from 1 on.
    fn builder(
        &self,
        url: String,
        issue: impl Fn(usize) -> Result<Credentials, BoxError> + Send + Sync + 'static,
    ) -> Builder {
        let asked = Arc::clone(&self.asked);
        quick(url)
            .timeout(DEADLINE)
            .credentials(move || issue(asked.fetch_add(1, Ordering::Relaxed) + 1))
    }
}

fn last_error(memory: &Memory) -> String {
    let error = memory.status().last_error;
    error.map(|error| error.to_string()).unwrap_or_default()
}

/// The users of the connections that come from memories.
fn users(server: &Server) -> Vec<String> {
    let list: String = redis::from_redis_value(server.cli(&["CLIENT", "LIST"])).unwrap();
    let users = list.lines().filter_map(|line| {
        let user = line
            .split(' ')
            .find_map(|field| field.strip_prefix("user="))?;
        (user != "support").then(|| user.to_owned())
    });
    users.collect()
}

/// Each password is removed when the next one is there, as a token expires.
#[test]
fn fifty_rotations_under_load_cost_no_connection_and_no_near_slot() {
    let server = Arc::new(closed_server());
    let proxy = Proxy::to(&*server);
    set_user(&server, "other", ">other");
    let issuer = Issuer::default();
    let memory = {
        let server = Arc::clone(&server);
        issuer.builder(proxy.url(), move |n| {
            let remove = if n > 1 {
                format!(" <pw{}", n - 1)
            } else {
                String::new()
            };
            set_user(&server, "app", &format!(">pw{n}{remove}"));
            Ok(Credentials::new("app", format!("pw{n}")).expires_in(SHORT))
        })
    };
    let memory = memory.read_policy(ReadPolicy::Near).build().unwrap();
    let theirs = quick(server.url_as("other", "other"))
        .timeout(DEADLINE)
        .build()
        .unwrap();
    let quiet = memory.synced(&Key::<u64>::new("quiet"));
    quiet.set(1).unwrap();
    let list = memory.synced(&Key::<Vec<u64>>::new("list"));
    let followed = Key::<u64>::new("followed");
    theirs.set(&followed, 0).unwrap();
    eventually(DEADLINE, "the near slots are current", || {
        quiet.get().unwrap();
        memory.get(&followed).unwrap();
        quiet.staleness() == Some(Duration::ZERO)
    });

    let mut pushed = 0;
    while issuer.asked() < 51 {
        assert_eq!(list.push(pushed).unwrap(), Written::Stored);
        pushed += 1;
        assert_eq!(
            quiet.staleness(),
            Some(Duration::ZERO),
            "it is current all the time"
        );
        theirs.set(&followed, pushed).unwrap();
        eventually(DEADLINE, "changes of others are notified", || {
            memory.get(&followed).unwrap() == Some(pushed)
        });
    }
    let expected: Vec<_> = (0..pushed).collect();
    let found = theirs.get(&Key::<Vec<u64>>::new("list")).unwrap();
    assert!(found == Some(expected), "each push once, in order");
    assert_eq!(proxy.connections(), 1, "no connection was made anew");
    assert_eq!(
        memory.status().last_error.map(|error| error.to_string()),
        None
    );
}

/// Each rotation is another user, so that the server shows who is logged in.
#[test]
fn the_connection_for_large_values_logs_in_anew_as_well() {
    let server = Arc::new(closed_server());
    let proxy = Proxy::to(&*server);
    let issuer = Issuer::default();
    let may_rotate = Arc::new(AtomicBool::new(false));
    let memory = {
        let (server, may_rotate) = (Arc::clone(&server), Arc::clone(&may_rotate));
        issuer.builder(proxy.url(), move |n| {
            let user = if may_rotate.load(Ordering::Relaxed) {
                n
            } else {
                0
            };
            let user = format!("app{user}");
            set_user(&server, &user, ">secret");
            Ok(Credentials::new(user, "secret").expires_in(SHORT))
        })
    };
    let memory = memory.build().unwrap();
    let large = Key::<String>::new("large");
    let text = "x".repeat(3 << 20);
    memory.set(&large, text.clone()).unwrap();
    assert!(memory.get(&large).unwrap().as_ref() == Some(&text));
    assert_eq!(proxy.connections(), 2);

    may_rotate.store(true, Ordering::Relaxed);
    let mut seen = BTreeSet::new();
    eventually(
        DEADLINE,
        "both connections change their user five times",
        || {
            if let [one, other] = &users(&server)[..]
                && one == other
            {
                seen.insert(one.clone());
            }
            seen.len() > 5
        },
    );
    assert!(memory.get(&large).unwrap() == Some(text));
    assert_eq!(proxy.connections(), 2, "no connection was made anew");
}

#[test]
fn a_user_that_is_deleted_is_replaced_by_what_is_issued_next() {
    let server = closed_server();
    set_user(&server, "app1", ">secret1");
    set_user(&server, "app2", ">secret2");
    let issuer = Issuer::default();
    let memory = issuer
        .builder(server.url(), |n| {
            Ok(Credentials::new(format!("app{n}"), format!("secret{n}")).expires_in(LONG))
        })
        .build()
        .unwrap();
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
    // It closes the connection. What was issued is refused from now on, long before it expires.
    server.cli(&["ACL", "DELUSER", "app1"]);
    eventually(DEADLINE, "the other user is logged in", || {
        users(&server) == ["app2"]
    });
    wait_connected(&memory);
    assert_eq!(memory.set(&number(), 2).unwrap(), Written::Stored);
    assert_eq!(issuer.asked(), 2);
}

#[test]
fn credentials_that_do_not_expire_are_asked_for_at_each_connect_and_at_no_other_time() {
    let server = closed_server();
    set_user(&server, "app", ">secret");
    let issuer = Issuer::default();
    let memory = issuer
        .builder(server.url(), |_| Ok(Credentials::new("app", "secret")))
        .build()
        .unwrap();
    for connects in 1..5 {
        assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
        assert_eq!(issuer.asked(), connects);
        server.cli(&["CLIENT", "KILL", "USER", "app"]);
        eventually(DEADLINE, "it was asked again", || issuer.asked() > connects);
        memory.flush(DEADLINE).unwrap();
        wait_connected(&memory);
    }
}

#[test]
fn credentials_are_not_asked_for_while_the_server_is_away() {
    let server = closed_server();
    set_user(&server, "app", ">secret");
    let issuer = Issuer::default();
    let memory = issuer
        .builder(server.url(), |_| Ok(Credentials::new("app", "secret")))
        .build()
        .unwrap();
    assert_eq!(issuer.asked(), 1);
    let logs = Logs::capture();
    server.kill();
    wait_disconnected(&memory);
    eventually(DEADLINE, "nobody listens any more", || {
        last_error(&memory).contains("refused")
    });
    let asked = issuer.asked();
    let port = server.port().to_string();
    eventually(DEADLINE, "it tried often", || {
        memory.get(&number()).ok();
        logs.containing(&port)
            .iter()
            .filter(|event| event.message.contains("could not"))
            .count()
            > 20
    });
    assert_eq!(issuer.asked(), asked);
}

#[test]
fn refused_credentials_are_asked_for_once_more_and_then_after_a_pause() {
    let server = closed_server();
    let issuer = Issuer::default();
    let memory = issuer
        .builder(server.url(), |_| {
            Ok(Credentials::new("app", "secret").expires_in(LONG))
        })
        .build()
        .expect("it may be that the server learns them later");
    eventually(DEADLINE, "the refusal shows", || {
        last_error(&memory).contains("WRONGPASS")
    });
    let began = Instant::now();
    assert_eq!(issuer.asked(), 2, "the second time at once");
    assert_eq!(
        memory.status().last_error.unwrap().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Queued);
    eventually(DEADLINE, "it is asked again", || issuer.asked() > 2);
    assert!(
        began.elapsed() > Duration::from_millis(500),
        "after a second"
    );

    set_user(&server, "app", ">secret");
    memory.flush(DEADLINE).unwrap();
    assert!(server.get_text("memory:n").is_some());
    assert!(issuer.asked() < 8, "{} times", issuer.asked());
}

#[test]
fn a_callback_that_fails_or_panics_is_asked_again_after_a_pause_and_says_why() {
    for fail in [
        (|| Err("no route to the issuer".into())) as fn() -> Result<Credentials, BoxError>,
        || panic!("on purpose"),
    ] {
        let server = closed_server();
        set_user(&server, "app", ">secret");
        let issuer = Issuer::default();
        let is_well = Arc::new(AtomicBool::new(false));
        let memory = {
            let is_well = Arc::clone(&is_well);
            issuer.builder(server.url(), move |_| {
                if is_well.load(Ordering::Relaxed) {
                    Ok(Credentials::new("app", "secret").expires_in(LONG))
                } else {
                    fail()
                }
            })
        };
        let memory = memory.timeout(Duration::from_millis(300)).build().unwrap();
        eventually(DEADLINE, "the failure shows", || {
            let said = last_error(&memory);
            said.contains("no route to the issuer") || said.contains("panicked")
        });
        assert_eq!(memory.set(&number(), 1).unwrap(), Written::Queued);
        eventually(DEADLINE, "it is asked again", || issuer.asked() > 1);
        assert!(issuer.asked() < 4, "{} times", issuer.asked());
        is_well.store(true, Ordering::Relaxed);
        memory.flush(DEADLINE).unwrap();
        assert!(server.get_text("memory:n").is_some());
    }
}

/// The server takes the old login as long as the connection lives.
#[test]
fn a_renewal_that_fails_leaves_the_connection_and_shows_in_the_status() {
    let server = closed_server();
    set_user(&server, "app", ">secret");
    let proxy = Proxy::to(&server);
    let issuer = Issuer::default();
    let memory = issuer
        .builder(proxy.url(), |n| match n {
            1 | 4 => Ok(Credentials::new("app", "secret").expires_in(SHORT)),
            2 => Err("the issuer is away".into()),
            3 => Ok(Credentials::new("app", "wrong").expires_in(LONG)),
            _ => Ok(Credentials::new("app", "secret").expires_in(LONG)),
        })
        .build()
        .unwrap();
    for said in ["the issuer is away", "WRONGPASS"] {
        eventually(DEADLINE, "the failure shows", || {
            assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
            last_error(&memory).contains(said)
        });
        assert!(memory.status().connected);
    }
    eventually(DEADLINE, "others are issued and taken", || {
        issuer.asked() > 4
    });
    assert_eq!(memory.set(&number(), 2).unwrap(), Written::Stored);
    assert_eq!(proxy.connections(), 1);
}

/// A callback that returns when the test says so.
struct Gate {
    open: Sender<()>,
    /// How many calls are under way at most.
    most: Arc<AtomicUsize>,
}

impl Gate {
    fn new() -> (Self, impl Fn() + Send + Sync + 'static) {
        let (open, opened): (_, Receiver<()>) = channel();
        let (most, now) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let opened = Mutex::new(opened);
        let pass = {
            let most = Arc::clone(&most);
            move || {
                let under_way = now.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(under_way, Ordering::SeqCst);
                let _ = opened.lock().unwrap().recv();
                now.fetch_sub(1, Ordering::SeqCst);
            }
        };
        (Self { open, most }, pass)
    }
}

#[test]
fn a_callback_that_takes_longer_than_timeout_holds_up_nobody_and_is_waited_for() {
    let server = closed_server();
    set_user(&server, "app", ">secret");
    let issuer = Issuer::default();
    let (gate, pass) = Gate::new();
    let began = Instant::now();
    let memory = issuer
        .builder(server.url(), move |_| {
            pass();
            Ok(Credentials::new("app", "secret"))
        })
        .timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    eventually(DEADLINE, "what it waits for shows", || {
        last_error(&memory).contains("credentials callback")
    });
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Queued);
    assert!(began.elapsed() < Duration::from_secs(10));
    // Several attempts to connect wait for the one call.
    let logs = Logs::capture();
    let port = server.port().to_string();
    eventually(DEADLINE, "it tried again", || {
        logs.containing(&port).len() > 3
    });
    assert_eq!(issuer.asked(), 1);

    gate.open.send(()).unwrap();
    memory.flush(DEADLINE).unwrap();
    assert!(server.get_text("memory:n").is_some());
    assert_eq!((issuer.asked(), gate.most.load(Ordering::SeqCst)), (1, 1));
}

/// It hangs while the connection is to log in anew: 10 s later it counts as failed.
#[test]
fn a_callback_that_hangs_is_given_up_and_asked_again() {
    let server = closed_server();
    set_user(&server, "app", ">secret");
    let proxy = Proxy::to(&server);
    let issuer = Issuer::default();
    let (gate, pass) = Gate::new();
    let memory = issuer
        .builder(proxy.url(), move |n| {
            if n == 2 {
                pass();
            }
            Ok(Credentials::new("app", "secret").expires_in(if n < 3 { SHORT } else { LONG }))
        })
        .build()
        .unwrap();
    eventually(DEADLINE, "it is given up", || {
        assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
        last_error(&memory).contains("has not returned within 10s")
    });
    eventually(DEADLINE, "it is asked again", || issuer.asked() > 2);
    drop(gate.open);
    assert_eq!(memory.set(&number(), 2).unwrap(), Written::Stored);
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn a_callback_may_use_the_memory_that_it_is_for() {
    let server = closed_server();
    set_user(&server, "app", ">secret");
    let issuer = Issuer::default();
    let own = Arc::new(OnceLock::<Memory>::new());
    let memory = {
        let own = Arc::clone(&own);
        issuer.builder(server.url(), move |_| {
            if let Some(memory) = own.get() {
                memory.set(&Key::new("renewals"), memory.status().pending as u64)?;
            }
            Ok(Credentials::new("app", "secret").expires_in(SHORT))
        })
    };
    let memory = memory.timeout(Duration::from_millis(300)).build().unwrap();
    own.set(memory.clone()).ok();
    eventually(DEADLINE, "it writes", || {
        server.get_text("memory:renewals").is_some()
    });
    server.cli(&["CLIENT", "KILL", "USER", "app"]);
    memory.flush(DEADLINE).unwrap();
    eventually(DEADLINE, "it goes on", || {
        memory.set(&number(), 1).unwrap() == Written::Stored
    });
}

#[test]
fn the_default_user_has_no_name() {
    let server = Server::redis().password("right").start();
    let url = format!("redis://127.0.0.1:{}", server.port());
    let issuer = Issuer::default();
    let memory = issuer
        .builder(url, |_| Ok(Credentials::new("", "right").expires_in(SHORT)))
        .build()
        .unwrap();
    eventually(DEADLINE, "it logs in anew", || issuer.asked() > 3);
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
    assert_eq!(last_error(&memory), "");
}

#[test]
fn no_text_has_a_password_that_was_issued() {
    let logs = Logs::capture();
    let server = Server::redis().arg("rename-command", "HELLO \"\"").start();
    let issuer = Issuer::default();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let builder = {
        let kept = Arc::clone(&kept);
        issuer.builder(server.url(), move |n| {
            let fresh = Credentials::new("app", format!("t0p-s3cret-{n}")).expires_in(LONG);
            kept.lock().unwrap().push(fresh.clone());
            if n == 1 {
                return Err(format!("t0p-s3cret-{n} cannot be used").into());
            }
            Ok(fresh)
        })
    };
    let mut said = format!("{builder:?}");
    let memory = builder.timeout(Duration::from_millis(300)).build();
    match memory {
        Ok(memory) => {
            eventually(DEADLINE, "the callback failed", || {
                write!(said, "{:?}", memory.status()).unwrap();
                said.contains("cannot be used")
            });
            eventually(DEADLINE, "the server repeats the login", || {
                write!(said, "{:?} {}", memory.status(), last_error(&memory)).unwrap();
                said.contains("HELLO")
            });
        }
        Err(error) => panic!("{error}"),
    }
    write!(said, "{:?}", kept.lock().unwrap()).unwrap();
    assert!(!said.contains("t0p-s3cret"), "{said}");
    assert_eq!(logs.containing("t0p-s3cret").len(), 0);
}

#[test]
fn a_memory_that_is_closed_waits_for_no_callback() {
    let server = closed_server();
    let issuer = Issuer::default();
    let (gate, pass) = Gate::new();
    let memory = issuer
        .builder(server.url(), move |_| {
            pass();
            Ok(Credentials::new("app", "secret"))
        })
        .timeout(Duration::from_millis(200))
        .shutdown_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    eventually(DEADLINE, "it is asked", || issuer.asked() == 1);
    let began = Instant::now();
    let closing = thread::spawn(move || drop(memory));
    closing.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(9));
    drop(gate.open);
}
