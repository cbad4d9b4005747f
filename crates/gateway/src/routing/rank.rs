//! In which order deployments are asked.

use tokio::time::Instant;

use super::breaker::Standing;
use super::candidates::Candidate;
use super::registry::{Registry, Seen};
use crate::catalogue::{Model, Protocol, Strategy};
use crate::gateway::Snapshot;

/// What is known of a candidate.
#[derive(Clone, Copy, Debug)]
struct Facts {
    seen: Seen,
    priority: u32,
    weight: f64,
    /// Millionths of a dollar, of the whole request.
    price: Option<i64>,
    /// Whether a call would begin at once.
    free: bool,
    local: bool,
    /// Requests that wait there.
    waiting: Option<u64>,
}

/// Prices below this are all the same: what costs nothing would otherwise be the only one.
const PRICE_MIN: f64 = 1000.0;
/// Where no price is known.
const PRICE_UNKNOWN: f64 = 20_000.0;
/// Seconds, where nothing was ever measured.
const LATENCY_UNKNOWN: f64 = 10.0;
/// Seconds: faster than this is as good.
const LATENCY_MIN: f64 = 0.05;

impl Facts {
    /// In which round it is asked: those that work; those that asked for a pause or have no room; at last those that fail.
    fn round(&self) -> u8 {
        match self.seen.standing {
            Standing::Open => 2,
            Standing::Cooling => 1,
            Standing::Closed | Standing::HalfOpen => u8::from(!self.free),
        }
    }

    fn expected(&self) -> Option<f64> {
        Some(self.seen.expected?.max(LATENCY_MIN) / self.seen.success.max(0.01))
    }

    /// Its share where price, latency and success are weighed against each other.
    fn balance(&self) -> f64 {
        let price = self.price.map_or(PRICE_UNKNOWN, |price| (price as f64).max(PRICE_MIN));
        let latency = self.seen.expected.unwrap_or(LATENCY_UNKNOWN).max(LATENCY_MIN);
        self.seen.success / (price * price * latency)
    }
}

/// The candidates in the order in which they are asked.
pub(crate) async fn rank(
    candidates: Vec<Candidate>,
    model: &Model,
    (snapshot, registry): (&Snapshot, &Registry),
    chance: &(dyn Fn() -> u64 + Send + Sync),
) -> Vec<Candidate> {
    if candidates.len() < 2 {
        return candidates;
    }
    let (now, mut facts) = (Instant::now(), Vec::with_capacity(candidates.len()));
    for candidate in &candidates {
        let deployment = &candidate.plan.deployment;
        let entry = snapshot.catalogue.providers.get(&deployment.provider);
        let local = entry.is_some_and(|entry| entry.protocol == Protocol::Local);
        let looks = local && matches!(model.strategy, Strategy::LocalFirst { .. });
        facts.push(Facts {
            seen: registry.deployment(&deployment.key).seen(candidate.plan.fit.made, now),
            priority: deployment.priority,
            weight: deployment.weight,
            price: candidate.plan.total().map(|total| total.0),
            free: candidate.lane.is_free(now),
            local,
            waiting: if looks { candidate.provider.waiting().await } else { None },
        });
    }
    let explore = match snapshot.catalogue.routing.explore_one_in {
        0 => false,
        one_in => chance() % one_in == 0,
    };
    let draw = Draw { turn: registry.turn(&model.id), chance: unit(chance()), explore };
    let order = order(&facts, model.strategy, draw);
    let mut candidates: Vec<_> = candidates.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| candidates[at].take()).collect()
}

/// From 0 to below 1.
fn unit(number: u64) -> f64 {
    (number >> 11) as f64 / (1_u64 << 53) as f64
}

/// What is decided by chance or by turn, the same for one request.
#[derive(Clone, Copy, Debug)]
struct Draw {
    turn: u64,
    /// From 0 to below 1.
    chance: f64,
    /// Whether the one that was asked least is asked now.
    explore: bool,
}

fn order(facts: &[Facts], strategy: Strategy, draw: Draw) -> Vec<usize> {
    let busy = |at: &usize| match strategy {
        Strategy::LocalFirst { waiting_max } => match facts[*at].local {
            true if facts[*at].waiting.unwrap_or(0) > waiting_max => 2,
            true => 0,
            false => 1,
        },
        _ => 0,
    };
    let group = |at: &usize| (facts[*at].round(), busy(at), facts[*at].priority);
    let mut all: Vec<usize> = (0..facts.len()).collect();
    all.sort_by_key(group); // stable: the rest is the order of the configuration
    let groups = all.chunk_by_mut(|one, other| group(one) == group(other));
    groups.for_each(|members| arrange(members, facts, strategy, draw));
    all
}

/// The order within a group.
fn arrange(members: &mut [usize], facts: &[Facts], strategy: Strategy, draw: Draw) {
    match strategy {
        Strategy::Ordered => {}
        Strategy::RoundRobin => {
            let turn = (draw.turn % members.len() as u64) as usize;
            members.rotate_left(turn);
        }
        Strategy::Cheapest => {
            members.sort_by_key(|at| facts[*at].price.unwrap_or(i64::MAX));
        }
        Strategy::Fastest => {
            // One that was never measured is measured now.
            let expected = |at: usize| facts[at].expected().unwrap_or(0.0);
            members.sort_by(|one, other| expected(*one).total_cmp(&expected(*other)));
            explore(members, facts, draw);
        }
        Strategy::Weighted => by_weight(members, |at| facts[at].weight, draw.chance),
        Strategy::Balanced => {
            by_weight(members, |at| facts[at].balance(), draw.chance);
            explore(members, facts, draw);
        }
        // Not explored: that would cost something while this machine is idle.
        Strategy::LocalFirst { .. } => {
            by_weight(members, |at| facts[at].balance(), draw.chance);
        }
    }
}

