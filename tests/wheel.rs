//! The timer wheel against a slow, obvious twin (`DESIGN.md`: "Time is a parameter: wheel and limits take `now`, and
//! are checked against a slow, obvious twin"): whatever is scheduled, rescheduled and cancelled, both hand out the
//! same entries at the same ticks.

use std::collections::BTreeMap;

use fanfare::fanout::Wheel;
use proptest::prelude::*;

/// Deadlines in a map. As the wheel documents: what is past is due at the next tick, what is beyond one turn is kept
/// at its far end.
struct Twin {
    turn: u64,
    now: u64,
    due: BTreeMap<u32, u64>,
}

impl Twin {
    fn schedule(&mut self, id: u32, due: u64) {
        self.due.insert(id, due.max(self.now + 1).min(self.now + self.turn));
    }

    fn cancel(&mut self, id: u32) {
        self.due.remove(&id);
    }

    fn advance(&mut self, now: u64) -> Vec<u32> {
        self.now = self.now.max(now);
        let out: Vec<u32> = self.due.iter().filter(|(_, due)| **due <= self.now).map(|(id, _)| *id).collect();
        self.due.retain(|_, due| *due > self.now);
        out
    }

    fn next_due(&self) -> Option<u64> {
        self.due.values().min().copied()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// An entry, and how many ticks from now; negative is past.
    Schedule(u32, i64),
    Cancel(u32),
    /// Ticks that pass; negative is a clock that goes backwards.
    Advance(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0u32..12, -5i64..40).prop_map(|(id, ticks)| Step::Schedule(id, ticks)),
        1 => (0u32..12, any::<i32>()).prop_map(|(id, ticks)| Step::Schedule(id, ticks.into())),
        2 => (0u32..14).prop_map(Step::Cancel),
        4 => (-2i64..12).prop_map(Step::Advance),
        1 => (0i64..100_000).prop_map(Step::Advance),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_hands_out_what_its_twin_does(slots in 0usize..40, start in 0u64..1000, steps in steps()) {
        let mut wheel = Wheel::new(slots, start);
        let mut twin = Twin { turn: slots.max(2) as u64, now: start, due: BTreeMap::new() };
        for step in steps {
            match step {
                Step::Schedule(id, ticks) => {
                    let due = twin.now.saturating_add_signed(ticks);
                    wheel.schedule(id, due);
                    twin.schedule(id, due);
                }
                Step::Cancel(id) => {
                    wheel.cancel(id);
                    twin.cancel(id);
                }
                Step::Advance(ticks) => {
                    let now = twin.now.saturating_add_signed(ticks);
                    let mut out = Vec::new();
                    wheel.advance(now, &mut out);
                    out.sort_unstable();
                    prop_assert_eq!(out, twin.advance(now));
                }
            }
            prop_assert_eq!(wheel.next_due(), twin.next_due());
        }
    }
}

#[test]
fn what_is_handed_out_is_added_to_what_is_there() {
    let mut wheel = Wheel::new(8, 0);
    wheel.schedule(1, 3);
    let mut out = vec![7];
    wheel.advance(2, &mut out);
    assert_eq!(out, [7]);
    wheel.advance(3, &mut out);
    assert_eq!(out, [7, 1]);
    wheel.advance(1_000, &mut out);
    assert_eq!(out, [7, 1], "once is enough");
}
