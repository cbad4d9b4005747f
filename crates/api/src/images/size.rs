//! Sizes: what was asked for, what a provider can make, and what is made so that the first comes out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Width and height; any, but none is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pixels {
    /// Across.
    pub width: u32,
    /// Down.
    pub height: u32,
}

/// Across to down, neither 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// Across.
    pub across: u32,
    /// Down.
    pub down: u32,
}

/// How large a picture of any shape is: the side of a square of as many pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// 512, also called 0.5K.
    Half,
    /// 1024, 1K.
    One,
    /// 1536, 1.5K.
    OneAndHalf,
    /// 2048, 2K.
    Two,
    /// 4096, 4K: more than any of the models makes, and cut to what they do.
    Four,
}

/// What was asked for. Explicit pixels and a shape that contradict each other were refused before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeWish {
    /// Nothing, or `auto`: as the input picture, or 1024 × 1024.
    Auto,
    /// These pixels and no others.
    Exactly(Pixels),
    /// About so many pixels of this shape.
    Shape {
        /// The input picture's, or square, where nobody said.
        ratio: Option<Ratio>,
        /// [`Tier::One`] where nobody said.
        tier: Option<Tier>,
    },
}

/// What a provider makes. All limits are inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeRule {
    /// Both sides are multiples of this.
    pub multiple: u32,
    /// The least of a side.
    pub side_min: u32,
    /// The most of a side.
    pub side_max: u32,
    /// The least of a picture.
    pub pixels_min: u64,
    /// The most of a picture.
    pub pixels_max: u64,
    /// The only sizes there are; empty where the limits are all.
    pub only: &'static [Pixels],
}

/// What is made, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// What the provider is asked for.
    pub made: Pixels,
    /// What the caller gets.
    pub given: Pixels,
    /// How the one becomes the other.
    pub finish: Finish,
}

/// How a picture gets the size that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It has it.
    None,
    /// By cutting off less than one multiple on the right and below.
    Crop,
    /// By resampling; the shape stays within 2 %.
    Resize,
}

/// A size that a provider cannot make, for people: the value, the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

/// The largest side that shapes are worked out to: the models' published maximum.
const SHAPE_SIDE_MAX: f64 = 2048.0;
/// Sides of shapes are multiples of this: one token of the transformer.
const SHAPE_MULTIPLE: u32 = 16;
/// The least side of a shape.
const SHAPE_SIDE_MIN: u32 = 64;
/// How far the shape of a result may be from the one that was asked for.
const RATIO_TOLERANCE: f64 = 0.02;

impl Pixels {
    /// `width` × `height`.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// How many.
    pub fn count(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Across to down.
    pub fn ratio(self) -> f64 {
        f64::from(self.width) / f64::from(self.height)
    }

    /// Whether the shapes agree within 2 %.
    pub fn is_like(self, ratio: f64) -> bool {
        (self.ratio() / ratio - 1.0).abs() <= RATIO_TOLERANCE
    }

    /// The next multiples of `multiple` that are no smaller.
    fn up_to(self, multiple: u32) -> Self {
        let up = |side: u32| side.div_ceil(multiple).saturating_mul(multiple);
        Self::new(up(self.width), up(self.height))
    }
}

impl fmt::Display for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl Ratio {
    /// Across divided by down.
    pub fn get(self) -> f64 {
        f64::from(self.across) / f64::from(self.down)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.across, self.down)
    }
}

impl Tier {
    /// The tier called `name`, in any case of letters.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "512" | "0.5K" => Some(Self::Half),
            "1K" => Some(Self::One),
            "1.5K" => Some(Self::OneAndHalf),
            "2K" => Some(Self::Two),
            "4K" => Some(Self::Four),
            _ => None,
        }
    }

    /// The name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Half => "512",
            Self::One => "1K",
            Self::OneAndHalf => "1.5K",
            Self::Two => "2K",
            Self::Four => "4K",
        }
    }

    /// Pixels of a square's side.
    pub fn side(self) -> u32 {
        match self {
            Self::Half => 512,
            Self::One => 1024,
            Self::OneAndHalf => 1536,
            Self::Two => 2048,
            Self::Four => 4096,
        }
    }
}

impl SizeWish {
    /// The size that this comes to before a provider is asked, `input` being the picture that an edit starts from.
    pub fn wanted(self, input: Option<Pixels>) -> Pixels {
        match self {
            Self::Exactly(pixels) => pixels,
            Self::Auto => input.unwrap_or(Pixels::new(1024, 1024)),
            Self::Shape { ratio, tier } => {
                let own = input.map_or(1.0, Pixels::ratio);
                shape(ratio.map_or(own, Ratio::get), tier.unwrap_or(Tier::One))
            }
        }
    }
}

