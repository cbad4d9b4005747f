//! A short prompt to a detailed one, by the text encoder itself: the language model that it is, with a chat around the prompt.

use zoetrope_api::{InvalidField, Seed};

use crate::networks::TextEncoder;
use crate::noise::Generator;
use crate::prompt::PromptTokenizer;
use crate::{Error, Interrupt, Result};

/// How a prompt is expanded.
#[derive(Clone, Debug, PartialEq)]
pub struct Expansion {
    /// What the model is told before it reads the prompt; empty: nothing.
    pub system_prompt: String,
    /// How far the model may stray from the likeliest words; 0 is not at all, and the same for every seed.
    pub temperature: f64,
    /// The most tokens of the answer, 1 to [`Expansion::TOKENS_MAX`].
    pub tokens_max: usize,
}

impl Expansion {
    /// The most that an answer may be told to have: as many as a picture's prompt may have.
    pub const TOKENS_MAX: usize = 512;
    /// The most that is read before the answer: the keys and values of so many tokens take 0.5 GB in a text encoder of full size.
    pub const QUESTION_TOKENS_MAX: usize = 1536;
    /// The highest temperature: beyond it every word is about as likely as any other.
    pub const TEMPERATURE_MAX: f64 = 2.0;
    /// What a text encoder of full size is told where nobody says otherwise.
    pub const SYSTEM_PROMPT: &str = "You write prompts for a model that draws pictures. The user gives you a short prompt. Answer with one \
        detailed prompt for the same picture, in the language of the user's prompt, in a single paragraph of 60 to 120 words. Keep every \
        subject, number, colour, place, style and quoted text that the user names, and contradict none of it. Add what can be seen: how \
        the subject looks, what surrounds it, the composition, the light, the colours and the mood. Text that shall be written in the \
        picture stays in its own language, in quotation marks. Answer with the prompt alone: no title, no list, no explanation.";
    /// As Qwen3's authors advise for answers without thinking.
    pub const TEMPERATURE: f64 = 0.7;
    /// Room for 120 words of any language, and some.
    pub const TOKENS: usize = 320;

    /// Refuses what cannot be done.
    pub fn check(&self) -> Result<()> {
        let Self { temperature, tokens_max, .. } = self;
        if !(0.0..=Self::TEMPERATURE_MAX).contains(temperature) {
            let most = Self::TEMPERATURE_MAX;
            let problem = format!("is {temperature}; it must lie between 0 and {most}");
            return Err(InvalidField::new("temperature", problem).into());
        }
        if !(1..=Self::TOKENS_MAX).contains(tokens_max) {
            let most = Self::TOKENS_MAX;
            let problem = format!("is {tokens_max}; it must lie between 1 and {most}");
            return Err(InvalidField::new("tokens_max", problem).into());
        }
        Ok(())
    }
}

impl Default for Expansion {
    fn default() -> Self {
        Self {
            system_prompt: Self::SYSTEM_PROMPT.into(),
            temperature: Self::TEMPERATURE,
            tokens_max: Self::TOKENS,
        }
    }
}

/// Of the likeliest tokens, how many are chosen among, and which share of the probability they must have together: Qwen3's
/// authors' advice, too.
const TOP_K: usize = 20;
const TOP_P: f64 = 0.8;

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The tokens, without the one that ends an answer.
    pub ids: Vec<u32>,
    /// Whether it came to its end, or to the limit.
    pub finished: bool,
}

/// The answer of `model` to a chat of `ids`. Which of several likely tokens is taken follows from `seed`; `on` hears of each.
pub fn answer(
    model: &TextEncoder,
    ids: &[u32],
    (expansion, ends): (&Expansion, &[u32]),
    seed: Seed,
    watch: &Interrupt,
    on: &mut dyn FnMut(u32),
) -> Result<Answer> {
    expansion.check()?;
    let mut past = model.past(ids.len() + expansion.tokens_max);
    let mut chance = Generator::new(seed);
    let mut answer = Answer { ids: Vec::new(), finished: false };
    let mut logits = model.next(ids, &mut past, watch)?;
    loop {
        let token = choose(&logits.to_vec1::<f32>()?, expansion.temperature, &mut chance)?;
        if ends.contains(&token) {
            answer.finished = true;
            return Ok(answer);
        }
        answer.ids.push(token);
        on(token);
        if answer.ids.len() == expansion.tokens_max {
            return Ok(answer);
        }
        logits = model.next(&[token], &mut past, watch)?;
    }
}

