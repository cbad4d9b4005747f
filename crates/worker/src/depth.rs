//! Depth of pictures that control networks follow.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;
use zoetrope_api::fal::PIXELS_MAX;
use zoetrope_checkpoint::VisionModel;
use zoetrope_engine::depth::DepthEstimator;
use zoetrope_engine::{Result, Unwatched};
use zoetrope_files::Picture;

use crate::prepared;

/// A depth network, which is read when the first picture needs it. Cheap to clone; all clones are one network.
#[derive(Clone)]
pub struct Depth {
    files: Arc<VisionModel>,
    device: Device,
    // One look at a time: each has all of the processor.
    network: Arc<Mutex<Option<DepthEstimator>>>,
}

impl Depth {
    /// The network of `files`, which will live on `device`.
    pub fn new(files: VisionModel, device: &Device) -> Self {
        Self { files: Arc::new(files), device: device.clone(), network: Arc::default() }
    }

    /// What it is called by.
    pub fn name(&self) -> &str {
        &self.files.name
    }

    /// The depth of `picture`, grey: near things are bright. It has the picture's size, or as many pixels as are ever drawn where that
    /// is less. An error of a field where the picture is too long.
    pub fn of(&self, picture: &Picture) -> Result<Picture> {
        let picture = within(picture, PIXELS_MAX);
        let size = (picture.width as usize, picture.height as usize);
        DepthEstimator::check(size.0, size.1)?;
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        let network = match &mut *network {
            Some(network) => network,
            none => none.insert(DepthEstimator::open(&self.files, &self.device)?),
        };
        let grey = network.look(&prepared(&picture, network.processor()), size, &Unwatched)?;
        Ok(Picture { rgb: grey.into_iter().flat_map(|value| [value; 3]).collect(), ..*picture })
    }
}

/// `picture`, made smaller where it has more than `most` pixels.
fn within(picture: &Picture, most: u64) -> Cow<'_, Picture> {
    let pixels = u64::from(picture.width) * u64::from(picture.height);
    if pixels <= most {
        return Cow::Borrowed(picture);
    }
    let scale = (most as f64 / pixels as f64).sqrt();
    let side = |side: u32| ((f64::from(side) * scale) as u32).max(1);
    Cow::Owned(picture.resized(side(picture.width), side(picture.height)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pictures_are_made_smaller_in_their_ratio() {
        let of =
            |width, height| Picture { width, height, rgb: vec![0; (3 * width * height) as usize] };
        let size = |picture: &Picture| (picture.width, picture.height);
        assert_eq!(size(&within(&of(30, 20), 600)), (30, 20));
        assert_eq!(size(&within(&of(60, 40), 600)), (30, 20));
        assert_eq!(size(&within(&of(400, 1), 100)), (200, 1));
    }
}
