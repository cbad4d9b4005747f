//! Votes to ratings: pure functions, which give the same numbers for the same votes wherever they are computed.
//!
//! A [`Battle`] is one vote between two players, numbered from 0. [`strength`] fits all votes at once, [`bootstrap`] says how
//! sure that is, [`skill`] follows them one after the other, [`bias`] asks whether the side decided, and [`board`] puts all of it
//! together.

pub mod bias;
pub mod board;
pub mod bootstrap;
pub mod chance;
pub mod skill;
pub mod strength;

pub use zoetrope_jobs::Verdict;

/// One vote, as it was cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Battle {
    /// Who was shown on the left.
    pub left: usize,
    /// Who was shown on the right; another player.
    pub right: usize,
    /// What was said.
    pub verdict: Verdict,
}

impl Battle {
    /// Points of the player on the left: 1, 0, or a half where neither was better. That both were bad says nothing about which was
    /// better either, so it counts as a tie; LMArena does the same.
    pub fn left_points(&self) -> f64 {
        match self.verdict {
            Verdict::Left => 1.0,
            Verdict::Right => 0.0,
            Verdict::Tie | Verdict::BothBad => 0.5,
        }
    }
}
