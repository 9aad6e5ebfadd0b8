//! What can happen in a step of a schedule.

/// One step: an action, and the process that it happens to.
#[derive(Debug, Clone)]
pub(super) struct ScheduleStep {
    pub(super) action: ScheduledAction,
    pub(super) process: usize,
    /// The seed of the random numbers of this step.
    pub(super) seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScheduledAction {
    Put,
    PutWithTtl,
    Delete,
    /// A caller stops waiting: its write is reported as queued; a confirmed one is withdrawn, or
    /// reported as in doubt.
    TimeOut,
    Connect,
    /// The flusher sends the next batch.
    Send,
    /// The server handles one request of any connection.
    Serve,
    /// One answer of any connection arrives.
    Deliver,
    /// The flusher sends a batch; all requests of the connection are handled and answered.
    RoundTrip,
    Read,
    /// A large value is read, or such a read takes effect, or arrives, or is handled.
    ReadApart,
    /// An answer to a read is handled late, after the answers to later requests.
    HandleLateRead,
    Disconnect,
    StopServer,
    StartServer,
    /// The server takes no writes, or none of ours: it gets a fault mode.
    BreakServer,
    RepairServer,
    ForeignSet,
    ForeignDelete,
    Flush,
    Replicate,
    FailOver,
    Close,
    Wait,
    WaitForDays,
    /// The slot of the key goes to the other shard at once, or all that was left to move does.
    MoveSlot,
    /// The slot is to be moved in parts.
    OpenSlot,
    /// The key, or its sidecar, goes to the other shard.
    MovePart,
    /// The migration is given up.
    GiveUpMigration,
    /// Each shard says that the other one has the key, or they agree again.
    PointAway,
    /// A process learns of a layout, perhaps of one that is not true any more.
    LearnLayout,
    /// The replica of a shard falls behind, or catches up.
    Lag,
}

impl ScheduledAction {
    /// In all schedules, with their weights.
    pub(super) const USUAL: &[(Self, u32)] = &[
        (Self::Connect, 10),
        (Self::Send, 12),
        (Self::Serve, 16),
        (Self::Deliver, 12),
        (Self::RoundTrip, 10),
        (Self::Read, 6),
    ];
    /// In some schedules, with their weights.
    pub(super) const FAULTS: &[(Self, u32)] = &[
        (Self::TimeOut, 6),
        (Self::HandleLateRead, 4),
        (Self::Disconnect, 10),
        (Self::StopServer, 3),
        (Self::StartServer, 6),
        (Self::BreakServer, 4),
        (Self::RepairServer, 8),
        (Self::ForeignSet, 6),
        (Self::ForeignDelete, 4),
        (Self::Flush, 3),
        (Self::Replicate, 4),
        (Self::FailOver, 3),
        (Self::Close, 4),
        (Self::Wait, 5),
        (Self::WaitForDays, 1),
    ];
    /// In schedules of two shards, with their weights.
    pub(super) const LAYOUT: &[(Self, u32)] = &[(Self::LearnLayout, 8), (Self::MoveSlot, 5)];
    /// In some schedules of two shards, with their weights.
    pub(super) const MOVES: &[(Self, u32)] = &[
        (Self::OpenSlot, 10),
        (Self::MovePart, 12),
        (Self::GiveUpMigration, 3),
        (Self::PointAway, 5),
        (Self::Lag, 6),
    ];
}
