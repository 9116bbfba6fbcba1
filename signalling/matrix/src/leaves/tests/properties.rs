use std::time::Duration;

use proptest::prelude::*;

use super::world::*;
use crate::leaves::*;

#[derive(Clone, Debug)]
enum Step {
    Delegate { name: usize, event: u8, timeout: f64 },
    Connect(usize),
    Gone(usize),
    Replaced(usize),
    Restart,
    Wait(f64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..6usize;
    let step = prop_oneof![
        3 => (name.clone(), 0..3u8, 8.0..60.0).prop_map(|(name, event, timeout)| {
            // What is delegated again is the same event, whose delay is fixed with it (MSC4140).
            let timeout = if event == 0 { 8.0 + 10.0 * name as f64 } else { timeout };
            Step::Delegate { name, event, timeout }
        }),
        4 => name.clone().prop_map(Step::Connect),
        3 => name.clone().prop_map(Step::Gone),
        1 => name.prop_map(Step::Replaced),
        1 => Just(Step::Restart),
        6 => (0.0..40.0).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

impl World {
    fn take(&mut self, step: &Step, at: usize) {
        match step {
            Step::Delegate { name, event, timeout } => {
                // Some are delegated twice, most are new.
                let id = if *event == 0 { format!("{name}.0") } else { format!("{name}.{at}") };
                let _ = self.delegate(NAMES[*name], &id, *timeout);
            }
            Step::Connect(name) => self.connect(NAMES[*name]),
            Step::Gone(name) => self.gone(NAMES[*name]),
            Step::Replaced(name) => self.replaced(NAMES[*name]),
            Step::Restart => self.restart(at as u64),
            Step::Wait(time) => self.run(*time),
        }
    }
}

/// Who is connected, and since when each is gone: the truth that the machine is held against.
#[derive(Default)]
struct Truth {
    connected: [bool; NAMES.len()],
    /// The event that stands for a client now, by name.
    current: [Option<String>; NAMES.len()],
    /// When it should be out at the latest, in seconds since the beginning.
    due: Vec<(String, f64)>,
}

/// What a call may take: the homeserver fails once in a row at most.
const WITH_ONE_FAILURE: f64 = 2.0;

impl Truth {
    fn note(&mut self, step: &Step, at: usize, now: f64) {
        match step {
            Step::Delegate { name, event, .. } => {
                let id = if *event == 0 { format!("{name}.0") } else { format!("{name}.{at}") };
                self.due.retain(|(former, _)| *former != id);
                if !self.connected[*name] {
                    self.due.push((id.clone(), now + CONNECT_TIME.as_secs_f64()));
                }
                if let Some(former) = self.current[*name].replace(id.clone()).filter(|former| *former != id) {
                    self.due.retain(|(event, _)| *event != former);
                }
            }
            Step::Connect(name) => {
                self.connected[*name] = true;
                self.due.retain(|(event, _)| self.current[*name].as_ref() != Some(event));
            }
            Step::Gone(name) | Step::Replaced(name) if self.connected[*name] => {
                self.connected[*name] = false;
                let grace = if matches!(step, Step::Gone(_)) { Duration::ZERO } else { CONNECT_TIME };
                if let Some(event) = &self.current[*name] {
                    self.due.push((event.clone(), now + grace.as_secs_f64()));
                }
            }
            // Everybody has to come back.
            Step::Restart => {
                for name in 0..NAMES.len() {
                    if std::mem::take(&mut self.connected[name])
                        && let Some(event) = &self.current[name]
                    {
                        self.due.push((event.clone(), now + RETURN_TIME.as_secs_f64()));
                    }
                }
                for (_, due) in &mut self.due {
                    *due = due.max(now + RETURN_TIME.as_secs_f64()); // waited for anew, if nobody came yet
                }
            }
            _ => {}
        }
    }
}

proptest! {
    /// No job is ever neither fired nor restarted in time: a homeserver that answers, if not always at the first try,
    /// never sends the event of somebody who is there, and has that of whoever is gone within two seconds.
    #[test]
    fn nobody_leaves_while_there_and_nobody_stays_when_gone(steps in steps(), seed: u64, fails: u64) {
        let mut world = World::new(seed);
        let mut count = fails;
        world.manners = Box::new(move |_, event, _| {
            count = count.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (event.failures == 0 && count >> 62 == 0).then_some(Answer::Failed(Failure::Connection))
        });
        let mut truth = Truth::default();
        for (at, step) in steps.iter().enumerate() {
            let now = (world.now - world.start).as_secs_f64();
            // What was sent or fired stays so: its client would schedule another.
            let is_over = matches!(step, Step::Delegate { name, event: 0, .. }
                if world.events.get(&format!("{name}.0")).is_some_and(|event| event.fate != Fate::Scheduled));
            if is_over { continue }
            truth.note(step, at, now);
            world.take(step, at);
            let now = (world.now - world.start).as_secs_f64();
            for (name, current) in truth.current.iter().enumerate() {
                let Some(current) = current.as_ref().filter(|_| truth.connected[name]) else { continue };
                let fate = world.fate(current);
                prop_assert!(!matches!(fate, Fate::Fired(_)), "{current} fired with its client there at {now}");
            }
            for (event, due) in &truth.due {
                let is_out = world.fate(event) != Fate::Scheduled;
                prop_assert!(is_out || now <= due + WITH_ONE_FAILURE, "{event} is not out at {now}, due {due}");
            }
        }
    }

    /// Whatever homeservers answer and whenever, nothing is lost, and all comes to an end when everybody is gone.
    #[test]
    fn no_answer_makes_the_machine_lose_or_keep_a_job(
        steps in steps(),
        seed: u64,
        answers in prop::collection::vec((0..9u8, 0..10_000u64), 1..50),
    ) {
        let mut world = World::new(seed);
        let mut next = answers.into_iter().cycle();
        world.manners = Box::new(move |_, _, _| match next.next().unwrap() {
            (0..=2, _) => None,
            (3, wait) => Some(Answer::Limited(Duration::from_millis(wait))),
            (4, _) => Some(Answer::Unrecognised),
            (5, _) => Some(Answer::Unauthorised),
            (6, _) => Some(Answer::Refused(403)),
            (7, _) => Some(Answer::Gone),
            _ => Some(Answer::Failed(Failure::Timeout)),
        });
        for (at, step) in steps.iter().enumerate() {
            world.take(step, at);
        }
        for name in NAMES {
            world.gone(name);
        }
        // The longest delay, the time to connect, and what is asked beyond the end; twice for one that is renewed.
        world.run(300.0);
        prop_assert!(world.leaves.is_empty());
    }
}
