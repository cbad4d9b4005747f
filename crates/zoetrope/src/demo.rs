//! The model inside the binary: what it can draw, and how to tell that a prompt asks for more.

use serde::Deserialize;
use zoetrope_checkpoint::Layout;
use zoetrope_engine::expand::Expansion;

macro_rules! embed {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../../models/demo/", $path)) as &[u8])),*]
    };
}

static FILES: &[(&str, &[u8])] = embed![
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// The name that selects it.
pub(crate) const NAME: &str = "demo";

pub(crate) fn layout() -> anyhow::Result<Layout> {
    Ok(Layout::from_static(NAME, FILES)?)
}

/// What the recipe says of its model.
#[derive(Deserialize)]
pub(crate) struct Demo {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) steps: u32,
    words: Vec<String>,
    chinese: Vec<String>,
    expansion: Told,
}

/// How its text encoder is asked to expand a prompt.
#[derive(Deserialize)]
struct Told {
    system_prompt: String,
    temperature: f64,
    tokens_max: usize,
}

impl Demo {
    pub(crate) fn load() -> anyhow::Result<Self> {
        Ok(serde_json::from_slice(include_bytes!("../../../models/demo/demo.json"))?)
    }

    /// How its prompts are expanded.
    pub(crate) fn expansion(&self) -> Expansion {
        let Told { system_prompt, temperature, tokens_max } = &self.expansion;
        Expansion {
            system_prompt: system_prompt.clone(),
            temperature: *temperature,
            tokens_max: *tokens_max,
        }
    }

    /// The first word of `prompt` that the model never saw; `None` when it knows them all.
    pub(crate) fn stranger(&self, prompt: &str) -> Option<String> {
        let lower = prompt.to_lowercase();
        let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
        words.map(|word| self.unknown_part(word)).find(|rest| !rest.is_empty())
    }

    /// What is left of `word` once all that is known is taken out: nothing for a known word or a run of known
    /// Chinese words, which are written without spaces.
    fn unknown_part(&self, word: &str) -> String {
        if self.words.iter().any(|w| w == word) {
            return String::new();
        }
        let mut rest = word.to_string();
        let mut known: Vec<&String> = self.chinese.iter().collect();
        known.sort_by_key(|w| std::cmp::Reverse(w.len()));
        for part in known {
            rest = rest.replace(part.as_str(), "");
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_of_its_world_have_no_stranger() {
        let demo = Demo::load().unwrap();
        for prompt in
            ["A red house on the left, at night.", "左边有一座红色的房子，夜晚", "the sea, clouds"]
        {
            assert_eq!(demo.stranger(prompt), None, "{prompt}");
        }
        assert_eq!(demo.stranger("a red dragon").as_deref(), Some("dragon"));
        assert_eq!(demo.stranger("红色的恐龙").as_deref(), Some("恐龙"));
    }
}
