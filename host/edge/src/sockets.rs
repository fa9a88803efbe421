//! Sockets that clients hold: a limit on all of them together, and one per address.
//!
//! A connection takes a [`Seat`] when it is accepted and gives it back when its socket is closed,
//! no matter how it was used in between (requests, a held answer, a WebSocket). A static file that
//! is being sent takes one too. So the number of seats is the number of descriptors that clients
//! can make the process hold, and the remaining descriptors are always free for storage, log and
//! control socket.
//!
//! Invariant: an address has an entry only while it has a seat, so the table is never larger than
//! the limit on all.

use crate::{
    http::delivery::Delivery,
    http::pace::{ClientEnd, ClientSocket, PaceRule},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tidegate_hub::Counters;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Default maximum number of connections of one public address.
pub const SOCKETS_PER_ADDRESS_MAX: usize = 1024;

/// Minimum time between two log lines about refusals for the same reason.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The seats, and the number of taken ones.
pub(crate) struct Sockets {
    max: usize,
    /// Limit per address. `None` means [`SOCKETS_PER_ADDRESS_MAX`] for public addresses, and no
    /// limit for the others. Zero means no limit.
    per_address_max: Option<usize>,
    taken: Mutex<SeatTable>,
    refusals: Mutex<[RefusalLog; 4]>,
}

#[derive(Default)]
struct SeatTable {
    all: usize,
    by_client: HashMap<ClientKey, usize>,
}

/// Key by which clients are counted: an IPv4 address, or the /64 network of an IPv6 address, since
/// one customer usually has a whole /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientKey {
    V4(u32),
    V6(u64),
}

/// Reason why a connection gets no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeatRefusal {
    /// All seats are taken.
    All,
    /// The client has as many seats as an address may have.
    Address(IpAddr),
    /// The process or the machine has no descriptor left.
    Descriptors,
    /// Memory is short.
    Memory,
}

/// Log state for one kind of refusal.
#[derive(Clone, Copy, Default)]
struct RefusalLog {
    logged: Option<Instant>,
    since: u64,
}

