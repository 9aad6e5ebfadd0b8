//! Two processes share a state through a real server: a control service says how many workers are
//! wanted, a worker service starts or stops workers, and reports.
//!
//! ```text
//! cargo run --example two_services
//! ```
//!
//! It starts a redis-server of its own (which must be installed), or uses the one that
//! `SYNCED_MEMORY_URL` names; and it starts itself a second time, as the worker service.

use std::env;
use std::error::Error;
use std::process::{self, Command};

use serde::{Deserialize, Serialize};
use synced_memory::{SyncedMemory, Written};
use synced_memory_examples::{RedisServer, wait_until};

/// What the services share: this struct, and the URL of the server.
#[derive(SyncedMemory)]
#[synced(prefix = "two-services:")]
struct Fleet {
    #[synced(default)]
    wanted: u32,
    report: Option<Report>,
    #[synced(default)]
    shut_down: bool,
}

/// One field, so that it is written and read as a whole: nothing is atomic between two fields.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
struct Report {
    running: u32,
    pid: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).as_deref() == Some("worker") {
        worker()
    } else {
        control()
    }
}

fn control() -> Result<(), Box<dyn Error>> {
    // A server that is started here ends with this function.
    let (_server, url) = match env::var("SYNCED_MEMORY_URL") {
        Ok(url) if !url.is_empty() => (None, url),
        _ => {
            let server = RedisServer::on_free_port();
            let url = server.url();
            (Some(server), url)
        }
    };
    let fleet = Fleet::open(&url)?;
    fleet.memory().purge()?; // what an earlier run may have left behind

    let mut worker = Command::new(env::current_exe()?)
        .arg("worker")
        .env("SYNCED_MEMORY_URL", &url)
        .spawn()?;
    let has_running = |count| {
        fleet
            .report()
            .is_ok_and(|report| report.is_some_and(|report| report.running == count))
    };

    for wanted in [3, 1] {
        println!("control: {wanted} wanted");
        assert_eq!(
            fleet.set_wanted(wanted)?,
            Written::Stored,
            "the server is there"
        );
        wait_until("the worker service has adjusted", || has_running(wanted));
        println!("control: {wanted} running");
    }
    assert_eq!(
        fleet.report()?,
        Some(Report {
            running: 1,
            pid: worker.id()
        })
    );

    // A delete is seen as well: in the worker service, too, `wanted` is unset and reads as its
    // default.
    println!("control: nothing wanted any more");
    fleet.synced_wanted().delete()?;
    wait_until("the worker service has stopped everything", || {
        has_running(0)
    });

    fleet.set_shut_down(true)?;
    assert!(worker.wait()?.success());
    assert_eq!(
        fleet.memory().purge()?,
        2,
        "`report` and `shut_down` are left"
    );
    Ok(())
}

fn worker() -> Result<(), Box<dyn Error>> {
    let fleet = Fleet::from_env()?; // the server that SYNCED_MEMORY_URL names
    let mut running = 0;
    wait_until("the fleet is shut down", || {
        let wanted = fleet.wanted().expect("it has a default");
        if wanted != running {
            println!("worker:  from {running} to {wanted}");
            running = wanted;
            fleet
                .set_report(Some(Report {
                    running,
                    pid: process::id(),
                }))
                .expect("it is stored or queued");
        }
        fleet.shut_down().expect("it has a default")
    });
    println!("worker:  shuts down");
    Ok(())
}
