//! What a control network is asked for.

use serde::{Deserialize, Serialize};

use super::Place;

/// A control network's work on a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// The picture that is followed. Absent where a gap is filled: then the network looks at what is around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Place>,
    /// What is made of it first.
    pub preprocess: Preprocess,
    /// How strongly it works.
    pub scale: f64,
    /// The share of the steps after which it begins to work.
    pub start: f64,
    /// The share after which it ends.
    pub end: f64,
}

/// What is made of a picture before a control network looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preprocess {
    /// Nothing: it is edges, depth or a pose already.
    #[default]
    None,
    /// Its edges, by Canny's detector.
    Canny,
    /// How near things are, if the worker has a network that tells.
    Depth,
    /// How people stand; refused, for there is no model that tells.
    Pose,
}

impl Preprocess {
    /// All of them.
    pub const NAMES: [&str; 4] = ["none", "canny", "depth", "pose"];

    /// That called `name`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "canny" => Some(Self::Canny),
            "depth" => Some(Self::Depth),
            "pose" => Some(Self::Pose),
            _ => None,
        }
    }
}
