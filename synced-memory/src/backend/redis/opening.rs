//! What a new session asks before anything else.

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use super::cluster::layout;
use super::commit::Committer;
use super::line::ServerLogin;
use super::{ask, ask_one, reply};
use crate::backend::error::BackendError;

/// Makes the server know the script. A refusal is no error: then the script goes with the first
/// call. `is_alone`: the login of a server that is to have all keys.
///
/// # Errors
///
/// `Rejected` if that server has only a part of them.
pub(super) async fn prepare(
    requests: &MultiplexedConnection,
    committer: &Committer,
    is_alone: Option<&ServerLogin>,
) -> Result<(), BackendError> {
    let mut commands = Pipeline::with_capacity(2);
    commands.add_command(Committer::load());
    if is_alone.is_some() {
        commands.cmd("INFO").arg("cluster");
    }
    let mut answers = ask(requests.clone(), commands).await?.into_iter();
    committer.note_loaded(&answers.next().unwrap_or_default());
    if let (Some(login), Some(info)) = (is_alone, answers.next())
        && is_node(info)
        && has_others(requests).await?
    {
        return Err(BackendError::rejected(format_args!(
            "the server is a node of a cluster, and has only some of the keys: write {}",
            login.url_of_cluster()
        )));
    }
    Ok(())
}

/// Whether the answer to INFO says that it is a node of a cluster. Who has no right to ask goes on
/// without.
fn is_node(info: Value) -> bool {
    let info = reply::checked(info).and_then(reply::text);
    info.is_ok_and(|info| info.lines().any(|line| line.trim() == "cluster_enabled:1"))
}

/// Whether the cluster has another primary that has slots.
async fn has_others(requests: &MultiplexedConnection) -> Result<bool, BackendError> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    match ask_one(requests.clone(), command).await {
        Ok(answer) => {
            let ranges = layout::slot_ranges(answer, "");
            Ok(ranges.is_ok_and(|ranges| layout::primaries(&ranges) > 1))
        }
        Err(error) if error.is_connection_lost() => Err(error),
        Err(_) => Ok(false),
    }
}
