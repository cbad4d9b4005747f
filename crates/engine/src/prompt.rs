//! Prompts: the chat template around them, and their tokens.

use std::ops::Range;

use tokenizers::Tokenizer;

use crate::emphasis::Weighted;
use crate::{Error, Result};

/// Tokens that the reference keeps of a prompt.
pub const TOKENS_MAX: usize = 512;

/// The text encoder's tokenizer with Qwen3's chat template.
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
}

/// A prompt's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// At least one, at most what was asked for.
    pub ids: Vec<u32>,
    /// How many tokens were cut off the end.
    pub cut: usize,
}

/// Which tokens a weight is of.
type WeighedTokens = (Vec<usize>, f64);

impl PromptTokenizer {
    /// From `tokenizer.json`.
    pub fn new(json: &[u8]) -> Result<Self> {
        let tokenizer = Tokenizer::from_bytes(json)
            .map_err(|e| Error::Tokenizer(format!("cannot be read: {e}")))?;
        Ok(Self { tokenizer })
    }

    /// One user turn with the assistant's turn opened, as the model was trained on. The text is taken as it is:
    /// special tokens written in it count as such.
    pub fn chat(prompt: &str) -> String {
        format!("<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n")
    }

    /// The same turn with `references` pictures, in parts between which they stand; the last picture is the one that is drawn, and
    /// stands in the assistant's turn.
    pub fn scene(prompt: &str, references: usize) -> Vec<String> {
        if references == 0 {
            return vec![Self::chat(prompt)];
        }
        let mut parts = vec!["<|im_start|>user\n<|vision_start|>".to_string()];
        parts.resize(references, "<|vision_end|><|vision_start|>".into());
        let turn = "<|im_end|>\n<|im_start|>assistant\n<|vision_start|>";
        parts.push(format!("<|vision_end|>{prompt}{turn}"));
        parts.push("<|vision_end|><|im_end|>".into());
        parts
    }

    /// The chat in which `prompt` is asked to be expanded: Qwen3's template, with a system turn where there is one, and with
    /// thinking off.
    pub fn expansion_chat(system_prompt: &str, prompt: &str) -> String {
        let system = match system_prompt {
            "" => String::new(),
            text => format!("<|im_start|>system\n{text}<|im_end|>\n"),
        };
        format!("{system}{}<think>\n\n</think>\n\n", Self::chat(prompt))
    }

    /// All tokens of that chat.
    pub(crate) fn question(&self, system_prompt: &str, prompt: &str) -> Result<Vec<u32>> {
        self.ids(Self::expansion_chat(system_prompt, prompt))
    }

    /// The tokens that end an answer.
    pub fn ends(&self) -> Vec<u32> {
        let ends = ["<|im_end|>", "<|endoftext|>"];
        ends.iter().filter_map(|end| self.tokenizer.token_to_id(end)).collect()
    }

    /// The text of `ids`, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let decoded = self.tokenizer.decode(ids, true);
        decoded.map_err(|e| Error::Tokenizer(format!("failed on an answer: {e}")))
    }

    fn ids(&self, chat: String) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(chat, true);
        let encoding =
            encoding.map_err(|e| Error::Tokenizer(format!("failed on the prompt: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of `prompt` in its chat, cut to `most`.
    pub fn encode(&self, prompt: &str, most: usize) -> Result<Tokens> {
        self.tokens(Self::chat(prompt), most)
    }

    /// Tokens of `text` as it is, cut to `most`.
    pub fn tokens(&self, text: String, most: usize) -> Result<Tokens> {
        let mut ids = self.ids(text)?;
        let cut = ids.len().saturating_sub(most);
        ids.truncate(most);
        if ids.is_empty() {
            return Err(Error::Tokenizer(
                "made no tokens of the prompt; it is not the model's".into(),
            ));
        }
        Ok(Tokens { ids, cut })
    }

    /// The same of a prompt with weights, with the tokens that each of them is of.
    pub(crate) fn encode_spans(
        &self,
        weighted: &Weighted,
        most: usize,
    ) -> Result<(Tokens, Vec<WeighedTokens>)> {
        let tokens = self.encode(&weighted.text, most)?;
        let chat = Self::chat(&weighted.text);
        let start = chat.find(&weighted.text).unwrap_or_default();
        let encoding = self.tokenizer.encode(chat, true);
        let encoding =
            encoding.map_err(|e| Error::Tokenizer(format!("failed on the prompt: {e}")))?;
        let offsets = &encoding.get_offsets()[..tokens.ids.len()];
        let inside = |(span, weight): &(Range<usize>, f64)| {
            let (from, to) = (start + span.start, start + span.end);
            let overlaps = |(a, b): &(usize, usize)| *a < to && *b > from;
            let tokens = offsets.iter().enumerate().filter(|(_, at)| overlaps(at));
            (tokens.map(|(i, _)| i).collect(), *weight)
        };
        Ok((tokens, weighted.spans.iter().map(inside).collect()))
    }

    /// The token that words are blotted out with: the one that says nothing.
    pub(crate) fn blot(&self) -> u32 {
        self.tokenizer.token_to_id("<|endoftext|>").unwrap_or_default()
    }

    /// How many ids the tokenizer may produce, for a check against the text encoder's vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }
}
