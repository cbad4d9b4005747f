//! The raw votes as files: whoever has them can compute every rating again.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zoetrope_jobs::{ArenaEntry, ArenaVote, Of};

use crate::{Arena, Result, random};

/// Votes of a challenge with what is needed to read them.
pub struct Export {
    entries: Vec<ArenaEntry>,
    votes: Vec<ArenaVote>,
    /// New with every export: voters of two files cannot be told to be the same.
    salt: [u64; 2],
}

impl Arena {
    /// The votes of `of`, in the order in which they were cast.
    pub async fn export(&self, of: Of<'_>) -> Result<Export> {
        let (entries, votes) = (self.queue.entries(of).await?, self.queue.votes(of).await?);
        Ok(Export { entries, votes, salt: [random(), random()] })
    }
}

impl Export {
    fn voter(&self, name: &str) -> String {
        let mut digest = Sha256::new();
        self.salt.iter().for_each(|half| digest.update(half.to_le_bytes()));
        digest.update(name);
        digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    fn name(&self, challenge: &str, contender: &str) -> &str {
        let same =
            |entry: &&ArenaEntry| entry.challenge == challenge && entry.contender == contender;
        self.entries.iter().find(same).map_or("", |entry| &entry.name)
    }

    /// `{contenders, votes}`.
    pub fn json(&self) -> Value {
        let contender = |entry: &ArenaEntry| {
            let settings: Value = serde_json::from_str(&entry.settings).unwrap_or_default();
            json!({
                "challenge": entry.challenge, "contender": entry.contender, "name": entry.name, "model": entry.model,
                "family": entry.family, "settings": settings,
            })
        };
        let vote = |vote: &ArenaVote| {
            json!({
                "id": vote.id, "pair": vote.pair.id, "challenge": vote.pair.challenge, "prompt": vote.pair.prompt,
                "left": vote.pair.left, "right": vote.pair.right, "verdict": vote.verdict.name(),
                "voter": self.voter(&vote.pair.voter), "shown_ms": vote.pair.shown_ms, "voted_ms": vote.at_ms,
            })
        };
        json!({
            "contenders": self.entries.iter().map(contender).collect::<Vec<_>>(),
            "votes": self.votes.iter().map(vote).collect::<Vec<_>>(),
        })
    }

    /// The votes as a table with a head.
    pub fn csv(&self) -> String {
        let mut table = csv::Writer::from_writer(Vec::new());
        let head = [
            "id",
            "pair",
            "challenge",
            "prompt",
            "left",
            "left_name",
            "right",
            "right_name",
            "verdict",
            "voter",
            "shown_ms",
            "voted_ms",
        ];
        let row = |vote: &ArenaVote| {
            let pair = &vote.pair;
            [
                vote.id.clone(),
                pair.id.clone(),
                pair.challenge.clone(),
                pair.prompt.to_string(),
                pair.left.clone(),
                cell(self.name(&pair.challenge, &pair.left)),
                pair.right.clone(),
                cell(self.name(&pair.challenge, &pair.right)),
                vote.verdict.name().into(),
                self.voter(&pair.voter),
                pair.shown_ms.to_string(),
                vote.at_ms.to_string(),
            ]
        };
        let head = head.map(String::from);
        for record in std::iter::once(head).chain(self.votes.iter().map(row)) {
            table.write_record(&record).expect("memory takes everything");
        }
        let bytes = table.into_inner().expect("memory takes everything");
        String::from_utf8(bytes).expect("every cell is text")
    }
}

/// A name that somebody chose, so that no spreadsheet takes it for a formula.
fn cell(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.into(),
    }
}
