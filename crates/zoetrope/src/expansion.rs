//! How prompts are expanded: options of `serve`, `worker` and `generate`.

use anyhow::Context;
use zoetrope_engine::expand::Expansion;

use crate::demo;

/// What was typed.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "expansion")]
pub(crate) struct Args {
    /// What the text encoder is told before it expands a prompt, or @FILE that says it [default: the model's own].
    #[arg(long, env = "ZOETROPE_EXPAND_SYSTEM_PROMPT", value_name = "TEXT")]
    expand_system_prompt: Option<String>,
    /// How far expansions may stray from the likeliest words, 0 to 2; 0 is the same for every seed [default: 0.7].
    #[arg(long, env = "ZOETROPE_EXPAND_TEMPERATURE", value_name = "X")]
    expand_temperature: Option<f64>,
    /// The most tokens of an expanded prompt, 1 to 512 [default: 320].
    #[arg(long, env = "ZOETROPE_EXPAND_TOKENS", value_name = "N")]
    expand_tokens: Option<usize>,
}

/// The most that a system prompt's file may have; the text encoder reads some thousand tokens.
const SYSTEM_PROMPT_BYTES_MAX: u64 = 64 << 10;

impl Args {
    /// How prompts of `model` are expanded.
    pub(crate) fn expansion(&self, model: &str) -> anyhow::Result<Expansion> {
        let own = match model {
            demo::NAME => demo::Demo::load()?.expansion(),
            _ => Expansion::default(),
        };
        let system_prompt = match &self.expand_system_prompt {
            Some(text) => said(text).context("--expand-system-prompt")?,
            None => own.system_prompt,
        };
        let expansion = Expansion {
            system_prompt,
            temperature: self.expand_temperature.unwrap_or(own.temperature),
            tokens_max: self.expand_tokens.unwrap_or(own.tokens_max),
        };
        expansion.check().context("--expand-…")?;
        Ok(expansion)
    }
}

/// The text, or that of the file which `@FILE` names.
fn said(text: &str) -> anyhow::Result<String> {
    let Some(file) = text.strip_prefix('@') else { return Ok(text.into()) };
    let bytes = std::fs::metadata(file).with_context(|| file.to_string())?.len();
    anyhow::ensure!(
        bytes <= SYSTEM_PROMPT_BYTES_MAX,
        "{file} has {bytes} bytes; the most is {SYSTEM_PROMPT_BYTES_MAX}"
    );
    Ok(std::fs::read_to_string(file).with_context(|| file.to_string())?.trim_end().into())
}