/// About `tier`'s pixels of shape `ratio`, in multiples of 16.
fn shape(ratio: f64, tier: Tier) -> Pixels {
    let side = f64::from(tier.side()).min(SHAPE_SIDE_MAX);
    let (mut width, mut height) = (side * ratio.sqrt(), side / ratio.sqrt());
    if width.max(height) > SHAPE_SIDE_MAX {
        (width, height) = match width > height {
            true => (SHAPE_SIDE_MAX, SHAPE_SIDE_MAX / ratio),
            false => (SHAPE_SIDE_MAX * ratio, SHAPE_SIDE_MAX),
        };
    }
    Pixels::new(nearest(width, SHAPE_MULTIPLE), nearest(height, SHAPE_MULTIPLE))
}

fn nearest(side: f64, multiple: u32) -> u32 {
    let multiples = (side / f64::from(multiple)).round() as u32;
    multiples.saturating_mul(multiple).max(SHAPE_SIDE_MIN)
}

impl SizeRule {
    /// Anything of up to `pixels_max`.
    pub const fn up_to(pixels_max: u64) -> Self {
        Self {
            multiple: 1,
            side_min: 1,
            side_max: crate::ImageSize::SIDE_MAX,
            pixels_min: 1,
            pixels_max,
            only: &[],
        }
    }

    /// Whether the provider makes `size`.
    pub fn allows(&self, size: Pixels) -> bool {
        if !self.only.is_empty() {
            return self.only.contains(&size);
        }
        let sides = [size.width, size.height];
        sides
            .iter()
            .all(|side| (self.side_min..=self.side_max).contains(side) && side % self.multiple == 0)
            && (self.pixels_min..=self.pixels_max).contains(&size.count())
    }

    /// What to make for `wish`, `input` being the picture that an edit starts from. The same of what came out comes out again.
    pub fn fit(&self, wish: SizeWish, input: Option<Pixels>) -> Result<Fit, Unfit> {
        let wanted = wish.wanted(input);
        match wish {
            SizeWish::Exactly(_) => self.exactly(wanted),
            SizeWish::Auto | SizeWish::Shape { .. } => {
                let made = self.near(wanted)?;
                Ok(Fit { made, given: made, finish: Finish::None })
            }
        }
    }

    /// The next larger size that can be made, to be cut or made smaller afterwards.
    fn exactly(&self, wanted: Pixels) -> Result<Fit, Unfit> {
        if self.allows(wanted) {
            return Ok(Fit { made: wanted, given: wanted, finish: Finish::None });
        }
        let cut = wanted.up_to(self.multiple);
        if self.only.is_empty() && self.allows(cut) {
            return Ok(Fit { made: cut, given: wanted, finish: Finish::Crop });
        }
        let larger = match self.only {
            [] => self.grown(wanted),
            only => {
                let enough = |size: &&Pixels| {
                    size.width >= wanted.width
                        && size.height >= wanted.height
                        && size.is_like(wanted.ratio())
                };
                only.iter().filter(enough).min_by_key(|size| size.count()).copied()
            }
        };
        let made = larger.ok_or_else(|| self.unfit(wanted))?;
        Ok(Fit { made, given: wanted, finish: Finish::Resize })
    }

    /// The size nearest to `wanted` in shape, then in pixels.
    fn near(&self, wanted: Pixels) -> Result<Pixels, Unfit> {
        if self.allows(wanted) {
            return Ok(wanted);
        }
        let found = match self.only {
            [] => self.grown(wanted).or_else(|| self.shrunk(wanted)),
            only => {
                let off = |size: &Pixels| {
                    let shape = (size.ratio() / wanted.ratio()).ln().abs();
                    (shape, size.count().abs_diff(wanted.count()))
                };
                let nearer = |a: &&Pixels, b: &&Pixels| {
                    off(a).partial_cmp(&off(b)).unwrap_or(std::cmp::Ordering::Equal)
                };
                only.iter().min_by(nearer).copied()
            }
        };
        found.ok_or_else(|| self.unfit(wanted))
    }

    /// The first size of `wanted`'s shape, from there upwards, that can be made.
    fn grown(&self, wanted: Pixels) -> Option<Pixels> {
        self.along(wanted, wanted.width.max(wanted.height)..=self.side_max)
    }

    /// The first size of `wanted`'s shape, from there downwards, that can be made.
    fn shrunk(&self, wanted: Pixels) -> Option<Pixels> {
        let long = wanted.width.max(wanted.height).min(self.side_max);
        self.along(wanted, (self.side_min..=long).rev())
    }

    /// The first of `long` sides in multiples that makes an allowed size of `wanted`'s shape.
    fn along(&self, wanted: Pixels, long: impl Iterator<Item = u32>) -> Option<Pixels> {
        let step = self.multiple.max(1);
        let (most, least) = (wanted.width.max(wanted.height), wanted.width.min(wanted.height));
        long.filter(|side| side % step == 0).find_map(|side| {
            let exact = f64::from(side) * f64::from(least) / f64::from(most);
            let multiples = (exact / f64::from(step)).round() as u32;
            let short = multiples.saturating_mul(step);
            let size = match wanted.width >= wanted.height {
                true => Pixels::new(side, short),
                false => Pixels::new(short, side),
            };
            let fits = self.allows(size) && size.is_like(wanted.ratio());
            fits.then_some(size)
        })
    }

