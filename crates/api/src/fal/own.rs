//! Fields of ours on fal's endpoints: what fal has no field for. Documents and schemas do not show them, so that clients and forms
//! made from those stay fal's; who sends none of them gets what fal's fields alone say.

use serde_json::{Value, json};

use super::endpoint::{Draws, Endpoint, Makes};
use super::field::{Field, Kind, field, optional};
use super::read::Reader;
use crate::{Controls, InvalidField, Sampler, Sigmas, Variation};

/// Fields of `endpoint` beside fal's.
pub fn fields(endpoint: &Endpoint) -> Vec<Field> {
    match endpoint.makes {
        Makes::Pictures { .. } => of_pictures(),
        Makes::Adapter { .. } => Vec::new(),
    }
}

fn of_pictures() -> Vec<Field> {
    vec![
        field(
            "sampler",
            Kind::Choice(&Sampler::NAMES),
            json!("euler"),
            "How the way from noise to image is walked.",
        ),
        optional(
            "sigmas",
            Kind::Sigmas,
            json!([1.0, 0.75, 0.5, 0.25]),
            "Noise levels before shifting, one a step, in place of num_inference_steps.",
        ),
        optional(
            "variation_seed",
            Kind::Seed,
            json!(43),
            "A seed whose noise the image leans towards, as far as variation_strength says.",
        ),
        field(
            "variation_strength",
            Kind::Number { min: 0.0, max: 1.0 },
            json!(Variation::STRENGTH_DEFAULT),
            "How far: 0 is the noise of seed, 1 that of variation_seed.",
        ),
        field(
            "seed_per_image",
            Kind::Flag,
            json!(false),
            "If true, image i starts from seed + i, as if it had been asked for alone.",
        ),
        field(
            "prompt_weighting",
            Kind::Flag,
            json!(false),
            "If true, (word:1.2) in the prompt is a weight and not text.",
        ),
    ]
}

impl Reader<'_> {
    /// What is asked for beyond fal's fields, and the tiles of endpoints that have them.
    pub(super) fn controls(&mut self, draws: Draws) -> Controls {
        let tiling = if draws == Draws::Tiles { self.tiling() } else { None };
        let strength = self.number("variation_strength").unwrap_or_default();
        let variation = self.seed("variation_seed").map(|seed| Variation { seed, strength });
        Controls {
            sampler: self.choice("sampler").parse().unwrap_or_default(),
            sigmas: self.sigmas(),
            tiling,
            variation,
            seed_per_image: self.flag("seed_per_image"),
            prompt_weighting: self.flag("prompt_weighting"),
        }
    }

    fn sigmas(&mut self) -> Option<Sigmas> {
        let (value, _) = self.value("sigmas")?;
        let levels = value.as_array().map(|levels| levels.iter().map(Value::as_f64));
        let Some(levels) = levels.and_then(|levels| levels.collect::<Option<Vec<_>>>()) else {
            self.wrong("sigmas", "list_type", "Input should be a valid list of numbers", &value);
            return None;
        };
        let sigmas = Sigmas::new(levels.into_iter().map(|level| level as f32).collect());
        sigmas.map_err(|wrong| self.invalid(&wrong)).ok()
    }

    /// Notes what a value of ours says is wrong with a field.
    pub(super) fn invalid(&mut self, wrong: &InvalidField) {
        let sent = self.body.get(wrong.field).cloned().unwrap_or_default();
        self.wrong(wrong.field, "value_error", format!("Value error, {wrong}"), &sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fal::field::fields as published;
    use crate::fal::schema::input_schema;
    use crate::fal::{ENDPOINTS, parse};
    use crate::task::Task;

    #[test]
    fn fields_of_ours_are_taken_and_not_shown() {
        for endpoint in ENDPOINTS {
            let schema = input_schema(endpoint).to_string();
            for own in fields(endpoint) {
                assert!(
                    published(endpoint).iter().all(|field| field.name != own.name),
                    "{}",
                    own.name
                );
                assert!(
                    !schema.contains(&format!("\"{}\"", own.name)),
                    "{} {}",
                    endpoint.id,
                    own.name
                );
            }
        }
        let body = json!({"prompt": "x", "sampler": "heun", "sigmas": [1, "x"]});
        let endpoint = Endpoint::find("fal-ai/z-image/base").unwrap();
        assert_eq!(parse(endpoint, &body).unwrap_err()[0].kind, "list_type");
        let body = json!({"prompt": "x", "sampler": "heun", "sigmas": [1, 0.5], "variation_seed": -1,
            "variation_strength": 0.3, "seed_per_image": true, "prompt_weighting": "yes"});
        let Task::Generate(task) = parse(endpoint, &body).unwrap() else { panic!("it draws") };
        let want = Controls {
            sampler: Sampler::Heun,
            sigmas: Some(Sigmas::new(vec![1.0, 0.5]).unwrap()),
            tiling: None,
            variation: Some(Variation { seed: u64::MAX, strength: 0.3 }),
            seed_per_image: true,
            prompt_weighting: true,
        };
        assert_eq!(task.controls, want);
    }
}
