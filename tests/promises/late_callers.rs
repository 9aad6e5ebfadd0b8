//! A call needs no local of its thread: in the destructor of another local they may all be gone.

use std::time::Duration;

use support::{Child, Server};
use tempfile::TempDir;

#[test]
fn every_call_works_in_the_destructor_of_a_threads_local() {
    let (server, directory) = (Server::redis().start(), TempDir::new().unwrap());
    let file = format!("sqlite:{}", directory.path().join("state.db").display());
    for url in [server.url(), file, "memory:".to_owned()] {
        for order in ["first", "last"] {
            server.cli(&["FLUSHALL"]);
            let mut caller = Child::spawn(env!("CARGO_BIN_EXE_late_caller"), [&*url, order]);
            let said = caller.unread_lines();
            let ended = caller.wait(Duration::from_secs(20));
            assert!(ended.success(), "{url}, {order}: {ended:?} after {said:?}");
            assert_eq!(
                said,
                [
                    "set Ok(Stored)",
                    "get Ok(Some(1))",
                    "add Ok(Stored)",
                    "update Ok(3)",
                    "own Err(Conflict)",
                    "push Ok(Stored)",
                    "pop Ok(Some(7))",
                    "confirmed Ok(Stored)",
                    "watch Ok(Some(5))",
                    r#"names Ok(["before", "list", "number"])"#,
                    "scope Ok(Stored)",
                    "purge Ok(1)",
                    "delete Ok(true)",
                    "flush Ok(())",
                    "pending 0",
                    "open Ok((Ok(Stored), Ok(())))",
                    "end",
                ],
                "{url}, {order}"
            );
        }
    }
}
