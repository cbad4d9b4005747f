//! What was sent to a task that cannot be wrong. All wrong fields are reported together, as Pydantic would.

use serde_json::{Value, json};

use super::endpoint::{Draws, Endpoint, Makes};
use super::field::{Kind, LORA_SCALE, fields};
use super::own;
use super::problem::Problem;
use super::read::{Reader, not_among};
use crate::task::{Delivery, Format, Generate, Lora, Reference, Size, Task, Train, TrainingType};
use crate::{ImageSize, NAMED_SIZES, OnFlagged, Tiling, TilingMode};

/// Pixels of one picture: fal's "up to 4 megapixels", so that 2048 × 2048 is one.
pub const PIXELS_MAX: u64 = 2048 * 2048;
/// Pixels of one side: what the engine draws. fal's pages have 14142.
pub const SIDE_MAX: i64 = ImageSize::SIDE_MAX as i64;
/// Where an object leaves a side out.
const SIDE_DEFAULT: u32 = 512;
/// Bytes of a prompt; the encoder reads 512 tokens of it.
pub const PROMPT_BYTES_MAX: usize = 100_000;

/// The task that `body`, sent to `endpoint`, asks for.
pub fn parse(endpoint: &Endpoint, body: &Value) -> Result<Task, Vec<Problem>> {
    let Value::Object(body) = body else {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        return Err(vec![Problem::new(&[], "model_attributes_type", msg).input(body)]);
    };
    let fields = [fields(endpoint), own::fields(endpoint)].concat();
    let mut read = Reader { body, fields: &fields, problems: Vec::new() };
    let task = match endpoint.makes {
        Makes::Pictures { draws, .. } => Task::Generate(Box::new(read.generate(endpoint, draws))),
        Makes::Adapter { .. } => Task::Train(read.train(endpoint)),
    };
    match read.problems.is_empty() {
        true => Ok(task),
        false => Err(read.problems),
    }
}

