//! The look at finished pictures: prepared as the checker's processor says, looked at together, and what becomes of those found unsafe.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;
use zoetrope_api::OnFlagged;
use zoetrope_checkpoint::Classifier;
use zoetrope_engine::Unwatched;
use zoetrope_engine::pixels::Rgb;
use zoetrope_engine::safety::{self, Filter};
use zoetrope_files::Picture;

/// A safety checker in memory. Cheap to clone; all clones are one network.
#[derive(Clone)]
pub struct Checker {
    name: Arc<str>,
    // One look at a time: each has all of the processor.
    network: Arc<Mutex<safety::Checker>>,
}

impl Checker {
    /// Reads the network of `files`.
    pub fn open(files: &Classifier, device: &Device) -> zoetrope_engine::Result<Self> {
        let network = Arc::new(Mutex::new(safety::Checker::open(files, device)?));
        Ok(Self { name: files.name.as_str().into(), network })
    }

    /// What it was called by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of `pictures` are unsafe.
    pub fn look(&self, pictures: &[Picture]) -> zoetrope_engine::Result<Vec<bool>> {
        let network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared: Vec<Rgb> =
            pictures.iter().map(|picture| prepared(picture, network.processor())).collect();
        let findings = network.look(&prepared, &Unwatched)?;
        Ok(findings.iter().map(|finding| finding.is_unsafe).collect())
    }

    /// Operations for a picture, a multiply-add being two.
    pub fn operations(&self) -> f64 {
        self.network.lock().unwrap_or_else(PoisonError::into_inner).operations()
    }
}

/// `picture` resized and cut, as `processor` wants it.
pub fn prepared(picture: &Picture, processor: &safety::Processor) -> Rgb {
    let step = processor.steps(picture.width as usize, picture.height as usize);
    let resized = step.resize.map(|(width, height, filter)| {
        let filter = match filter {
            Filter::Lanczos => zoetrope_files::Filter::Lanczos,
            Filter::Bilinear => zoetrope_files::Filter::Bilinear,
            Filter::Bicubic => zoetrope_files::Filter::Bicubic,
        };
        picture.resized_by(width as u32, height as u32, filter)
    });
    let picture = resized.as_ref().unwrap_or(picture);
    let cut = step.crop.map(|part| {
        let [left, top, width, height] = part.map(|side| side as u32);
        picture.cropped(left, top, width, height)
    });
    let Picture { width, height, rgb } = cut.unwrap_or_else(|| picture.clone());
    Rgb { width: width as usize, height: height as usize, bytes: rgb }
}

/// Puts black pictures in the place of those that are `flagged`, if `policy` wants that; whether the others may be delivered.
pub fn apply(policy: OnFlagged, pictures: &mut [Picture], flagged: &[bool]) -> bool {
    if policy == OnFlagged::Blank {
        let found = pictures.iter_mut().zip(flagged).filter(|(_, flagged)| **flagged);
        found.for_each(|(picture, _)| picture.rgb.fill(0));
    }
    policy != OnFlagged::Refuse || !flagged.contains(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_does_what_its_name_says() {
        let white = || Picture { width: 1, height: 1, rgb: vec![255; 3] };
        for (policy, flagged, first, delivered) in [
            (OnFlagged::Flag, [true, false], 255, true),
            (OnFlagged::Blank, [true, false], 0, true),
            (OnFlagged::Refuse, [true, false], 255, false),
            (OnFlagged::Refuse, [false, false], 255, true),
        ] {
            let mut pictures = [white(), white()];
            assert_eq!(apply(policy, &mut pictures, &flagged), delivered, "{policy}");
            assert_eq!((pictures[0].rgb[0], pictures[1].rgb[0]), (first, 255), "{policy}");
        }
    }
}
