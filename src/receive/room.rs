//! The waiting room of a receiver: everybody who is connected, and who has to
//! leave when it is full.
//!
//! A connection costs a stranger nothing, so the room must never be full of
//! those who say nothing. Whoever is silent leaves first, of the peer that has
//! most of them, the one that was silent longest; then those whose body does
//! not come to its end. Whose token was right stays. Behind a reverse proxy all
//! peers are one address, so that an address has a limit of its own only while
//! it is silent, and this machine has none.
//!
//! Nobody leaves before he had the time that a request needs to come over a
//! network: a burst of real events must not push itself out.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How long a connection may be silent before it has to make room.
const PATIENCE: Duration = Duration::from_millis(250);

/// How many silent connections one address of another machine may have.
const MOST_SILENT: usize = 64;

/// What is looked for again when nobody can leave.
const PAUSE: Duration = Duration::from_millis(20);

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// There is no complete head of a request.
    Silent,
    /// The body is being read.
    Speaking,
    /// The token was right.
    Heard,
}

#[derive(Debug)]
struct Guest {
    peer: IpAddr,
    since: Instant,
    phase: Phase,
    /// Bytes of its body in memory.
    bytes: usize,
    task: Option<AbortHandle>,
}

#[derive(Debug, Default)]
struct Guests {
    next: u64,
    /// By number: the order of arrival.
    all: BTreeMap<u64, Guest>,
}

/// The room.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    most_bytes: usize,
    guests: Mutex<Guests>,
}

/// One who is in the room, until this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    room: Arc<Room>,
    number: u64,
}

impl Room {
    /// A room for so many connections, whose bodies have so many bytes.
    pub(super) fn new(most: usize, most_bytes: usize) -> Arc<Room> {
        Arc::new(Room { most: most.max(1), most_bytes, guests: Mutex::default() })
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one more; says how long to wait when nobody can leave
    /// yet.
    pub(super) fn make_way(&self) -> Result<(), Duration> {
        let mut guests = self.guests();
        if guests.all.len() < self.most || guests.dismiss(None) {
            return Ok(());
        }
        Err(guests.until_one_may_leave())
    }

    /// Lets one leave, whether the room is full or not.
    pub(super) fn thin_out(&self) {
        let _ = self.guests().dismiss(None);
    }

    /// Lets one in. Who has too many silent ones here loses the oldest.
    pub(super) fn enter(self: &Arc<Room>, peer: IpAddr) -> Ticket {
        let peer = network(peer);
        let mut guests = self.guests();
        let is_silent = |guest: &Guest| guest.peer == peer && guest.phase == Phase::Silent;
        if !peer.is_loopback() && guests.all.values().filter(|guest| is_silent(guest)).count() >= MOST_SILENT {
            guests.dismiss(Some(peer));
        }
        let number = guests.next;
        guests.next += 1;
        guests.all.insert(number, Guest { peer, since: Instant::now(), phase: Phase::Silent, bytes: 0, task: None });
        Ticket { room: Arc::clone(self), number }
    }

    /// Sends everybody away who has not said anything.
    pub(super) fn close(&self) {
        let mut guests = self.guests();
        let silent: Vec<u64> = guests.all.iter().filter(|(_, guest)| guest.phase == Phase::Silent).map(|(number, _)| *number).collect();
        silent.into_iter().for_each(|number| guests.remove(number));
    }

    /// Returns whether nobody is left.
    pub(super) fn is_empty(&self) -> bool {
        self.guests().all.is_empty()
    }
}

impl Guests {
    /// Lets one leave: of those who can, the least far; of the peer that has
    /// most of them, the oldest. Returns whether there was one.
    fn dismiss(&mut self, peer: Option<IpAddr>) -> bool {
        let now = Instant::now();
        let may_leave = |guest: &&Guest| now.duration_since(guest.since) >= PATIENCE && peer.is_none_or(|peer| guest.peer == peer);
        for phase in [Phase::Silent, Phase::Speaking] {
            let mut counts: HashMap<IpAddr, usize> = HashMap::new();
            for guest in self.all.values().filter(|guest| guest.phase == phase).filter(may_leave) {
                *counts.entry(guest.peer).or_default() += 1;
            }
            let Some(most) = counts.values().max().copied() else { continue };
            let is_chosen = |guest: &Guest| guest.phase == phase && may_leave(&guest) && counts.get(&guest.peer) == Some(&most);
            let oldest = self.all.iter().find(|(_, guest)| is_chosen(guest)).map(|(number, _)| *number);
            if let Some(number) = oldest {
                self.remove(number);
                return true;
            }
        }
        false
    }

