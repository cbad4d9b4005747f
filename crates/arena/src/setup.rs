//! Challenges: how one is made, and who takes part.

use uuid::Uuid;
use zoetrope_api::ImageSize;
use zoetrope_gateway::caller::Caller;
use zoetrope_jobs::{Challenge, ChallengePrompt};

use crate::rating::chance::Chance;
use crate::{Arena, Contender, Error, Result, Wrong};

/// A challenge as somebody wrote it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// As people call it.
    pub name: String,
    /// Whose board its votes count for too; a word of one's own.
    pub use_case: String,
    /// One a line.
    pub prompts: String,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Of the first prompt; the others follow from it.
    pub seed: u32,
}

/// Characters of a challenge's name and of a use case.
const NAME_MAX: usize = 80;
/// Prompts of one challenge: each is drawn by everybody.
const PROMPTS_MAX: usize = 200;
/// Characters of one.
const PROMPT_MAX: usize = 4000;
/// A side of the pictures, from and to.
const SIDES: (u32, u32) = (64, 2048);
/// Contenders of one challenge: twenty are 190 pairs a prompt.
const CONTENDERS_MAX: usize = 20;

impl Arena {
    /// A challenge of `draft` for `caller`; nobody takes part yet.
    pub async fn create(&self, draft: &Draft, caller: &Caller) -> Result<Challenge> {
        let prompts: Vec<&str> =
            draft.prompts.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let wrong = draft.wrong(&prompts);
        if !wrong.is_empty() {
            return Err(Error::Wrong(wrong));
        }
        let challenge = Challenge {
            id: Uuid::now_v7().to_string(),
            owner: caller.owner.clone(),
            base: caller.base.clone(),
            name: draft.name.trim().into(),
            use_case: draft.use_case.trim().to_lowercase(),
            width: draft.width,
            height: draft.height,
            closed: false,
            created_ms: self.now_ms(),
        };
        // A seed each, so that no two prompts start from the same noise; few enough bits for every provider.
        let mut chance = Chance::new(u64::from(draft.seed));
        let prompt = |(number, prompt): (usize, &&str)| ChallengePrompt {
            number: number as i64,
            prompt: prompt.to_string(),
            seed: (chance.bits() >> 33) as i64,
        };
        let prompts: Vec<ChallengePrompt> = prompts.iter().enumerate().map(prompt).collect();
        self.queue.insert_challenge(&challenge, &prompts).await?;
        Ok(challenge)
    }

    /// Has `contender` take part in `challenge`: its pictures are made from now on. Whether it did not before.
    pub async fn enter(&self, challenge: &Challenge, contender: &Contender) -> Result<bool> {
        let entries = self.queue.entries(zoetrope_jobs::Of::Challenge(&challenge.id)).await?;
        let entry = contender.entry(challenge);
        if entries.iter().any(|other| other.contender == entry.contender) {
            return Ok(false);
        }
        let mut wrong = Vec::new();
        if entries.len() >= CONTENDERS_MAX {
            let text =
                format!("{CONTENDERS_MAX} contenders take part already, the most that is taken.");
            wrong.push(Wrong::new("model", text));
        }
        if entries.iter().any(|other| other.name == entry.name) {
            let text =
                format!("`{}` is the name of another contender; choose another.", entry.name);
            wrong.push(Wrong::new("name", text));
        }
        match wrong.is_empty() {
            true => Ok(self.queue.insert_entry(&entry).await?),
            false => Err(Error::Wrong(wrong)),
        }
    }

    /// The challenge called `id`.
    pub async fn challenge(&self, id: &str) -> Result<Challenge> {
        let found = self.queue.challenge(id).await?;
        found.ok_or(Error::NotFound("There is no such challenge; it may have been deleted."))
    }
}

impl Draft {
    fn wrong(&self, prompts: &[&str]) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        for (field, text, what) in
            [("name", &self.name, "name"), ("use_case", &self.use_case, "use case")]
        {
            let count = text.trim().chars().count();
            if count == 0 {
                wrong.push(Wrong::new(field, format!("The {what} is empty; write a word or two.")));
            } else if count > NAME_MAX {
                let text =
                    format!("The {what} has {count} characters; at most {NAME_MAX} are taken.");
                wrong.push(Wrong::new(field, text));
            }
        }
        if prompts.is_empty() {
            wrong.push(Wrong::new("prompts", "There is no prompt; write one a line."));
        }
        if prompts.len() > PROMPTS_MAX {
            let text =
                format!("There are {} prompts; at most {PROMPTS_MAX} are taken.", prompts.len());
            wrong.push(Wrong::new("prompts", text));
        }
        if let Some(at) = prompts.iter().position(|prompt| prompt.chars().count() > PROMPT_MAX) {
            let text = format!("Prompt {} has more than {PROMPT_MAX} characters.", at + 1);
            wrong.push(Wrong::new("prompts", text));
        }
        for (field, side) in [("width", self.width), ("height", self.height)] {
            if side < SIDES.0 || side > SIDES.1 {
                let text = format!("The {field} is {side}; it is from {} to {}.", SIDES.0, SIDES.1);
                wrong.push(Wrong::new(field, text));
            } else if side % ImageSize::MULTIPLE != 0 {
                let text = format!(
                    "The {field} is {side}, which is no multiple of {}.",
                    ImageSize::MULTIPLE
                );
                wrong.push(Wrong::new(field, text));
            }
        }
        wrong
    }
}
