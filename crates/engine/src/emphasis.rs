//! Weights in prompts: `a (red:1.4) house` counts "red" more, `(red:0.5)` less.
//!
//! The transformer norms what it is told, so that features cannot simply be made larger. A weight moves the caption along what the
//! words change: from the features of the same prompt with them blotted out, through its own at 1, and beyond.

use std::ops::Range;

use candle_core::Tensor;
use zoetrope_api::InvalidField;

use crate::networks::TextEncoder;
use crate::prompt::PromptTokenizer;
use crate::{Interrupt, Result};

/// A prompt without its weights, and what they are of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Weighted {
    /// The prompt as the text encoder reads it.
    pub(crate) text: String,
    /// Bytes of it, each with its weight.
    pub(crate) spans: Vec<(Range<usize>, f64)>,
}

/// Beyond this nothing but noise is drawn.
const WEIGHT_MAX: f64 = 3.0;
/// Weights of one prompt: each takes a run of the text encoder.
const SPANS_MAX: usize = 16;

/// Takes the weights out of `prompt`. Parentheses without a number after a colon at their end are text, and so are those that hold
/// others.
pub(crate) fn parse(prompt: &str) -> Result<Weighted, InvalidField> {
    let mut found = Weighted { text: String::new(), spans: Vec::new() };
    let mut rest = prompt;
    while let Some((before, words, weight, after)) = next(rest) {
        if !(0.0..=WEIGHT_MAX).contains(&weight) {
            let problem = format!(
                "has the weight {weight} for “{words}”; weights lie between 0 and {WEIGHT_MAX}"
            );
            return Err(InvalidField::new("prompt", problem));
        }
        found.text.push_str(before);
        let start = found.text.len();
        found.text.push_str(words);
        found.spans.push((start..found.text.len(), weight));
        rest = after;
    }
    if found.spans.len() > SPANS_MAX {
        let problem = format!("has {} weights; the most is {SPANS_MAX}", found.spans.len());
        return Err(InvalidField::new("prompt", problem));
    }
    found.text.push_str(rest);
    Ok(found)
}

/// The first weight of `text`: what stands before it, its words, the number, and what follows.
fn next(text: &str) -> Option<(&str, &str, f64, &str)> {
    text.match_indices('(').find_map(|(start, _)| {
        let inside = &text[start + 1..];
        let inside = &inside[..inside.find(['(', ')'])?];
        let end = start + 1 + inside.len();
        let (words, number) = inside.rsplit_once(':')?;
        let weight = number.trim().parse::<f64>().ok().filter(|weight| weight.is_finite())?;
        let closed = text[end..].starts_with(')') && !words.trim().is_empty();
        closed.then(|| (&text[..start], words, weight, &text[end + 1..]))
    })
}

/// The features of a prompt with its weights, `[tokens, width]`, at most so many tokens of it, and how many were cut.
pub(crate) fn features(
    weighted: &Weighted,
    tokens_max: usize,
    (tokenizer, encoder): (&PromptTokenizer, &TextEncoder),
    interrupt: &Interrupt,
) -> Result<(Tensor, usize)> {
    let (tokens, spans) = tokenizer.encode_spans(weighted, tokens_max)?;
    let plain = encoder.forward(&tokens.ids, interrupt)?;
    let mut features = plain.clone();
    for (inside, weight) in
        spans.iter().filter(|(inside, weight)| *weight != 1.0 && !inside.is_empty())
    {
        let mut blotted = tokens.ids.clone();
        inside.iter().for_each(|i| blotted[*i] = tokenizer.blot());
        let without = encoder.forward(&blotted, interrupt)?;
        features = (features + ((&plain - without)? * (weight - 1.0))?)?;
    }
    Ok((features, tokens.cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prompt: &str, text: &str, spans: &[(&str, f64)]) {
        let found = parse(prompt).unwrap();
        assert_eq!(found.text, text, "{prompt}");
        let words: Vec<_> = found.spans.iter().map(|(at, w)| (&text[at.clone()], *w)).collect();
        assert_eq!(words, spans, "{prompt}");
    }

    #[test]
    fn weights_are_told_from_text() {
        check("a (red:1.2) house", "a red house", &[("red", 1.2)]);
        check("(灯塔: 0.5)(x:0)", "灯塔x", &[("灯塔", 0.5), ("x", 0.0)]);
        check("(a big: red:1.5)", "a big: red", &[("a big: red", 1.5)]);
        for text in ["a (red) house", "(a:b)", "(:1.2)", "((", "a) (b:1.1", "see (1:2:x)", "(a (b)"]
        {
            check(text, text, &[]);
        }
        check("((red:1.1))", "(red)", &[("red", 1.1)]);
    }

    #[test]
    fn weights_that_draw_nothing_are_refused() {
        let error = parse("(red:9)").unwrap_err().to_string();
        assert_eq!(error, "`prompt` has the weight 9 for “red”; weights lie between 0 and 3");
        let many = "(a:1.1)".repeat(17);
        assert!(parse(&many).unwrap_err().to_string().contains("has 17 weights"));
    }
}