impl Reader<'_> {
    fn generate(&mut self, endpoint: &Endpoint, draws: Draws) -> Generate {
        let prompt = self.prompt("prompt");
        let place = match draws {
            Draws::Text | Draws::Control => None,
            Draws::Image | Draws::Inpaint => Some(self.place("image_url")),
            Draws::Tiles => self.optional_place("image_url"),
        };
        let strength = self.number("strength").unwrap_or(0.6);
        let image = place.map(|place| Reference { place, strength });
        let mask = match draws {
            Draws::Inpaint => Some(self.place("mask_image_url")),
            _ => self.optional_place("mask_image_url"),
        };
        let control = self.control(draws);
        if mask.is_some() && image.is_none() {
            let msg = "a mask says which part of image_url is drawn anew; send that too";
            self.wrong("mask_image_url", "value_error", msg, &json!(null));
        }
        let size = self.image_size();
        let steps = self.integer("num_inference_steps").unwrap_or(8) as u32;
        let seed = self.seed("seed");
        let inline = self.flag("sync_mode");
        let count = self.integer("num_images").unwrap_or(1) as u32;
        let safety_checker = self.flag("enable_safety_checker");
        let format = match self.choice("output_format").as_str() {
            "jpeg" => Format::Jpeg,
            "webp" => Format::Webp,
            _ => Format::Png,
        };
        let acceleration = self.choice("acceleration").parse().unwrap_or_default();
        let expand_prompt = self.flag("enable_prompt_expansion");
        Generate {
            model: endpoint.model,
            prompt,
            negative_prompt: self.prompt("negative_prompt"),
            size,
            steps,
            seed,
            count,
            guidance_scale: self.number("guidance_scale").unwrap_or(0.0),
            image,
            mask,
            control,
            references: Vec::new(),
            loras: self.loras(),
            acceleration,
            format,
            quality: None,
            delivery: if inline { Delivery::Inline } else { Delivery::Stored },
            safety_checker,
            on_flagged: OnFlagged::Blank,
            expand_prompt,
            previews: false,
            keep_seconds: None,
            controls: self.controls(draws),
        }
    }

    fn train(&mut self, endpoint: &Endpoint) -> Train {
        Train {
            model: endpoint.model,
            data: self.place("image_data_url"),
            steps: self.integer("steps").unwrap_or(1000) as u32,
            learning_rate: self.positive("learning_rate").unwrap_or(1e-4),
            training_type: TrainingType::named(&self.choice("training_type")),
            // Forms send what was left empty as an empty text.
            default_caption: Some(self.prompt("default_caption")).filter(|c| !c.trim().is_empty()),
            keep_seconds: None,
        }
    }

    /// The windows of pictures that tile.
    pub(super) fn tiling(&mut self) -> Option<Tiling> {
        let mode = TilingMode::named(&self.choice("tiling_mode"));
        let (size, stride) = (self.integer("tile_size"), self.integer("tile_stride"));
        let tiling = Tiling::new(mode?, size? as u32, stride? as u32);
        tiling.map_err(|wrong| self.invalid(&wrong)).ok()
    }

    fn image_size(&mut self) -> Size {
        let fallback = Size::Pixels { width: 1024, height: 1024 };
        let Some((value, Kind::ImageSize { auto })) = self.value("image_size") else {
            return fallback;
        };
        let path = json!("image_size");
        match &value {
            Value::Object(object) => {
                let mut side = |name: &str| match object.get(name) {
                    Some(sent) => self.whole(&[path.clone(), json!(name)], sent, 1, SIDE_MAX),
                    None => Some(i64::from(SIDE_DEFAULT)),
                };
                let (width, height) = (side("width"), side("height"));
                let (Some(width), Some(height)) = (width, height) else { return fallback };
                if (width * height) as u64 > PIXELS_MAX {
                    let msg = format!(
                        "{width}x{height} are {:.1} megapixels; the most is 2048x2048 or as many pixels in another ratio",
                        (width * height) as f64 / 1e6
                    );
                    let problem = Problem::new(&[path], "image_too_large", msg);
                    self.problems.push(
                        problem.with("max_width", 2048).with("max_height", 2048).input(&value),
                    );
                }
                Size::Pixels { width: width as u32, height: height as u32 }
            }
            Value::String(name) if auto && name == "auto" => Size::Auto,
            other => {
                let named = |name: &str| NAMED_SIZES.iter().find(|(known, ..)| *known == name);
                if let Some((_, width, height)) = other.as_str().and_then(named) {
                    return Size::Pixels { width: *width, height: *height };
                }
                let names = size_names(auto);
                self.problems.push(not_among(&[path], &names, other));
                fallback
            }
        }
    }

    fn loras(&mut self) -> Vec<Lora> {
        let Some((value, Kind::Loras { max })) = self.value("loras") else { return Vec::new() };
        let Value::Array(list) = &value else {
            self.wrong("loras", "list_type", "Input should be a valid list", &value);
            return Vec::new();
        };
        if list.len() > max {
            let msg = format!(
                "List should have at most {max} items after validation, not {}",
                list.len()
            );
            let problem =
                Problem::new(&[json!("loras")], "too_long", msg).with("field_type", "List");
            let problem = problem.with("max_length", max).with("actual_length", list.len());
            self.problems.push(problem.input(&value));
            return Vec::new();
        }
        list.iter().enumerate().filter_map(|(at, entry)| self.lora(at, entry)).collect()
    }

    fn lora(&mut self, at: usize, entry: &Value) -> Option<Lora> {
        let path = |name: &str| [json!("loras"), json!(at), json!(name)];
        let scale = match entry.get("scale").filter(|scale| !scale.is_null()) {
            Some(scale) => self.float(&path("scale"), scale, LORA_SCALE.0, LORA_SCALE.1),
            None => Some(1.0),
        };
        let found = match entry.get("path") {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(other) => {
                let msg = "Input should be a valid string with an address, a hub id or a name";
                Err(Problem::new(&path("path"), "string_type", msg).input(other))
            }
            None => Err(Problem::new(&path("path"), "missing", "Field required").input(entry)),
        };
        Some(Lora { path: self.keep(found)?, scale: scale? })
    }
}

