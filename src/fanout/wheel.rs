//! A hashed timer wheel (Varghese and Lauck) for one deadline a stream.
//!
//! It knows no clock: time is a tick number that the caller hands in. It keeps no order within a slot, and deadlines
//! beyond one turn are kept at its far end and looked at again there: what comes out is *due to be looked at*, and the
//! caller, who knows the real deadline, schedules again what is early. So a stream that is written to every second
//! costs the wheel one look per heartbeat interval, and a write costs it nothing.
//!
//! Memory: 12 bytes a stream. Schedule and cancel are O(1), a tick costs what comes out of it.

/// No entry.
const NONE: u32 = u32::MAX;

/// Timers for entries named by small numbers, such as a slab's keys.
#[derive(Debug)]
pub struct Wheel {
    /// The first entry of each slot's list.
    slots: Box<[u32]>,
    links: Vec<Link>,
    /// The last tick handed out.
    now: u64,
    scheduled: usize,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    next: u32,
    prev: u32,
    /// The slot it hangs in, or `NONE`.
    slot: u32,
}

impl Wheel {
    /// A wheel with `slots` slots, at least 2, standing at tick `now`.
    pub fn new(slots: usize, now: u64) -> Wheel {
        Wheel { slots: vec![NONE; slots.max(2)].into(), links: Vec::new(), now, scheduled: 0 }
    }

    /// Schedules (or reschedules) `id` for tick `due`: the next one if that is past, the farthest if it is too far.
    pub fn schedule(&mut self, id: u32, due: u64) {
        self.cancel(id);
        if self.links.len() <= id as usize {
            self.links.resize(id as usize + 1, Link { next: NONE, prev: NONE, slot: NONE });
        }
        let turn = self.slots.len() as u64;
        let due = due.clamp(self.now + 1, self.now + turn);
        let slot = (due % turn) as u32;
        let next = std::mem::replace(&mut self.slots[slot as usize], id);
        if next != NONE {
            self.links[next as usize].prev = id;
        }
        self.links[id as usize] = Link { next, prev: NONE, slot };
        self.scheduled += 1;
    }

    /// Takes `id` off the wheel, if it is on it.
    pub fn cancel(&mut self, id: u32) {
        let Some(&link) = self.links.get(id as usize).filter(|link| link.slot != NONE) else { return };
        match link.prev {
            NONE => self.slots[link.slot as usize] = link.next,
            prev => self.links[prev as usize].next = link.next,
        }
        if link.next != NONE {
            self.links[link.next as usize].prev = link.prev;
        }
        self.links[id as usize].slot = NONE;
        self.scheduled -= 1;
    }

    /// Turns to tick `now` and takes off all that are due by then, into `due`.
    pub fn advance(&mut self, now: u64, due: &mut Vec<u32>) {
        let turn = self.slots.len() as u64;
        // After a long sleep one full turn passes every slot; more would pass them again, empty.
        let first = (self.now + 1).max(now.saturating_sub(turn - 1));
        for tick in first..=now {
            let mut id = std::mem::replace(&mut self.slots[(tick % turn) as usize], NONE);
            while id != NONE {
                let link = &mut self.links[id as usize];
                link.slot = NONE;
                due.push(id);
                id = link.next;
                self.scheduled -= 1;
            }
        }
        self.now = self.now.max(now);
    }

    /// The next tick at which something comes out.
    pub fn next_due(&self) -> Option<u64> {
        if self.scheduled == 0 {
            return None;
        }
        let turn = self.slots.len() as u64;
        (self.now + 1..=self.now + turn).find(|tick| self.slots[(tick % turn) as usize] != NONE)
    }
}
