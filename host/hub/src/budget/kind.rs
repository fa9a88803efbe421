//! The purposes of reservations, with their free amounts and their chunks.

/// Bytes of linear memory that an instance has without a reservation.
pub const INSTANCE_FREE_BYTES: usize = 2 << 20;

/// Purpose of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Queued messages to a client.
    Outbox,
    /// Buffers and state of an HTTP connection, whether it sends anything or not.
    Socket,
    /// Attachment, tags and topics of a connection.
    Connection,
    /// Parts of a message, a request's head or its body.
    Request,
    /// Responses on their way to a client.
    Response,
    /// A large publication, which its followers share.
    Publication,
    /// Events that wait for a room.
    Inbox,
    /// Writes and effects of a room's events before their commit.
    Transaction,
    /// Linear memories of an instance.
    Instance,
    /// Copies of the values that an instance may pass to the host at the end of a call.
    HandOver,
}

impl MemoryKind {
    /// All kinds.
    pub const ALL: [MemoryKind; 10] = [
        MemoryKind::Outbox,
        MemoryKind::Socket,
        MemoryKind::Connection,
        MemoryKind::Request,
        MemoryKind::Response,
        MemoryKind::Publication,
        MemoryKind::Inbox,
        MemoryKind::Transaction,
        MemoryKind::Instance,
        MemoryKind::HandOver,
    ];

    /// Returns the bytes that each owner has without a reservation.
    pub(super) const fn free(self) -> usize {
        match self {
            MemoryKind::Connection | MemoryKind::Publication => 4 << 10,
            MemoryKind::Outbox | MemoryKind::Request | MemoryKind::Response => 16 << 10,
            MemoryKind::Socket | MemoryKind::Inbox => 0,
            MemoryKind::Transaction => 64 << 10,
            MemoryKind::HandOver => 128 << 10,
            MemoryKind::Instance => INSTANCE_FREE_BYTES,
        }
    }

    /// Returns the size of the chunks in which bytes are reserved.
    pub(super) const fn chunk(self) -> usize {
        match self {
            MemoryKind::Connection | MemoryKind::Publication => 4 << 10,
            MemoryKind::Outbox | MemoryKind::Request | MemoryKind::Response => 16 << 10,
            MemoryKind::Socket | MemoryKind::Inbox => 1,
            MemoryKind::Transaction | MemoryKind::Instance | MemoryKind::HandOver => 64 << 10,
        }
    }

    /// Returns the number of bytes to reserve for this many used bytes.
    pub(super) const fn reservation(self, bytes: usize) -> usize {
        if bytes <= self.free() {
            0
        } else {
            bytes.next_multiple_of(self.chunk())
        }
    }
}