    fn remove(&mut self, number: u64) {
        if let Some(task) = self.all.remove(&number).and_then(|guest| guest.task) {
            task.abort();
        }
    }

    fn until_one_may_leave(&self) -> Duration {
        let now = Instant::now();
        let left = |guest: &Guest| (guest.since + PATIENCE).saturating_duration_since(now);
        self.all
            .values()
            .filter(|guest| guest.phase != Phase::Heard)
            .map(left)
            .min()
            .unwrap_or(PAUSE)
            .clamp(Duration::from_millis(1), PAUSE)
    }
}

impl Ticket {
    /// Says what is ended when the guest has to leave.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The head of a request is there.
    pub(super) fn speaks(&self) {
        self.reach(Phase::Speaking);
    }

    /// The token was right.
    pub(super) fn is_heard(&self) {
        self.reach(Phase::Heard);
    }

    fn reach(&self, phase: Phase) {
        if let Some(guest) = self.room.guests().all.get_mut(&self.number) {
            (guest.phase, guest.since) = (phase, Instant::now());
        }
    }

    /// Takes room for bytes of a body. When there is none left, the oldest
    /// other one who is speaking has to leave; `false` when there is no other.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        let mut guests = self.room.guests();
        if let Some(guest) = guests.all.get_mut(&self.number) {
            guest.bytes += bytes;
        }
        while guests.all.values().map(|guest| guest.bytes).sum::<usize>() > self.room.most_bytes {
            let is_other = |(number, guest): &(&u64, &Guest)| **number != self.number && guest.phase == Phase::Speaking && guest.bytes > 0;
            let Some(oldest) = guests.all.iter().find(is_other).map(|(number, _)| *number) else { return false };
            guests.remove(oldest);
        }
        true
    }

    /// The body is not kept any more.
    pub(super) fn gives_back(&self) {
        if let Some(guest) = self.room.guests().all.get_mut(&self.number) {
            guest.bytes = 0;
        }
    }
}

impl Room {
    /// Says what to end when a guest has to leave.
    pub(super) fn seat(&self, number: u64, task: AbortHandle) {
        if let Some(guest) = self.guests().all.get_mut(&number) {
            guest.task = Some(task);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.room.guests().all.remove(&self.number);
    }
}

/// Returns what counts as one peer: an address, or the network that one
/// subscriber has of IPv6.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn peer(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    /// Lets the time pass that everybody is given.
    fn pass_time(room: &Room) {
        room.guests().all.values_mut().for_each(|guest| guest.since = guest.since.checked_sub(PATIENCE).unwrap());
    }

    fn present(room: &Room) -> Vec<u64> {
        room.guests().all.keys().copied().collect()
    }

    #[test]
    fn who_is_silent_longest_of_the_peer_with_most_leaves_first() {
        let room = Room::new(5, 100);
        let _tickets: Vec<Ticket> = [1, 2, 2, 3, 2].map(|number| room.enter(peer(number))).into();
        assert!(room.make_way().is_err(), "they have just come");
        pass_time(&room);
        assert_eq!(room.make_way(), Ok(()));
        assert_eq!(present(&room), [0, 2, 3, 4]);
    }

    #[test]
    fn who_speaks_leaves_after_the_silent_and_who_is_heard_stays() {
        let room = Room::new(3, 100);
        let tickets: Vec<Ticket> = [1, 1, 2].map(|number| room.enter(peer(number))).into();
        tickets[0].is_heard();
        tickets[1].speaks();
        pass_time(&room);
        for left in [vec![0, 1], vec![0], vec![0]] {
            room.thin_out();
            assert_eq!(present(&room), left);
        }
    }

    #[test]
    fn a_peer_elsewhere_has_a_limit_of_silent_ones_and_this_machine_has_none() {
        let room = Room::new(1000, 100);
        for from in [peer(1), Ipv4Addr::LOCALHOST.into()] {
            let mut tickets: Vec<Ticket> = (0..MOST_SILENT).map(|_| room.enter(from)).collect();
            pass_time(&room);
            tickets.extend((0..3).map(|_| room.enter(from)));
            assert_eq!(room.guests().all.len(), if from.is_loopback() { MOST_SILENT + 3 } else { MOST_SILENT });
        }
    }

    #[test]
    fn bodies_share_what_there_is() {
        let room = Room::new(10, 100);
        let (one, two, three) = (room.enter(peer(1)), room.enter(peer(1)), room.enter(peer(2)));
        for ticket in [&one, &two, &three] {
            ticket.speaks();
        }
        assert!(one.takes(60) && two.takes(30) && three.takes(40));
        assert_eq!(present(&room), [1, 2]);
        assert!(!three.takes(100));
    }
}
