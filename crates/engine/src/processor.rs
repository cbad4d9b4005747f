//! `preprocessor_config.json`: how a picture is resized, cut and scaled before a network sees it.

use candle_core::{Device, Tensor};
use serde::Deserialize;

use crate::pixels::Rgb;
use crate::{Error, Result, config};

/// How pictures are prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct Processor {
    resize: Option<(Resize, Filter)>,
    /// Columns and rows of the middle that are kept.
    crop: Option<(usize, usize)>,
    /// What bytes are multiplied by.
    factor: f32,
    mean: [f32; 3],
    std: [f32; 3],
}

/// A resampling filter of Pillow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the filters' names")]
pub enum Filter {
    Lanczos,
    Bilinear,
    Bicubic,
}

/// What is done to a picture's pixels, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// To so many pixels across and down, by this filter.
    pub resize: Option<(usize, usize, Filter)>,
    /// Then a part that begins at a column and a row, and its columns and rows.
    pub crop: Option<[usize; 4]>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Resize {
    To {
        width: usize,
        height: usize,
    },
    /// The shorter side to this; the ratio stays.
    ShortestEdge(usize),
    /// By the factor of whichever side comes nearer to its size by that; then each side to the nearest multiple.
    Near {
        width: usize,
        height: usize,
        multiple: usize,
    },
}

/// The file; today's and older forms of its sizes.
#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    do_resize: Option<bool>,
    size: Option<Size>,
    resample: Option<u8>,
    #[serde(default)]
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    keep_aspect_ratio: Option<bool>,
    ensure_multiple_of: Option<usize>,
    do_pad: Option<bool>,
    size_divisor: Option<usize>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Both { height: usize, width: usize },
    Shortest { shortest_edge: usize },
    One(usize),
}

/// Larger pictures no such network sees; a lying file must not choose how much is allocated.
const SIDE_MAX: usize = 4096;

impl Processor {
    /// From the file's bytes; `file` is named in errors.
    pub(crate) fn parse(file: &str, json: &[u8]) -> Result<Self> {
        let read: File = config::parse(file, json)?;
        let wrong = |problem: String| Error::Config { file: file.into(), problem };
        let crops = read.do_center_crop.unwrap_or(false);
        let filter = match read.resample {
            Some(1) => Filter::Lanczos,
            None | Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            Some(other) => {
                let supported = "only 1, 2 and 3 (Lanczos, bilinear, bicubic) are supported";
                return Err(wrong(format!("`resample` is {other}; {supported}")));
            }
        };
        let resize = match (read.do_resize.unwrap_or(true), read.size) {
            (false, _) => None,
            (true, Some(Size::Both { height, width })) => Some(read.both(width, height)),
            (true, Some(Size::Shortest { shortest_edge })) => {
                Some(Resize::ShortestEdge(shortest_edge))
            }
            // A number alone, in old files, is the shorter side where the middle is cut out afterwards.
            (true, Some(Size::One(side))) if crops => Some(Resize::ShortestEdge(side)),
            (true, Some(Size::One(side))) => Some(Resize::To { width: side, height: side }),
            (true, None) => return Err(wrong("has no `size`".into())),
        };
        if read.do_pad == Some(true) && read.size_divisor.is_some() {
            return Err(wrong("`do_pad` with a `size_divisor` is not supported".into()));
        }
        let crop = match (crops, read.crop_size) {
            (false, _) => None,
            (true, Some(Size::Both { height, width })) => Some((width, height)),
            (true, Some(Size::One(side))) => Some((side, side)),
            (true, _) => return Err(wrong("has no `crop_size` of a height and a width".into())),
        };
        let three = |values: [f64; 3]| values.map(|value| value as f32);
        let normal = read.do_normalize.unwrap_or(true);
        let processor = Self {
            resize: resize.map(|resize| (resize, filter)),
            crop,
            factor: match read.do_rescale.unwrap_or(true) {
                true => read.rescale_factor.unwrap_or(1.0 / 255.0) as f32,
                false => 1.0,
            },
            mean: if normal { three(read.image_mean.unwrap_or([0.5; 3])) } else { [0.0; 3] },
            std: if normal { three(read.image_std.unwrap_or([0.5; 3])) } else { [1.0; 3] },
        };
        processor.check().map_err(wrong)
    }