impl ClientKey {
    /// `address` is canonical: an IPv4-mapped address has become the IPv4 address.
    fn of(address: IpAddr) -> ClientKey {
        match address {
            IpAddr::V4(v4) => ClientKey::V4(v4.to_bits()),
            IpAddr::V6(v6) => ClientKey::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// Returns true for an address of this machine or of a private network, where a proxy may represent
/// many clients: loopback, private and link-local addresses, and those shared by a carrier's
/// customers (RFC 1918, RFC 3927, RFC 4193, RFC 4291, RFC 6598).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

impl Sockets {
    /// `max` is `None` for no limit on all sockets.
    pub(crate) fn new(max: Option<usize>, per_address_max: Option<usize>) -> Arc<Sockets> {
        let (taken, refusals) = Default::default();
        Arc::new(Sockets {
            max: max.unwrap_or(usize::MAX),
            per_address_max,
            taken,
            refusals,
        })
    }

    /// Takes a seat for a connection from this address.
    pub(crate) fn take_seat(self: &Arc<Sockets>, address: IpAddr) -> Result<Seat, SeatRefusal> {
        let address = address.to_canonical();
        let mut taken = self.taken();
        if taken.all >= self.max {
            return Err(SeatRefusal::All);
        }
        let client = self.enter(&mut taken, address)?;
        taken.all += 1;
        Ok(Seat {
            sockets: self.clone(),
            client: client.into(),
        })
    }

    /// Takes a seat that counts for no address: for a file that is being sent, or a connection from
    /// a trusted proxy.
    pub(crate) fn take_shared(self: &Arc<Sockets>) -> Result<Seat, SeatRefusal> {
        let mut taken = self.taken();
        if taken.all >= self.max {
            return Err(SeatRefusal::All);
        }
        taken.all += 1;
        Ok(Seat {
            sockets: self.clone(),
            client: None.into(),
        })
    }

    /// Counts one more seat of an address, if it has a limit.
    fn enter(
        &self,
        taken: &mut SeatTable,
        address: IpAddr,
    ) -> Result<Option<ClientKey>, SeatRefusal> {
        let Some(max) = self.max_of(address) else {
            return Ok(None);
        };
        let client = ClientKey::of(address);
        let seats = taken.by_client.entry(client).or_default();
        if *seats >= max {
            return Err(SeatRefusal::Address(address));
        }
        *seats += 1;
        Ok(Some(client))
    }

    /// Counts a refusal, and logs the setting to change: at the first refusal, and then once in
    /// [`LOG_EVERY`].
    pub(crate) fn note(&self, refusal: SeatRefusal, counters: &Counters, now: Instant) {
        let (kind, counter) = match refusal {
            SeatRefusal::All => (0, &counters.refused_sockets),
            SeatRefusal::Address(_) => (1, &counters.refused_address),
            SeatRefusal::Descriptors => (2, &counters.refused_descriptors),
            SeatRefusal::Memory => (3, &counters.refused_memory),
        };
        counter.add(1);
        let mut refusals = self
            .refusals
            .lock()
            .expect("nothing panics while it holds the refusals");
        let refused = &mut refusals[kind];
        refused.since += 1;
        if refused
            .logged
            .is_some_and(|logged| now.duration_since(logged) < LOG_EVERY)
        {
            return;
        }
        let count = refused.since;
        *refused = RefusalLog {
            logged: Some(now),
            since: 0,
        };
        drop(refusals);
        match refusal {
            SeatRefusal::All => tracing::warn!(
                count,
                "refused connections: {} sockets are open: raise sockets_max, or the open files of the process (RLIMIT_NOFILE)",
                self.max
            ),
            SeatRefusal::Address(address) => tracing::warn!(
                count,
                "refused connections: {address} has {} open: if it is a proxy, list it as trusted in [server], or raise sockets_per_address_max (0 for no limit)",
                self.max_of(address).unwrap_or_default()
            ),
            SeatRefusal::Descriptors => tracing::warn!(
                count,
                "refused connections: no file descriptor is left: lower sockets_max, or raise the open files of the process (RLIMIT_NOFILE)"
            ),
            SeatRefusal::Memory => tracing::warn!(
                count,
                "refused connections, or closed some that wait for a request: \
                 memory is short: raise memory_max, or lower sockets_max"
            ),
        }
    }

    /// Returns the maximum number of sockets of this address; `None` for no limit.
    fn max_of(&self, address: IpAddr) -> Option<usize> {
        match self.per_address_max {
            Some(0) => None,
            Some(max) => Some(max),
            None => (!is_private(address)).then_some(SOCKETS_PER_ADDRESS_MAX),
        }
    }

    fn taken(&self) -> MutexGuard<'_, SeatTable> {
        self.taken
            .lock()
            .expect("nothing panics while it holds the seats")
    }
}

/// The right to hold one descriptor. The drop gives it back.
pub(crate) struct Seat {
    sockets: Arc<Sockets>,
    /// `None` if its address has no limit. Locked only while [`Sockets::taken`] is.
    client: Mutex<Option<ClientKey>>,
}

impl Seat {
    /// Counts the seat for this address from now on: for the client of the request that a proxy's
    /// connection carries.
    pub(crate) fn stand_for(&self, address: IpAddr) -> Result<(), SeatRefusal> {
        let mut taken = self.sockets.taken();
        let mut own = self
            .client
            .lock()
            .expect("nothing panics while it holds a seat's client");
        if own.is_some_and(|own| own == ClientKey::of(address)) {
            return Ok(());
        }
        let client = self.sockets.enter(&mut taken, address)?;
        if let Some(before) = std::mem::replace(&mut *own, client) {
            taken.leave(before);
        }
        Ok(())
    }
}

impl SeatTable {
    fn leave(&mut self, client: ClientKey) {
        if let Entry::Occupied(mut seats) = self.by_client.entry(client) {
            *seats.get_mut() -= 1;
            if *seats.get() == 0 {
                seats.remove();
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.sockets.taken();
        taken.all -= 1;
        if let Some(client) = *self
            .client
            .get_mut()
            .expect("nothing panics while it holds a seat's client")
        {
            taken.leave(client);
        }
    }
}

/// A socket with its seat, and with the clock of the bytes that the kernel has for its client. The
/// socket is closed first, so that a free seat means a free descriptor.
pub(crate) struct SeatedSocket<Io> {
    io: Io,
    delivery: Delivery,
    _seat: Arc<Seat>,
}

impl<Io> SeatedSocket<Io> {
    /// `rule` is the minimum pace at which the client takes bytes from the kernel.
    pub(crate) fn new(io: Io, seat: Arc<Seat>, rule: PaceRule) -> SeatedSocket<Io> {
        SeatedSocket {
            io,
            delivery: Delivery::new(rule),
            _seat: seat,
        }
    }
}

impl<Io: ClientSocket> SeatedSocket<Io> {
    #[inline]
    fn check_delivery(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.delivery.check(|| self.io.unacknowledged(), cx)
    }

    #[inline]
    fn note_written(
        &mut self,
        poll: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = poll {
            self.delivery.note_written(written, cx);
        }
        poll
    }
}

impl<Io: ClientSocket> ClientSocket for SeatedSocket<Io> {
    fn unacknowledged(&self) -> u64 {
        self.io.unacknowledged()
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> ClientEnd {
        self.io.poll_end(cx)
    }

    fn change_task(&mut self) {
        self.delivery.reset();
    }

    fn abort(&self) {
        self.io.abort();
    }
}

impl<Io: ClientSocket> AsyncRead for SeatedSocket<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_delivery(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<Io: ClientSocket> AsyncWrite for SeatedSocket<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_delivery(cx)?;
        let poll = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note_written(poll, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_delivery(cx)?;
        let poll = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.note_written(poll, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_delivery(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn clients_are_ipv4_addresses_and_ipv6_networks() {
        let same = [
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8::1", "2001:db8::ffff:1:2:3"),
        ];
        let different = [
            ("192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8:0:1::1"),
            ("192.0.2.1", "::192.0.2.1"),
        ];
        for (rows, expected) in [(&same[..], true), (&different[..], false)] {
            for (one, other) in rows {
                let sockets = Sockets::new(None, Some(1));
                let _seat = sockets.take_seat(address(one)).unwrap();
                assert_eq!(
                    sockets.take_seat(address(other)).is_err(),
                    expected,
                    "{one} {other}"
                );
            }
        }
    }

    #[test]
    fn a_cap_of_an_address_holds_for_public_addresses_unless_it_is_set() {
        let cases = [
            ("192.0.2.1", false),
            ("8.8.8.8", false),
            ("127.0.0.1", true),
            ("127.255.0.1", true),
            ("10.0.0.1", true),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("169.254.1.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:8.8.8.8", false),
            ("fd00::1", true),
            ("fe80::1", true),
            ("2001:db8::1", false),
        ];
        for (text, is_off) in cases {
            let address = address(text).to_canonical();
            assert_eq!(
                Sockets::new(None, None).max_of(address).is_none(),
                is_off,
                "{text}"
            );
            assert_eq!(
                Sockets::new(None, Some(7)).max_of(address),
                Some(7),
                "{text}"
            );
            assert_eq!(Sockets::new(None, Some(0)).max_of(address), None, "{text}");
        }
    }

    #[test]
    fn a_seat_that_is_given_back_is_free_and_leaves_nothing_in_the_table() {
        let sockets = Sockets::new(Some(3), Some(2));
        let [ann, bob] = ["192.0.2.1", "192.0.2.2"].map(address);
        let first = sockets.take_seat(ann).unwrap();
        let second = sockets.take_seat(ann).unwrap();
        assert_eq!(
            sockets.take_seat(ann).err(),
            Some(SeatRefusal::Address(ann))
        );
        let file = sockets.take_shared().unwrap();
        assert_eq!(
            (sockets.take_seat(bob).err(), sockets.take_shared().err()),
            (Some(SeatRefusal::All), Some(SeatRefusal::All))
        );
        drop(first);
        assert!(sockets.take_seat(ann).is_ok());
        // A proxy's connection represents one client after the other.
        assert_eq!(file.stand_for(ann), Ok(()));
        assert_eq!(
            (file.stand_for(ann), sockets.take_seat(ann).err()),
            (Ok(()), Some(SeatRefusal::Address(ann)))
        );
        assert_eq!(file.stand_for(bob), Ok(()));
        assert!(sockets.take_seat(ann).is_ok());
        drop((second, file));
        let taken = sockets.taken();
        assert_eq!((taken.all, taken.by_client.len()), (0, 0));
    }
}