/// The first by chance, as its weight is; the others by falling weight.
fn by_weight(members: &mut [usize], weight: impl Fn(usize) -> f64, chance: f64) {
    members.sort_by(|one, other| weight(*other).total_cmp(&weight(*one)));
    let mut left = chance * members.iter().map(|at| weight(*at)).sum::<f64>();
    let drawn = members.iter().position(|at| {
        left -= weight(*at);
        left < 0.0
    });
    if let Some(drawn) = drawn {
        members[..=drawn].rotate_right(1);
    }
}

/// What is never asked is never measured.
fn explore(members: &mut [usize], facts: &[Facts], draw: Draw) {
    let asked = |at: usize| facts[at].seen.asked;
    let least = (0..members.len())
        .min_by(|one, other| asked(members[*one]).total_cmp(&asked(members[*other])));
    if let Some(least) = least.filter(|_| draw.explore) {
        members[..=least].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(price: i64, expected: f64) -> Facts {
        let seen =
            Seen { standing: Standing::Closed, expected: Some(expected), success: 1.0, asked: 5.0 };
        let (weight, local, waiting) = (1.0, false, None);
        Facts { seen, priority: 0, weight, price: Some(price), free: true, local, waiting }
    }

    fn standing(facts: Facts, standing: Standing) -> Facts {
        Facts { seen: Seen { standing, ..facts.seen }, ..facts }
    }

    fn local(waiting: u64) -> Facts {
        Facts { local: true, waiting: Some(waiting), ..facts(0, 20.0) }
    }

    const DRAW: Draw = Draw { turn: 1, chance: 0.5, explore: false };

    #[test]
    fn each_strategy_has_its_order() {
        let three = [facts(15_000, 3.0), facts(5_000, 9.0), facts(10_000, 1.0)];
        let local_first = Strategy::LocalFirst { waiting_max: 4 };
        let failing = Facts { seen: Seen { success: 0.1, ..three[2].seen }, ..three[2] };
        let unknown =
            Facts { price: None, seen: Seen { expected: None, ..three[0].seen }, ..three[0] };
        let cases: &[(&str, Strategy, &[Facts], &[usize])] = &[
            ("ordered", Strategy::Ordered, &three, &[0, 1, 2]),
            ("cheapest", Strategy::Cheapest, &three, &[1, 2, 0]),
            ("cheapest of unknown", Strategy::Cheapest, &[unknown, three[1]], &[1, 0]),
            ("fastest", Strategy::Fastest, &three, &[2, 0, 1]),
            ("fast but failing", Strategy::Fastest, &[three[0], three[1], failing], &[0, 1, 2]),
            ("not measured yet", Strategy::Fastest, &[three[2], unknown], &[1, 0]),
            ("round robin", Strategy::RoundRobin, &three, &[1, 2, 0]),
            ("local while it is idle", local_first, &[facts(5_000, 1.0), local(4)], &[1, 0]),
            ("others while it is busy", local_first, &[local(5), facts(5_000, 1.0)], &[1, 0]),
        ];
        for (name, strategy, facts, expected) in cases {
            assert_eq!(order(facts, *strategy, DRAW), *expected, "{name}");
        }
    }

    #[test]
    fn priorities_go_before_strategies_and_health_before_both() {
        let (cheap, dear) = (facts(1_000, 1.0), facts(9_000, 1.0));
        let second = Facts { priority: 1, ..cheap };
        assert_eq!(order(&[second, dear], Strategy::Cheapest, DRAW), [1, 0]);
        let open = standing(cheap, Standing::Open);
        let cooling = standing(cheap, Standing::Cooling);
        let full = Facts { free: false, ..cheap };
        let probe = standing(cheap, Standing::HalfOpen);
        let all = [open, cooling, full, second, dear, probe];
        assert_eq!(order(&all, Strategy::Cheapest, DRAW), [5, 4, 3, 1, 2, 0]);
    }

    #[test]
    fn weights_are_shares_of_chance() {
        let heavy = Facts { weight: 3.0, ..facts(0, 1.0) };
        let both = [facts(0, 1.0), heavy];
        let first = |chance: f64| order(&both, Strategy::Weighted, Draw { chance, ..DRAW })[0];
        assert_eq!((0..1000).filter(|n| first((f64::from(*n) + 0.5) / 1000.0) == 1).count(), 750);
        // The inverse square of the price, the inverse of the latency.
        let both = [facts(10_000, 1.0), facts(5_000, 2.0)];
        let first = |chance: f64| order(&both, Strategy::Balanced, Draw { chance, ..DRAW })[0];
        assert_eq!((0..300).filter(|n| first((f64::from(*n) + 0.5) / 300.0) == 1).count(), 200);
    }

    #[test]
    fn now_and_then_the_least_asked_is_asked() {
        let rare = Facts { seen: Seen { asked: 0.1, ..facts(0, 0.0).seen }, ..facts(90_000, 60.0) };
        let both = [facts(1_000, 1.0), rare];
        let explored = Draw { explore: true, ..DRAW };
        assert_eq!(order(&both, Strategy::Fastest, explored), [1, 0]);
        assert_eq!(order(&both, Strategy::Cheapest, explored), [0, 1], "what it costs is known");
    }
}
