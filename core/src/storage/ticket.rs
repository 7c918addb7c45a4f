//! Who waits for a record, and for what.

use crate::arena::TicketId;

/// How safe something is; each level survives what those before it survive (durable-topics.md
/// section 1).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Durability {
    /// It is in memory, and survives a stop in good order.
    Memory,
    /// It is handed to the operating system, and survives the end of the process.
    Written,
    /// It is synced, and survives the loss of power.
    Synced,
    /// It is stored elsewhere, and survives the loss of the machine.
    Remote,
}

/// A publish, or something else that is done when all its records are safe; its owner hands it to
/// the stores along with them.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket {
    /// The owner's name for it.
    pub id: TicketId,
    /// How safe its records have to be at least.
    pub until: Durability,
    /// Who has its records until then.
    pub keeper: Keeper,
}

/// Who has a record as long as its store does not. It decides what becomes of the record while the
/// disk refuses.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Keeper {
    /// Whoever published it: the record is given up, and they are told, so that they may publish it
    /// again.
    Publisher,
    /// Another queue, on disk: the record waits until it is written, or may be popped before that
    /// happens.
    Queue,
}

impl Ticket {
    /// That of a publish which is answered as NSQ answers it: when its messages are in memory, or
    /// written where there is no room for them.
    pub const fn publish(id: TicketId) -> Self {
        Self { id, until: Durability::Memory, keeper: Keeper::Publisher }
    }

    /// That of a message which a queue hands on, and keeps on disk until another one has it in
    /// memory, or written where there is no room.
    pub const fn handed_on(id: TicketId) -> Self {
        Self { id, until: Durability::Memory, keeper: Keeper::Queue }
    }

    /// Whether its records are not given up while the disk refuses.
    pub(crate) fn is_kept(self) -> bool {
        self.keeper == Keeper::Queue
    }
}