/// `prompt` expanded by `model`; `on` hears the text as it grows. A model that answers nothing leaves the prompt as it is.
pub(crate) fn expanded(
    model: &TextEncoder,
    tokenizer: &PromptTokenizer,
    (prompt, expansion): (&str, &Expansion),
    seed: Seed,
    watch: &Interrupt,
    on: &mut dyn FnMut(&str),
) -> Result<String> {
    let ids = tokenizer.question(&expansion.system_prompt, prompt)?;
    let most = Expansion::QUESTION_TOKENS_MAX;
    if ids.len() > most {
        let problem = format!(
            "is too long to be expanded: {} tokens with the system prompt, and the most is {most}. Send it as it is",
            ids.len()
        );
        return Err(InvalidField::new("prompt", problem).into());
    }
    let mut words = Words { tokenizer, ids: Vec::new(), told: 0 };
    let mut problem = None;
    let mut told = |token| match words.push(token) {
        Ok(Some(text)) => on(&text),
        Ok(None) => {}
        Err(error) => problem = Some(error),
    };
    let ends = tokenizer.ends();
    let answer = answer(model, &ids, (expansion, &ends), seed, watch, &mut told)?;
    if let Some(error) = problem {
        return Err(error);
    }
    let text = tokenizer.decode(&answer.ids)?;
    let text = text.trim();
    Ok(if text.is_empty() { prompt.into() } else { text.into() })
}

/// Tokens to text as they come. A character may take several tokens, and is told once it is whole.
struct Words<'a> {
    tokenizer: &'a PromptTokenizer,
    ids: Vec<u32>,
    /// Bytes of the text that were told.
    told: usize,
}

impl Words<'_> {
    fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        let whole = text.trim_end_matches('\u{fffd}').len();
        let new = text.get(self.told..whole).filter(|new| !new.is_empty()).map(String::from);
        self.told = self.told.max(whole);
        Ok(new)
    }
}

/// The likeliest token, the first of equals, where the temperature is 0; else one of the likeliest by chance.
fn choose(logits: &[f32], temperature: f64, chance: &mut Generator) -> Result<u32> {
    if logits.iter().any(|logit| !logit.is_finite()) {
        return Err(Error::NotANumber { stage: "the expansion of the prompt" });
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let better =
        |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let few = if temperature == 0.0 { 1 } else { TOP_K };
    if few < order.len() {
        order.select_nth_unstable_by(few - 1, better);
        order.truncate(few);
    }
    order.sort_unstable_by(better);
    if temperature == 0.0 {
        return Ok(order[0]);
    }
    let peak = f64::from(logits[order[0] as usize]);
    let weight = |id: &u32| ((f64::from(logits[*id as usize]) - peak) / temperature).exp();
    let weights: Vec<f64> = order.iter().map(weight).collect();
    let sum: f64 = weights.iter().sum();
    // The fewest that have the share; the likeliest always.
    let mut kept = 0.0;
    let taken = weights.iter().take_while(|weight| {
        let more = kept < TOP_P * sum;
        kept += **weight;
        more
    });
    let taken: Vec<f64> = taken.copied().collect();
    let mut left = chance.uniform() * taken.iter().sum::<f64>();
    let found = taken.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    Ok(order[found.unwrap_or(taken.len() - 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_temperature_the_first_of_the_likeliest_is_taken() {
        let mut chance = Generator::new(Seed(1));
        assert_eq!(choose(&[0.0, 3.0, 3.0, -1.0], 0.0, &mut chance).unwrap(), 1);
        assert!(choose(&[0.0, f32::NAN], 0.0, &mut chance).is_err());
    }

    #[test]
    fn chance_follows_the_seed_and_keeps_to_what_is_likely() {
        // Probabilities of about 0.60, 0.22, 0.15 and 0.02; the first two have 0.8 together.
        let logits = [0.4f32, 1.4, -2.0, 0.0];
        let draw = |seed| {
            let mut chance = Generator::new(Seed(seed));
            (0..2000).map(|_| choose(&logits, 1.0, &mut chance).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let share = draw(1).iter().filter(|id| **id == 1).count() as f64 / 2000.0;
        // e^1.4 / (e^1.4 + e^0.4)
        assert!((share - 0.731).abs() < 0.03, "{share}");
        assert!(draw(3).iter().all(|id| [0, 1].contains(id)));
        let mut chance = Generator::new(Seed(1));
        assert!((0..200).all(|_| choose(&logits, 0.05, &mut chance).unwrap() == 1));
    }

    #[test]
    fn limits_are_named() {
        let of =
            |temperature, tokens_max| Expansion { temperature, tokens_max, ..Expansion::default() };
        assert!(of(0.7, 100).check().is_ok());
        for (wrong, says) in
            [(of(-0.1, 9), "temperature"), (of(f64::NAN, 9), "temperature"), (of(0.0, 513), "512")]
        {
            let message = wrong.check().unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
