//! The look at pictures: prepared as the checker's processor says, looked at together, and what becomes of those found unsafe.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;
use serde_json::json;
use zoetrope_api::task::Generate;
use zoetrope_api::{InvalidField, OnFlagged};
use zoetrope_checkpoint::VisionModel;
use zoetrope_engine::Unwatched;
use zoetrope_engine::pixels::Rgb;
use zoetrope_engine::safety;
use zoetrope_files::Picture;
use zoetrope_jobs::Lease;

use crate::attempt::{Room, Safety};
use crate::error::JobError;
use crate::prepared;

/// A safety checker in memory. Cheap to clone; all clones are one network.
#[derive(Clone)]
pub struct Checker {
    name: Arc<str>,
    // One look at a time: each has all of the processor.
    network: Arc<Mutex<safety::Checker>>,
}

impl Checker {
    /// Reads the network of `files`.
    pub fn open(files: &VisionModel, device: &Device) -> zoetrope_engine::Result<Self> {
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

/// Puts black pictures in the place of those that are `flagged`, if `policy` wants that; whether the others may be delivered.
pub fn apply(policy: OnFlagged, pictures: &mut [Picture], flagged: &[bool]) -> bool {
    if policy == OnFlagged::Blank {
        let found = pictures.iter_mut().zip(flagged).filter(|(_, flagged)| **flagged);
        found.for_each(|(picture, _)| picture.rgb.fill(0));
    }
    policy != OnFlagged::Refuse || !flagged.contains(&true)
}

/// The look at what one request draws.
pub(crate) struct Looking<'a> {
    safety: &'a Safety,
    /// What becomes of unsafe pictures; `None` where nobody is to look.
    policy: Option<OnFlagged>,
}

impl<'a> Looking<'a> {
    /// That of `task`, or an error where it asks for a look that nobody here takes. A key with a policy is looked at whatever its
    /// requests send.
    pub(crate) async fn at(
        task: &Generate,
        lease: &Lease,
        room: &'a Room,
    ) -> Result<Self, JobError> {
        let safety = &room.safety;
        let asked = task.safety_checker.then_some(task.on_flagged);
        if matches!(safety, Safety::Harmless | Safety::Off) {
            return Ok(Self { safety, policy: asked });
        }
        let policy = own_policy(lease, room).await?.or(asked);
        check(policy.is_some(), safety)?;
        Ok(Self { safety, policy })
    }

    /// That of a training's samples. Trainings have no field that asks for it: where there is a checker, it looks.
    pub(crate) async fn at_samples(lease: &Lease, room: &'a Room) -> Result<Self, JobError> {
        let own = own_policy(lease, room).await?;
        Ok(Self { safety: &room.safety, policy: Some(own.unwrap_or_default()) })
    }

    /// Which of the finished `pictures` are unsafe, those replaced that may not be seen; `None` where nobody has looked.
    pub(crate) async fn at_all(
        &self,
        pictures: &mut Vec<Picture>,
        lease: &Lease,
    ) -> Result<Option<Vec<bool>>, JobError> {
        let (checker, policy) = match (self.safety, self.policy) {
            (Safety::Harmless, asked) => {
                if asked.is_some() {
                    let reason = "Not looked at by a checker: the embedded model can draw nothing but landscapes";
                    lease.log("INFO", reason).await?;
                }
                return Ok(Some(vec![false; pictures.len()]));
            }
            (Safety::Checked(checker), Some(policy)) => (checker, policy),
            _ => return Ok(None),
        };
        let flagged = looked(checker, pictures).await?;
        let found = flagged.iter().filter(|flagged| **flagged).count();
        let policy_name = OnFlagged::NAMES[policy as usize];
        metrics::counter!("zoetrope_checked_images_total").increment(flagged.len() as u64);
        metrics::counter!("zoetrope_flagged_images_total", "policy" => policy_name)
            .increment(found as u64);
        if found > 0 {
            let became = match policy {
                OnFlagged::Flag => "delivered as it is",
                OnFlagged::Blank => "replaced by black",
                OnFlagged::Refuse => "not delivered",
            };
            let line =
                format!("The safety checker found {found} of {} unsafe: {became}", flagged.len());
            lease.log("WARN", &line).await?;
        }
        match apply(policy, pictures, &flagged) {
            true => Ok(Some(flagged)),
            false => Err(JobError::Unsafe { flagged: found }),
        }
    }

    /// A preview or a sample as it may be seen, and whether it was found unsafe: then it is black, unless it is delivered anyway.
    /// `None` if nobody could tell.
    pub(crate) async fn at_preview(&self, picture: Picture) -> Option<(Picture, bool)> {
        let (Safety::Checked(checker), Some(OnFlagged::Blank | OnFlagged::Refuse)) =
            (self.safety, self.policy)
        else {
            return Some((picture, false));
        };
        let mut pictures = vec![picture];
        let flagged = looked(checker, &mut pictures).await.ok()?;
        apply(OnFlagged::Blank, &mut pictures, &flagged);
        Some((pictures.pop()?, flagged.contains(&true)))
    }
}

/// What the key of whoever sent the request wants done with unsafe pictures, if it says so.
async fn own_policy(lease: &Lease, room: &Room) -> Result<Option<OnFlagged>, JobError> {
    let owner = &lease.request.owner;
    let own = room.queue.key(owner).await?.and_then(|key| key.limits.on_flagged);
    let own = own.map(|name| name.parse()).transpose();
    own.map_err(|e: InvalidField| JobError::Engine(format!("the key of {owner}: {e}")))
}

/// Refuses what is to be looked at where nobody can.
fn check(wanted: bool, safety: &Safety) -> Result<(), JobError> {
    if !matches!(safety, Safety::Unchecked) || !wanted {
        return Ok(());
    }
    let path = [json!("enable_safety_checker")];
    let message = "This server has no safety checker for its model: send false, or let whoever runs it install one with \
                   `zoetrope models pull safety`, or start it with `--safety off`";
    Err(JobError::field(&path, "feature_not_supported", message))
}

/// Which of `pictures` are unsafe, on a thread that may take its time.
async fn looked(checker: &Checker, pictures: &mut Vec<Picture>) -> Result<Vec<bool>, JobError> {
    let (checker, shown) = (checker.clone(), std::mem::take(pictures));
    let look = move || (checker.look(&shown), shown);
    let looked = tokio::task::spawn_blocking(look).await;
    let (flagged, shown) =
        looked.map_err(|_| JobError::Engine("the safety checker panicked".into()))?;
    *pictures = shown;
    flagged.map_err(|e| JobError::Engine(format!("the safety checker failed: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_wants_a_look_is_refused_where_nobody_looks() {
        assert!(check(true, &Safety::Unchecked).is_err());
        assert!(check(false, &Safety::Unchecked).is_ok());
        assert!(check(true, &Safety::Harmless).is_ok());
        assert!(check(true, &Safety::Off).is_ok());
    }

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
