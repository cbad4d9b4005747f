//! Pictures and captions as the transformer takes them, encoded once and kept.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use zoetrope_engine::Interrupt;
use zoetrope_engine::pipeline::{self, Pipeline};
use zoetrope_engine::training::Fingerprints;

use crate::data::{Cache, Dataset, Example};
use crate::job::{Event, Job, Listener};
use crate::{Error, Result};

/// All that is learned from.
pub(crate) struct Inputs {
    cache: Cache,
    /// What is shown, each as often as it repeats: a picture's and its caption's place.
    pub(crate) shown: Vec<Shown>,
    /// The same of the prior's.
    pub(crate) prior: Vec<Shown>,
    /// Tokens of the largest picture and the longest caption.
    pub(crate) tokens_max: usize,
    /// Pictures, each counted once.
    pub(crate) pictures: usize,
    /// Tells these inputs from others.
    pub(crate) fingerprint: String,
    encoder: String,
    device: Device,
}

/// A picture with its caption, by their keys in the cache.
#[derive(Clone)]
pub(crate) struct Shown {
    picture: String,
    caption: String,
}

/// A picture in latents, in the transformer's scale.
pub(crate) struct Latents {
    /// `[channels, height, width]`
    pub(crate) mean: Tensor,
    /// As `mean`.
    pub(crate) deviation: Tensor,
    /// `[1, height, width]`: how much each place counts.
    pub(crate) weights: Option<Tensor>,
}