    fn unfit(&self, wanted: Pixels) -> Unfit {
        let limits = match self.only {
            [] => format!(
                "sides of {} to {} in multiples of {}, {} to {} pixels",
                self.side_min, self.side_max, self.multiple, self.pixels_min, self.pixels_max
            ),
            only => only.iter().map(Pixels::to_string).collect::<Vec<_>>().join(", "),
        };
        Unfit(format!("{wanted} cannot be made; possible are {limits}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alibaba's.
    const BOUNDED: SizeRule = SizeRule {
        multiple: 16,
        side_min: 64,
        side_max: 4096,
        pixels_min: 512 * 512,
        pixels_max: 2048 * 2048,
        only: &[],
    };

    fn shaped(across: u32, down: u32, tier: Tier) -> SizeWish {
        SizeWish::Shape { ratio: Some(Ratio { across, down }), tier: Some(tier) }
    }

    #[test]
    fn shapes_come_to_the_published_table() {
        let cases = [
            ((1, 1), ["512x512", "1024x1024", "2048x2048"]),
            ((5, 4), ["576x464", "1152x912", "2048x1632"]),
            ((4, 3), ["592x448", "1184x880", "2048x1536"]),
            ((3, 2), ["624x416", "1248x832", "2048x1360"]),
            ((16, 9), ["688x384", "1360x768", "2048x1152"]),
            ((2, 1), ["720x368", "1456x720", "2048x1024"]),
            ((21, 9), ["784x336", "1568x672", "2048x880"]),
        ];
        for ((across, down), sizes) in cases {
            for (tier, want) in [Tier::Half, Tier::One, Tier::Two].into_iter().zip(sizes) {
                let got = shaped(across, down, tier).wanted(None);
                assert_eq!(got.to_string(), want, "{across}:{down} {tier:?}");
                let turned = shaped(down, across, tier).wanted(None);
                assert_eq!((turned.width, turned.height), (got.height, got.width));
            }
        }
        assert_eq!(shaped(1, 1, Tier::Four).wanted(None), Pixels::new(2048, 2048));
    }

    #[test]
    fn what_a_provider_cannot_make_comes_from_the_next_larger_size() {
        let fit = |wish| BOUNDED.fit(wish, None).map(|fit| (fit.made, fit.given, fit.finish));
        let exactly = |width, height| SizeWish::Exactly(Pixels::new(width, height));
        let sixteen = Pixels::new(1024, 768);
        assert_eq!(fit(exactly(1024, 768)), Ok((sixteen, sixteen, Finish::None)));
        let odd = Pixels::new(1000, 700);
        assert_eq!(fit(exactly(1000, 700)), Ok((Pixels::new(1008, 704), odd, Finish::Crop)));
        let small = Pixels::new(256, 256);
        assert_eq!(fit(exactly(256, 256)), Ok((Pixels::new(512, 512), small, Finish::Resize)));
        assert!(fit(exactly(4096, 4096)).is_err());
        // The smallest tier at 3:2 lies below what is made.
        let stepped = Pixels::new(640, 432);
        assert_eq!(fit(shaped(3, 2, Tier::Half)), Ok((stepped, stepped, Finish::None)));
    }

    #[test]
    fn auto_is_the_input_s_size_as_far_as_it_can_be_made() {
        let rule = SizeRule::up_to(2048 * 2048);
        let made = |input| rule.fit(SizeWish::Auto, input).map(|fit| fit.made);
        assert_eq!(made(None), Ok(Pixels::new(1024, 1024)));
        assert_eq!(made(Some(Pixels::new(301, 200))), Ok(Pixels::new(301, 200)));
        assert_eq!(made(Some(Pixels::new(8000, 8000))), Ok(Pixels::new(2048, 2048)));
    }

    #[test]
    fn of_a_list_the_nearest_shape_is_taken() {
        const LIST: &[Pixels] =
            &[Pixels::new(1024, 1024), Pixels::new(1536, 1024), Pixels::new(1024, 1536)];
        let rule = SizeRule { only: LIST, ..SizeRule::up_to(u64::MAX) };
        let made = |wish| rule.fit(wish, None).map(|fit| fit.made.to_string());
        assert_eq!(made(shaped(16, 9, Tier::One)).as_deref(), Ok("1536x1024"));
        assert_eq!(made(SizeWish::Exactly(Pixels::new(512, 512))).as_deref(), Ok("1024x1024"));
        assert!(made(SizeWish::Exactly(Pixels::new(512, 500))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_made_is_allowed_and_stays_as_it_is(across in 1u32..40, down in 1u32..40, tier in 0usize..4) {
            let tier = [Tier::Half, Tier::One, Tier::OneAndHalf, Tier::Two][tier];
            if let Ok(fit) = BOUNDED.fit(shaped(across, down, tier), None) {
                assert!(BOUNDED.allows(fit.made));
                let again = BOUNDED.fit(SizeWish::Exactly(fit.given), None);
                assert_eq!(again, Ok(Fit { made: fit.given, given: fit.given, finish: Finish::None }));
            }
        }
    }
}
