//! Ratings against the same ratings by numpy and scipy; `tests/fixtures/arena/record.py` recorded them.

#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use zoetrope_arena::rating::bias::Bias;
use zoetrope_arena::rating::board::{Board, skills};
use zoetrope_arena::rating::bootstrap::intervals;
use zoetrope_arena::rating::strength::{Points, VIRTUAL_TIES, shown};
use zoetrope_arena::rating::{Battle, Verdict};

#[derive(Deserialize)]
struct Recorded {
    seed: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    players: usize,
    votes: Vec<(usize, usize, String)>,
    draws: usize,
    maximum_likelihood: Option<Vec<f64>>,
    strengths: Vec<f64>,
    intervals: Vec<(f64, f64)>,
    mu: Vec<f64>,
    sigma: Vec<f64>,
    left: u64,
    right: u64,
    wilson: (f64, f64),
    p_value: f64,
}

fn recorded() -> Recorded {
    let text = include_str!("../../../tests/fixtures/arena/ratings.json");
    serde_json::from_str(text).unwrap()
}

impl Case {
    fn battles(&self) -> Vec<Battle> {
        let battle = |(left, right, verdict): &(usize, usize, String)| Battle {
            left: *left,
            right: *right,
            verdict: Verdict::named(verdict).unwrap(),
        };
        self.votes.iter().map(battle).collect()
    }
}

fn near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{what}, {at}: {found} for {expected}");
    }
}

#[test]
fn strengths_are_those_of_the_reference() {
    for case in recorded().cases {
        let points = Points::of(case.players, &case.battles());
        near(&case.name, &points.fit(VIRTUAL_TIES).unwrap(), &case.strengths, 1e-10);
        match (points.fit(0.0), case.maximum_likelihood) {
            (Some(found), Some(expected)) => near(&case.name, &found, &expected, 1e-10),
            (None, None) => {}
            (found, expected) => panic!("{}: {found:?} for {expected:?}", case.name),
        }
    }
}

#[test]
fn intervals_are_those_of_the_reference() {
    let recorded = recorded();
    for case in recorded.cases {
        let found = intervals(case.players, &case.battles(), case.draws, recorded.seed);
        let (low, high): (Vec<f64>, Vec<f64>) = found.into_iter().unzip();
        let (expected_low, expected_high): (Vec<f64>, Vec<f64>) =
            case.intervals.into_iter().unzip();
        near(&case.name, &low, &expected_low, 1e-9);
        near(&case.name, &high, &expected_high, 1e-9);
    }
}

#[test]
fn ratings_that_follow_the_votes_are_those_of_the_reference() {
    for case in recorded().cases {
        let found = skills(case.players, &case.battles());
        let (mu, sigma): (Vec<f64>, Vec<f64>) = found.iter().map(|s| (s.mu, s.sigma)).unzip();
        near(&case.name, &mu, &case.mu, 1e-9);
        near(&case.name, &sigma, &case.sigma, 1e-9);
    }
}

#[test]
fn bias_is_that_of_the_reference() {
    for case in recorded().cases {
        let bias = Bias::of(&case.battles());
        assert_eq!((bias.left, bias.right), (case.left, case.right), "{}", case.name);
        near(&case.name, &[bias.p_value], &[case.p_value], 1e-9);
        near(
            &case.name,
            &[bias.interval.0, bias.interval.1],
            &[case.wilson.0, case.wilson.1],
            1e-9,
        );
    }
}

#[test]
fn a_board_holds_what_its_parts_say() {
    for case in recorded().cases {
        let board = Board::of(case.players, &case.battles());
        assert_eq!(board.battles, case.votes.len());
        let mut counted = 0;
        for row in &board.rows {
            near(&case.name, &[row.rating], &[shown(case.strengths[row.player])], 1e-7);
            let better =
                case.strengths.iter().filter(|s| **s > case.strengths[row.player] + 1e-9).count();
            assert_eq!(row.rank, 1 + better, "{}", case.name);
            assert!(row.ranks.0 <= row.rank && row.rank <= row.ranks.1, "{}: {row:?}", case.name);
            assert!(
                row.interval.0 <= row.rating && row.rating <= row.interval.1,
                "{}: {row:?}",
                case.name
            );
            counted += row.record.battles();
        }
        assert_eq!(counted, 2 * case.votes.len() as u64);
        assert!(board.rows.windows(2).all(|two| two[0].rating >= two[1].rating));
    }
}

#[test]
fn a_board_without_votes_is_one_of_equals() {
    let board = Board::of(3, &[]);
    assert!(
        board
            .rows
            .iter()
            .all(|row| row.rank == 1 && row.rating == 1000.0 && row.record.battles() == 0)
    );
    assert_eq!((board.bias.p_value, board.bias.interval), (1.0, (0.0, 1.0)));
}