/// The names that `image_size` takes.
pub fn size_names(auto: bool) -> Vec<&'static str> {
    let names = NAMED_SIZES.iter().map(|(name, ..)| *name);
    names.chain(auto.then_some("auto")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::fal::endpoint::ENDPOINTS;
    use crate::task::{Model, Place};
    use crate::{Acceleration, Controls};

    fn endpoint(path: &str) -> &'static Endpoint {
        let id = path.strip_prefix("../").map_or(format!("z-image/{path}"), String::from);
        Endpoint::find(&format!("fal-ai/{id}")).unwrap()
    }

    fn pictures(path: &str, body: Value) -> Generate {
        match parse(endpoint(path), &body).unwrap() {
            Task::Generate(task) => *task,
            other => panic!("{other:?}"),
        }
    }

    fn training(path: &str, body: Value) -> Train {
        let endpoint = Endpoint::find(&format!("fal-ai/{path}")).unwrap();
        match parse(endpoint, &body).unwrap() {
            Task::Train(task) => task,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_prompt_alone_gets_every_default() {
        let task = pictures("turbo", json!({"prompt": "a fox", "unknown": 1}));
        assert_eq!(
            task,
            Generate {
                model: Model::Turbo,
                prompt: "a fox".into(),
                negative_prompt: String::new(),
                size: Size::Pixels { width: 1024, height: 768 },
                steps: 8,
                seed: None,
                count: 1,
                guidance_scale: 0.0,
                image: None,
                mask: None,
                control: None,
                references: Vec::new(),
                loras: Vec::new(),
                acceleration: Acceleration::Regular,
                format: Format::Png,
                quality: None,
                delivery: Delivery::Stored,
                safety_checker: true,
                on_flagged: OnFlagged::Blank,
                expand_prompt: false,
                previews: false,
                keep_seconds: None,
                controls: Controls::default(),
            }
        );
        let base = pictures("base", json!({"prompt": ""}));
        assert_eq!((base.steps, base.guidance_scale), (28, 4.0));
        let image = json!({"prompt": "x", "image_url": "data:image/png;base64,", "seed": -1});
        let image = pictures("turbo/image-to-image", image);
        assert_eq!((image.size, image.seed), (Size::Auto, Some(u64::MAX)));
        assert_eq!(image.image.unwrap().place, Place::Input("image_url".into()));
        let image = json!({"prompt": "x", "image_url": "https://a.example/b.png"});
        let image = pictures("turbo/image-to-image", image).image.unwrap();
        assert_eq!(image.place, Place::Url("https://a.example/b.png".into()));
    }

    #[test]
    fn tiles_have_fal_s_fields_and_defaults() {
        let task = pictures("turbo/tiling", json!({"prompt": "bricks"}));
        assert_eq!(task.size, Size::Pixels { width: 1024, height: 1024 });
        assert_eq!(task.controls.tiling, Some(Tiling::usual(TilingMode::Both)));
        assert_eq!((task.image, task.mask), (None, None));
        let body = json!({"prompt": "bricks", "tiling_mode": "horizontal", "tile_size": 64, "tile_stride": "32",
            "image_url": "data:image/png;base64,", "mask_image_url": "https://a.example/b.png", "image_size": "auto",
            "strength": 0.8, "loras": [{"path": "a/b"}]});
        let task = pictures("turbo/tiling/lora", body);
        let want = Tiling { mode: TilingMode::Horizontal, size: 64, stride: 32 };
        assert_eq!((task.controls.tiling, task.size), (Some(want), Size::Auto));
        let image = task.image.unwrap();
        assert_eq!((image.place, image.strength), (Place::Input("image_url".into()), 0.8));
        assert_eq!(task.mask, Some(Place::Url("https://a.example/b.png".into())));
        assert_eq!(task.loras.len(), 1);
        assert_eq!(pictures("turbo", json!({"prompt": "x", "tile_size": 7})).controls.tiling, None);
    }

    #[test]
    fn values_are_read_as_pydantic_reads_them() {
        let body = json!({"prompt": "x", "num_inference_steps": "4", "num_images": 2.0, "sync_mode": "yes",
            "image_size": {"width": 100}, "seed": null, "output_format": "webp", "acceleration": "high"});
        let task = pictures("turbo", body);
        assert_eq!(task.acceleration, Acceleration::High);
        assert_eq!((task.steps, task.count, task.delivery), (4, 2, Delivery::Inline));
        assert_eq!(task.size, Size::Pixels { width: 100, height: 512 });
    }

    #[test]
    fn a_zip_alone_gets_every_default_of_its_trainer() {
        let place = Place::Url("https://a.example/b.zip".into());
        let body = json!({"image_data_url": "https://a.example/b.zip"});
        let train = |path: &str| training(path, body.clone());
        assert_eq!(
            train("z-image-trainer"),
            Train {
                model: Model::Turbo,
                data: place.clone(),
                steps: 1000,
                learning_rate: 1e-4,
                training_type: Some(TrainingType::Balanced),
                default_caption: None,
                keep_seconds: None,
            }
        );
        for (path, model) in [
            ("z-image-turbo-trainer", Model::Turbo),
            ("z-image-turbo-trainer-v2", Model::Turbo),
            ("z-image-base-trainer", Model::Base),
        ] {
            let task = train(path);
            assert_eq!((task.model, task.steps, task.learning_rate), (model, 2000, 5e-4));
            assert_eq!((task.training_type, &task.data), (None, &place));
        }
        let body = json!({"image_data_url": "data:application/zip;base64,", "steps": "100", "learning_rate": 1,
            "training_type": "style", "default_caption": " "});
        let task = training("z-image-trainer", body);
        assert_eq!(task.data, Place::Input("image_data_url".into()));
        assert_eq!((task.steps, task.learning_rate), (100, 1.0));
        assert_eq!((task.training_type, task.default_caption), (Some(TrainingType::Style), None));
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let cases = [
            ("turbo", json!({}), vec!["prompt missing"]),
            ("turbo", json!([]), vec![" model_attributes_type"]),
            (
                "turbo",
                json!({"prompt": 3, "num_inference_steps": 31, "num_images": 0, "output_format": "jpg", "acceleration": "max"}),
                vec![
                    "prompt string_type",
                    "num_inference_steps less_than_equal",
                    "num_images greater_than_equal",
                    "output_format literal_error",
                    "acceleration literal_error",
                ],
            ),
            (
                "turbo",
                json!({"prompt": "x", "image_size": {"width": 0, "height": 20000}, "seed": 1.5, "sync_mode": "maybe"}),
                vec![
                    "image_size.width greater_than_equal",
                    "image_size.height less_than_equal",
                    "seed int_from_float",
                    "sync_mode bool_parsing",
                ],
            ),
            (
                "turbo",
                json!({"prompt": "x", "image_size": "auto"}),
                vec!["image_size literal_error"],
            ),
            (
                "turbo",
                json!({"prompt": "x", "image_size": {"width": 3000, "height": 3000}}),
                vec!["image_size image_too_large"],
            ),
            (
                "turbo",
                json!({"prompt": "x", "enable_prompt_expansion": "often"}),
                vec!["enable_prompt_expansion bool_parsing"],
            ),
            (
                "turbo/tiling",
                json!({"prompt": "x", "tiling_mode": "all", "tile_size": 31, "mask_image_url": "https://a.example/b.png"}),
                vec![
                    "mask_image_url value_error",
                    "tiling_mode literal_error",
                    "tile_size greater_than_equal",
                ],
            ),
            (
                "turbo/tiling",
                json!({"prompt": "x", "tile_size": 257, "tile_stride": 7}),
                vec!["tile_size less_than_equal", "tile_stride greater_than_equal"],
            ),
            (
                "turbo/tiling",
                json!({"prompt": "x", "tile_size": 33}),
                vec!["tile_size value_error"],
            ),
            (
                "turbo",
                json!({"prompt": "x", "sampler": "ddim", "sigmas": [0.5, 0.7], "variation_strength": 2}),
                vec![
                    "variation_strength less_than_equal",
                    "sampler literal_error",
                    "sigmas value_error",
                ],
            ),
            (
                "turbo/lora",
                json!({"prompt": "x", "loras": [{}, {"path": "a/b", "scale": 9}]}),
                vec!["loras.0.path missing", "loras.1.scale less_than_equal"],
            ),
            ("turbo/lora", json!({"prompt": "x", "loras": [1, 2, 3, 4]}), vec!["loras too_long"]),
            (
                "base",
                json!({"prompt": "x", "guidance_scale": "much"}),
                vec!["guidance_scale float_parsing"],
            ),
            (
                "../z-image-trainer",
                json!({"steps": 99, "learning_rate": 0, "training_type": "all", "default_caption": 1}),
                vec![
                    "image_data_url missing",
                    "steps greater_than_equal",
                    "learning_rate greater_than",
                    "training_type literal_error",
                    "default_caption string_type",
                ],
            ),
            (
                "../z-image-base-trainer",
                json!({"image_data_url": 7, "steps": 10_001, "learning_rate": "nan"}),
                vec![
                    "image_data_url string_type",
                    "steps less_than_equal",
                    "learning_rate finite_number",
                ],
            ),
        ];
        for (path, body, want) in cases {
            let problems = parse(endpoint(path), &body).unwrap_err();
            let name = |part: &Value| part.as_str().map_or(part.to_string(), String::from);
            let short = |p: &Problem| {
                let loc: Vec<_> = p.loc[1..].iter().map(name).collect();
                format!("{} {}", loc.join("."), p.kind)
            };
            assert_eq!(problems.iter().map(short).collect::<Vec<_>>(), want, "{body}");
        }
    }

    #[test]
    fn a_problem_looks_as_fal_s() {
        let problem =
            &parse(endpoint("turbo"), &json!({"prompt": "x", "num_images": 9})).unwrap_err()[0];
        let want = json!({"loc": ["body", "num_images"], "msg": "Input should be less than or equal to 4",
            "type": "less_than_equal", "ctx": {"le": 4}, "input": 9,
            "url": "https://docs.fal.ai/errors/#less_than_equal"});
        assert_eq!(serde_json::to_value(problem).unwrap(), want);
    }

    #[test]
    fn each_example_passes_its_own_validation() {
        for endpoint in ENDPOINTS {
            let mut body = Map::new();
            for field in fields(endpoint) {
                let value = field.example.or(field.default).expect("an example or a default");
                body.insert(field.name.into(), value);
            }
            parse(endpoint, &Value::Object(body)).unwrap();
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_sent_panics(name in "prompt|image_size|seed|loras|num_images|strength|image_data_url|learning_rate|training_type", text in ".{0,40}", number in proptest::num::f64::ANY) {
            for value in [json!(text), json!(number), json!([text]), json!({"width": number, "path": text}), json!(null)] {
                for endpoint in ENDPOINTS {
                    let _ = parse(endpoint, &json!({ &name: value }));
                }
            }
        }
    }
}