impl Inputs {
    /// Reads the job's pictures, and encodes with the model's encoders what the cache does not have. The encoders are freed.
    pub(crate) fn prepare(
        pipeline: &mut Pipeline,
        job: &Job,
        prints: &Fingerprints,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Self> {
        let dataset = Dataset::open(&job.data, &job.data_settings)?;
        for skipped in &dataset.skipped {
            on(Event::Note(&format!("{}: {}; it is left out", skipped.name, skipped.problem)));
        }
        dataset.notes.iter().for_each(|note| on(Event::Note(note)));
        let mut inputs = Self {
            cache: Cache::open(&job.folder.join("cache"))?,
            shown: Vec::new(),
            prior: Vec::new(),
            tokens_max: 0,
            fingerprint: String::new(),
            pictures: dataset.examples.len(),
            encoder: prints.text_encoder.clone(),
            device: pipeline.device(),
        };
        let captions = dataset.examples.iter().map(|e| e.caption.as_str());
        let captions: BTreeSet<&str> =
            captions.chain([""]).chain(job.samples.prompts.iter().map(String::as_str)).collect();
        let longest = inputs.encode_captions(&captions, pipeline, interrupt, on)?;
        let mut digest = Sha256::new();
        let mut widest = 0;
        for (done, example) in dataset.examples.iter().enumerate() {
            interrupt.check()?;
            on(Event::Preparing { what: "pictures", done, of: dataset.examples.len() });
            let picture = inputs.encode_picture(
                example,
                &prints.vae,
                (pipeline, job.settings.outside_mask),
                interrupt,
                on,
            )?;
            digest.update(format!(
                "{picture} {} {} {}\n",
                example.caption, example.repeats, example.prior
            ));
            widest = widest.max(example.size.image_tokens());
            let shown = Shown { picture, caption: inputs.caption_key(&example.caption) };
            let list = if example.prior { &mut inputs.prior } else { &mut inputs.shown };
            list.extend(vec![shown; example.repeats]);
        }
        on(Event::Preparing {
            what: "pictures",
            done: dataset.examples.len(),
            of: dataset.examples.len(),
        });
        pipeline.release_encoders();
        inputs.tokens_max = widest.next_multiple_of(32) + longest.next_multiple_of(32);
        inputs.fingerprint = hex(digest);
        Ok(inputs)
    }

    /// Encodes the captions that the cache does not have; the tokens of the longest.
    fn encode_captions(
        &self,
        captions: &BTreeSet<&str>,
        pipeline: &mut Pipeline,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<usize> {
        let heard = to_engine(on);
        let mut longest = 0;
        for (done, caption) in captions.iter().enumerate() {
            interrupt.check()?;
            on(Event::Preparing { what: "captions", done, of: captions.len() });
            let encode = || {
                Ok(BTreeMap::from([(
                    "features".into(),
                    pipeline.features(caption, interrupt, &heard)?,
                )]))
            };
            let tensors = self.cache.tensors(&self.caption_key(caption), encode)?;
            longest = longest.max(named(&tensors, "features")?.dim(0)?);
        }
        on(Event::Preparing { what: "captions", done: captions.len(), of: captions.len() });
        Ok(longest)
    }

    /// Encodes a picture if the cache does not have it; its key.
    fn encode_picture(
        &self,
        example: &Example,
        vae: &str,
        (pipeline, outside): (&mut Pipeline, f64),
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<String> {
        let key = key(&["picture", example.key(), vae, &outside.to_string()]);
        let heard = to_engine(on);
        self.cache.tensors(&key, || {
            let loaded = example.load()?;
            let moments = pipeline.latent_moments(&loaded.image, interrupt, &heard)?;
            let mut tensors = BTreeMap::from([
                ("mean".to_string(), moments.mean),
                ("deviation".to_string(), moments.deviation),
            ]);
            if let Some(mask) = &loaded.mask {
                let weights = weights(mask, loaded.image.width, outside as f32)?;
                tensors.insert("weights".into(), weights);
            }
            Ok(tensors)
        })?;
        Ok(key)
    }

    /// The features of a caption that was encoded: one of the examples', a sample's or the empty one.
    pub(crate) fn features(&self, caption: &str) -> Result<Tensor> {
        self.features_of(&self.caption_key(caption))
    }

    fn features_of(&self, key: &str) -> Result<Tensor> {
        Ok(named(&self.cache.read(key)?, "features")?.to_device(&self.device)?)
    }

    /// A picture in latents with the features of its caption.
    pub(crate) fn read(&self, shown: &Shown) -> Result<(Latents, Tensor)> {
        let tensors = self.cache.read(&shown.picture)?;
        let tensor = |name| Ok::<_, Error>(named(&tensors, name)?.to_device(&self.device)?);
        let weights = tensors.get("weights").map(|t| t.to_device(&self.device)).transpose()?;
        let latents = Latents { mean: tensor("mean")?, deviation: tensor("deviation")?, weights };
        Ok((latents, self.features_of(&shown.caption)?))
    }

    fn caption_key(&self, caption: &str) -> String {
        key(&["caption", caption, &self.encoder])
    }
}

/// What the engine says, among what the run says.
pub(crate) fn to_engine(on: &Listener) -> pipeline::Listener {
    let on = on.clone();
    std::sync::Arc::new(move |event| match event {
        pipeline::Event::Loading { component, read, of } => {
            on(Event::Loading { component, read, of })
        }
        pipeline::Event::Note { text } => on(Event::Note(text)),
        pipeline::Event::PromptCut { tokens } => {
            on(Event::Note(&format!(
                "a caption is too long: its last {tokens} tokens are cut off"
            )));
        }
        _ => {}
    })
}

fn named<'a>(tensors: &'a BTreeMap<String, Tensor>, name: &str) -> Result<&'a Tensor> {
    tensors.get(name).ok_or_else(|| {
        Error::data("the cache", format!("has a file without `{name}`; remove its folder"))
    })
}

/// `mask`, a byte a pixel, as weights of latents, `[1, height / 8, width / 8]`: 255 counts 1, 0 counts `outside`.
fn weights(mask: &[u8], width: usize, outside: f32) -> Result<Tensor> {
    let (columns, rows) = (width / 8, mask.len() / width / 8);
    let mean = |row: usize, column: usize| {
        let pixels = (0..8).flat_map(|y| &mask[(8 * row + y) * width + 8 * column..][..8]);
        pixels.map(|v| f32::from(*v)).sum::<f32>() / (64.0 * 255.0)
    };
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let values: Vec<f32> =
        places.map(|(row, column)| outside + (1.0 - outside) * mean(row, column)).collect();
    Ok(Tensor::from_vec(values, (1, rows, columns), &Device::Cpu)?)
}

/// A name for the cache: a digest of `parts` and where each ends.
fn key(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    hex(digest)
}

/// The SHA-256 of `bytes`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(Sha256::new().chain_update(bytes))
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_count_by_their_share_of_each_latent() {
        let (width, height) = (32, 16);
        let mask: Vec<u8> =
            (0..width * height).map(|i| if i % width < 12 { 255 } else { 0 }).collect();
        let weights = weights(&mask, width, 0.25).unwrap();
        assert_eq!(weights.dims(), [1, 2, 4]);
        let row: Vec<f32> = weights.get(0).unwrap().get(1).unwrap().to_vec1().unwrap();
        assert_eq!(row, [1.0, 0.625, 0.25, 0.25]);
    }

    #[test]
    fn keys_tell_where_their_parts_end() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
    }
}