    fn check(self) -> std::result::Result<Self, String> {
        if self.crop.is_some() && matches!(self.resize, Some((Resize::Near { .. }, _))) {
            return Err("`do_center_crop` is not supported beside `keep_aspect_ratio`".into());
        }
        let (width, height) = match self.resize {
            Some((Resize::Near { width, height, .. }, _)) => (width, height),
            _ => self.output(),
        };
        let edge = match self.resize {
            Some((Resize::ShortestEdge(edge), _)) => edge,
            Some((Resize::Near { multiple, .. }, _))
                if multiple == 0 || multiple > width.min(height) =>
            {
                return Err(format!(
                    "`ensure_multiple_of` is {multiple}; it must lie between 1 and {}",
                    width.min(height)
                ));
            }
            _ => width,
        };
        if [width, height, edge].iter().any(|side| !(1..=SIDE_MAX).contains(side)) {
            return Err(format!(
                "asks for {width}x{height} pixels; both must lie between 1 and {SIDE_MAX}"
            ));
        }
        if edge < width.min(height) {
            return Err("cuts out more than there is after resizing".into());
        }
        if self.std.iter().any(|std| std.is_nan() || *std == 0.0) {
            return Err(format!("`image_std` is {:?}; none of it may be 0", self.std));
        }
        Ok(self)
    }

    /// Whether it leaves out what is near the edges.
    pub(crate) fn crops(&self) -> bool {
        self.crop.is_some()
    }

    /// Width and height of what comes out; 0 where they are not the same for all pictures.
    pub(crate) fn output(&self) -> (usize, usize) {
        match (self.crop, self.resize) {
            (Some(crop), _) => crop,
            (None, Some((Resize::To { width, height }, _))) => (width, height),
            // Pictures of other ratios have other sizes.
            (None, Some((Resize::ShortestEdge(_) | Resize::Near { .. }, _)) | None) => (0, 0),
        }
    }

    /// What is done to a picture of `width` × `height`.
    pub fn steps(&self, width: usize, height: usize) -> Step {
        let resize = self.resize.map(|(resize, filter)| match resize {
            Resize::To { width, height } => (width, height, filter),
            Resize::ShortestEdge(edge) => {
                // As transformers rounds: down.
                let long = |long: usize, short: usize| edge * long / short.max(1);
                match width <= height {
                    true => (edge, long(height, width), filter),
                    false => (long(width, height), edge, filter),
                }
            }
            Resize::Near { width: across, height: down, multiple } => {
                let (width, height) = (width.max(1) as f64, height.max(1) as f64);
                let (wide, tall) = (across as f64 / width, down as f64 / height);
                let scale = if (1.0 - wide).abs() < (1.0 - tall).abs() { wide } else { tall };
                let side = |length: f64| near(scale * length, multiple);
                (side(width), side(height), filter)
            }
        });
        let (width, height) = resize.map_or((width, height), |(width, height, _)| (width, height));
        let crop = self.crop.map(|(columns, rows)| {
            [width.saturating_sub(columns) / 2, height.saturating_sub(rows) / 2, columns, rows]
        });
        Step { resize, crop }
    }

    /// A prepared picture as the network takes it: `[1, 3, height, width]`.
    pub fn pixels(&self, picture: &Rgb, device: &Device) -> Result<Tensor> {
        let Rgb { width, height, bytes } = picture;
        let per_channel = self.mean.iter().zip(&self.std).cycle();
        let values = bytes.iter().zip(per_channel);
        let values: Vec<f32> =
            values.map(|(b, (mean, std))| (f32::from(*b) * self.factor - mean) / std).collect();
        let x = Tensor::from_vec(values, (1, *height, *width, 3), device)?;
        Ok(x.permute((0, 3, 1, 2))?.contiguous()?)
    }
}

