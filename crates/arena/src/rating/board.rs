//! A board: everybody's rating, interval, record and rank from one list of votes.

use super::bias::Bias;
use super::bootstrap::{self, DRAWS};
use super::skill::{self, Ending, Skill};
use super::strength::{Points, VIRTUAL_TIES, shown};
use super::{Battle, Verdict};

/// Votes after which a player is on a board; with fewer its place says little.
pub const BATTLES_MIN: u64 = 4;
/// So that the same votes always show the same intervals.
const SEED: u64 = 20_260_914;

/// What became of one list of votes.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    /// Everybody, best first.
    pub rows: Vec<Row>,
    /// How many votes.
    pub battles: usize,
    /// Whether the side decided.
    pub bias: Bias,
}

/// One player.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub player: usize,
    /// Bradley–Terry's rating, as it is shown.
    pub rating: f64,
    /// Where it lies with 95 %, from and to.
    pub interval: (f64, f64),
    /// Its place by rating, from 1; equals share one.
    pub rank: usize,
    /// The places that its interval allows: before it is who lies wholly above, behind it who lies wholly below.
    pub ranks: (usize, usize),
    /// The rating that follows votes one by one.
    pub skill: Skill,
    /// Its place by that.
    pub skill_rank: usize,
    /// What it won, lost and tied.
    pub record: Record,
}

/// What a player won, lost and tied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Votes for it.
    pub wins: u64,
    /// Votes for the other.
    pub losses: u64,
    /// Votes for neither, those that found both bad included.
    pub ties: u64,
    /// Of the ties, those that found both bad.
    pub both_bad: u64,
}

impl Record {
    /// All votes.
    pub fn battles(&self) -> u64 {
        self.wins + self.losses + self.ties
    }

    /// The share of wins among all votes; 0 without any.
    pub fn win_rate(&self) -> f64 {
        self.wins as f64 / self.battles().max(1) as f64
    }
}

impl Board {
    /// That of `battles`, in the order in which they were cast, between `players`.
    pub fn of(players: usize, battles: &[Battle]) -> Self {
        let fit = Points::of(players, battles).fit(VIRTUAL_TIES);
        let strengths = fit.unwrap_or_else(|| vec![0.0; players]);
        let intervals = bootstrap::intervals(players, battles, DRAWS, SEED);
        let (skills, records) = (skills(players, battles), records(players, battles));
        let above = |value: f64, all: &dyn Fn(usize) -> f64| {
            1 + (0..players).filter(|other| all(*other) > value + EQUAL).count()
        };
        let mut rows: Vec<Row> = (0..players)
            .map(|player| {
                let (low, high) = intervals[player];
                let before = intervals.iter().filter(|other| other.0 > high).count();
                let behind = intervals.iter().filter(|other| other.1 < low).count();
                Row {
                    player,
                    rating: shown(strengths[player]),
                    interval: (shown(low), shown(high)),
                    rank: above(strengths[player], &|other| strengths[other]),
                    ranks: (1 + before, players - behind),
                    skill: skills[player],
                    skill_rank: above(skills[player].shown(), &|other| skills[other].shown()),
                    record: records[player],
                }
            })
            .collect();
        rows.sort_by(|one, other| {
            other.rating.total_cmp(&one.rating).then(one.player.cmp(&other.player))
        });
        Self { rows, battles: battles.len(), bias: Bias::of(battles) }
    }

    /// The row of `player`.
    pub fn row(&self, player: usize) -> Option<&Row> {
        self.rows.iter().find(|row| row.player == player)
    }
}

/// Ratings that differ by less came from the same votes in another order of additions.
const EQUAL: f64 = 1e-9;

/// Everybody's, after all votes.
pub fn skills(players: usize, battles: &[Battle]) -> Vec<Skill> {
    let mut skills = vec![Skill::default(); players];
    for Battle { left, right, verdict } in battles {
        let (first, second, ending) = match verdict {
            Verdict::Left => (*left, *right, Ending::FirstWins),
            Verdict::Right => (*right, *left, Ending::FirstWins),
            Verdict::Tie | Verdict::BothBad => (*left, *right, Ending::Draw),
        };
        (skills[first], skills[second]) = skill::after(skills[first], skills[second], ending);
    }
    skills
}

fn records(players: usize, battles: &[Battle]) -> Vec<Record> {
    let mut records = vec![Record::default(); players];
    for Battle { left, right, verdict } in battles {
        match verdict {
            Verdict::Left => {
                (records[*left].wins, records[*right].losses) =
                    (records[*left].wins + 1, records[*right].losses + 1)
            }
            Verdict::Right => {
                (records[*right].wins, records[*left].losses) =
                    (records[*right].wins + 1, records[*left].losses + 1)
            }
            Verdict::Tie | Verdict::BothBad => {
                for player in [*left, *right] {
                    records[player].ties += 1;
                    records[player].both_bad += u64::from(*verdict == Verdict::BothBad);
                }
            }
        }
    }
    records
}
