//! Random schedules: reordering, loss, duplication, slow disks, crashes and restarts; then calm, in which
//! everything must be committed exactly once. The full simulator does this at length; this is its short form.

use super::harness::{MILLISECOND, Net, SECOND};
use crate::{Input, Parameters, Timeouts};

/// Steele, Lea and Flood's SplitMix64, which is enough for schedules.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// How rough a schedule is.
struct Weather {
    loss: usize,
    duplication: usize,
    crashes: usize,
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let n = 4 + random.below(4);
    let window = 1 + random.below(5) as u64;
    let timeouts = Timeouts {
        request: 200 * MILLISECOND,
        new_view: 200 * MILLISECOND,
        back_off_max: SECOND,
        resend: 50 * MILLISECOND,
        announce: 200 * MILLISECOND,
        hand_over: SECOND,
        ..Timeouts::default()
    };
    let mut net = Net::with(n, window, Parameters { timeouts, ..Parameters::default() });
    let weather = Weather { loss: random.below(30), duplication: random.below(10), crashes: random.below(3) };
    let mut next = [0_u64; 3];
    for _ in 0..3_000 {
        disturb(&mut net, &mut random, &weather, &mut next);
    }
    calm(&mut net, &next, seed);
}

fn disturb(net: &mut Net, random: &mut Random, weather: &Weather, next: &mut [u64; 3]) {
    let i = u8::try_from(random.below(net.nodes.len())).unwrap();
    match random.below(100) {
        0..50 => deliver(net, random, weather),
        50..70 => drop_bool(net.sync_one(i)),
        70..85 => drop_bool(net.execute_one(i)),
        85..93 => {
            net.now += random.below(20) as u64 * MILLISECOND;
            if net.node(i).timer.is_some_and(|at| at <= net.now) {
                net.node(i).timer = None;
                net.step(i, Input::Tick);
            }
        }
        93..98 => {
            let client = random.below(next.len());
            let envelope = net.envelope(client as u8, next[client], 1, 0);
            next[client] += 1;
            if random.chance(50) { net.request_all(&envelope) } else { net.request(i, &envelope) }
        }
        98 if random.chance(20) => net.step(i, Input::Resign),
        _ if random.chance(weather.crashes * 10) => {
            let down = net.nodes.iter().filter(|node| node.replica.is_none()).count();
            if net.node(i).replica.is_none() {
                net.restart(i);
            } else if down < 2 || random.chance(10) {
                net.crash(i);
            }
        }
        _ => {}
    }
}

const fn drop_bool(_: bool) {}

/// Takes any message on the wire, so that all may overtake each other.
fn deliver(net: &mut Net, random: &mut Random, weather: &Weather) {
    if net.wire.is_empty() {
        return;
    }
    let at = random.below(net.wire.len().min(40));
    let (from, to, message) = net.wire.remove(at).unwrap();
    if random.chance(weather.duplication) {
        net.wire.push_back((from, to, message.clone()));
    }
    if !random.chance(weather.loss) {
        net.deliver(from, to, message);
    }
}

/// All replicas up, no loss: every request must be committed everywhere, once.
fn calm(net: &mut Net, next: &[u64; 3], seed: u64) {
    for i in 0..net.n() {
        if net.node(i).replica.is_none() {
            net.restart(i);
        }
    }
    for (client, next) in next.iter().enumerate() {
        for first in 0..*next {
            let envelope = net.envelope(client as u8, first, 1, 0);
            net.request_all(&envelope);
        }
    }
    let done = |net: &Net| {
        (0..net.n()).all(|i| {
            let numbers =
                next.iter().enumerate().flat_map(|(client, next)| (0..*next).map(move |s| (client, s)));
            numbers.into_iter().all(|(client, number)| net.times_executed(i, client as u8, number) == 1)
        })
    };
    let start = net.now;
    while !done(net) {
        assert!(net.now - start < 20 * SECOND, "seed {seed} does not come to an end:\n{:#?}", net.replicas());
        net.advance(20 * MILLISECOND);
    }
    assert!(net.nodes.iter().all(|node| node.evidence.is_empty() && node.halted.is_none()), "seed {seed}");
}

#[test]
fn random_schedules_agree_and_make_progress() {
    let first = std::env::var("QUORATE_SEED").ok().and_then(|text| text.parse().ok());
    let count = std::env::var("QUORATE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    match first {
        Some(seed) => run(seed),
        None => (0..count).for_each(run),
    }
}