impl File {
    /// A resize to both sides, as transformers' DPTImageProcessor has it where the file has its fields.
    fn both(&self, width: usize, height: usize) -> Resize {
        let multiple = self.ensure_multiple_of.unwrap_or(1);
        match (self.keep_aspect_ratio.unwrap_or(false), multiple) {
            (true, _) => Resize::Near { width, height, multiple },
            (false, 0 | 1) => Resize::To { width, height },
            (false, _) => {
                let side = |length: usize| near(length as f64, multiple);
                Resize::To { width: side(width), height: side(height) }
            }
        }
    }
}

/// The nearest multiple, as Python rounds: of two that are as near, the even one; but never none.
fn near(length: f64, multiple: usize) -> usize {
    ((length / multiple as f64).round_ties_even() as usize).max(1) * multiple
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<Processor> {
        Processor::parse("preprocessor_config.json", json.as_bytes())
    }

    const VIT: &str = r#"{"do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5], "image_processor_type":
        "ViTImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 2, "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224}}"#;
    const CLIP: &str = r#"{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true, "feature_extractor_type":
        "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3,
        "size": 224}"#;

    #[test]
    fn sizes_of_both_published_files_are_those_of_transformers() {
        let (vit, clip) = (parsed(VIT).unwrap(), parsed(CLIP).unwrap());
        let step = vit.steps(1024, 768);
        assert_eq!(step, Step { resize: Some((224, 224, Filter::Bilinear)), crop: None });
        for (size, resized, crop) in [
            ((1024, 768), (298, 224), [37, 0, 224, 224]),
            ((100, 333), (224, 745), [0, 260, 224, 224]),
            ((224, 224), (224, 224), [0, 0, 224, 224]),
        ] {
            let resize = Some((resized.0, resized.1, Filter::Bicubic));
            assert_eq!(clip.steps(size.0, size.1), Step { resize, crop: Some(crop) });
        }
    }

    #[test]
    fn sizes_of_depth_networks_are_near_and_multiples() {
        let depth = r#"{"size": {"height": 518, "width": 518}, "keep_aspect_ratio": true, "ensure_multiple_of": 14, "resample": 3,
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_pad": false, "size_divisor": null}"#;
        let depth = parsed(depth).unwrap();
        for (size, resized) in [
            ((1024, 768), (686, 518)),
            ((768, 1024), (518, 686)),
            ((518, 518), (518, 518)),
            ((2048, 512), (2072, 518)),
            ((600, 100), (518, 84)),
            // 24.5 patches become 24, an even number; less than half a patch still one.
            ((343, 518), (336, 518)),
            ((600, 5), (518, 14)),
        ] {
            let step = depth.steps(size.0, size.1);
            let resize = Some((resized.0, resized.1, Filter::Bicubic));
            assert_eq!(step, Step { resize, crop: None }, "{size:?}");
        }
    }

    #[test]
    fn files_that_would_divide_by_nothing_or_fill_the_memory_are_refused() {
        for (json, says) in [
            (r#"{"size": {"height": 100000, "width": 224}}"#, "4096"),
            (r#"{"size": {"height": 0, "width": 224}}"#, "between 1"),
            (r#"{"size": {"shortest_edge": 224}}"#, "between 1"),
            (r#"{"size": 64, "do_center_crop": true, "crop_size": 224}"#, "cuts out"),
            (r#"{"size": 224, "image_std": [0.5, 0.0, 0.5]}"#, "image_std"),
            (r#"{"size": 224, "resample": 7}"#, "resample"),
            (r#"{}"#, "size"),
            (
                r#"{"size": {"height": 9, "width": 9}, "keep_aspect_ratio": true, "ensure_multiple_of": 14}"#,
                "ensure_multiple_of",
            ),
            (r#"{"size": {"height": 9, "width": 99999}, "keep_aspect_ratio": true}"#, "4096"),
            (
                r#"{"size": {"height": 98, "width": 98}, "keep_aspect_ratio": true, "do_center_crop": true, "crop_size": 0}"#,
                "do_center_crop",
            ),
            (r#"{"size": 224, "do_pad": true, "size_divisor": 8}"#, "do_pad"),
        ] {
            let message = parsed(json).unwrap_err().to_string();
            assert!(message.contains(says), "{json}: {message}");
        }
    }
}
