//! Who could make what was asked for, and what each would be asked.

use std::sync::Arc;

use tokio::time::Instant;
use zoetrope_api::Micros;
use zoetrope_api::images::{Code, ImageRequest, Mode, Problem};

use super::lane::Lane;
use super::registry::Registry;
use crate::caller::Caller;
use crate::catalogue::{Choice, Deployment, Model, Target, matches};
use crate::gateway::Snapshot;
use crate::plan::{self, Plan, Unsuited};
use crate::price::{Price, Unit};
use crate::provider::Provider;
use crate::source::Sources;

/// Somebody who could make it, and how.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub(crate) plan: Plan,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) lane: Arc<Lane>,
    /// Pictures of one call.
    pub(crate) count_max: u32,
}

impl Candidate {
    /// What it would cost; nothing where that is not known.
    pub(crate) fn total(&self) -> Micros {
        self.plan.total().unwrap_or_default()
    }

    /// Works out what it would cost where time is charged for: as long as it is expected to take.
    pub(crate) fn measure(&mut self, request: &ImageRequest, registry: &Registry) {
        let by_time = |price: &Price| price.unit == Unit::Second;
        if !self.plan.deployment.price.as_ref().is_some_and(by_time) {
            return;
        }
        let state = registry.deployment(&self.plan.deployment.key);
        let seen = state.seen(self.plan.fit.made, Instant::now());
        let all = seen.expected.map(|seconds| seconds * self.plan.parts.len() as f64 * 1e6);
        self.plan.components =
            self.plan.estimate(request, all.map(|all| all as u64)).unwrap_or_default();
    }
}

/// Whether `caller` may ask for `target`: under its model's name or under that of the deployment.
pub(crate) fn allowed(caller: &Caller, target: &Target) -> Result<(), Problem> {
    let fits = |name: &str| caller.limits.models.iter().any(|pattern| matches(pattern, name));
    let forced = match &target.choice {
        Choice::Any => false,
        Choice::Provider(name) => fits(&format!("{name}/{}", target.model.id)),
        Choice::Deployment(deployment) => fits(&deployment.key),
    };
    if caller.limits.models.is_empty() || forced || fits(&target.model.id) {
        return Ok(());
    }
    let text = format!(
        "This key may not use the model '{}'; it may use {}.",
        target.model.id,
        caller.limits.models.join(", ")
    );
    Err(Problem { param: Some("model".into()), ..Problem::new(Code::PermissionDenied, text) })
}

/// Everybody who could make it, in the order of the configuration; not empty.
pub(crate) fn candidates(
    snapshot: &Snapshot,
    target: &Target,
    request: &ImageRequest,
    sources: &Arc<Sources>,
) -> Result<Vec<Candidate>, Problem> {
    let mode = request.mode();
    let chosen = || target.model.deployments.iter().filter(|one| target.choice.admits(one));
    let able: Vec<_> = chosen().filter(|one| one.modes.contains(&mode)).collect();
    if able.is_empty() {
        return Err(wrong_mode(&request.model, &target.model, chosen(), mode));
    }
    let (mut found, mut unsuited) = (Vec::new(), Vec::new());
    for deployment in able {
        let Some((provider, lane)) = snapshot.provider(deployment) else { continue };
        let abilities = provider.abilities(deployment, mode);
        let planned = plan::work_out(request, sources, deployment, &abilities);
        let planned = planned.and_then(|plan| strictly(request, plan));
        match planned {
            Ok(plan) => found.push(Candidate {
                plan,
                provider: provider.clone(),
                lane: lane.clone(),
                count_max: abilities.count_max.max(1),
            }),
            Err(error) => unsuited.push(error),
        }
    }
    match (found.is_empty(), unsuited.into_iter().next()) {
        (true, Some(Unsuited { parameter, message })) => {
            Err(Problem { param: parameter, ..Problem::new(Code::InvalidRequest, message) })
        }
        (true, None) => Err(Problem::new(Code::Unavailable, "Nobody serves this model now.")),
        (false, _) => Ok(found),
    }
}

/// Nothing is left out for who would rather be told.
fn strictly(request: &ImageRequest, plan: Plan) -> Result<Plan, Unsuited> {
    let dropped = plan.changes.iter().find(|change| request.reply.strict && change.to.is_null());
    let Some(change) = dropped else { return Ok(plan) };
    let message = format!(
        "`{}` would be dropped for {}: {}. Leave it out, or send no `strict`.",
        change.parameter, plan.deployment.key, change.reason
    );
    Err(Unsuited { parameter: Some(change.parameter.clone()), message })
}

fn wrong_mode<'a>(
    name: &str,
    model: &Model,
    chosen: impl Iterator<Item = &'a Arc<Deployment>>,
    mode: Mode,
) -> Problem {
    let mut modes: Vec<&str> = chosen.flat_map(|one| &one.modes).map(|mode| mode.name()).collect();
    modes.sort_unstable();
    modes.dedup();
    if modes.is_empty() {
        let text = format!("Nobody serves the model '{}' now.", model.id);
        return Problem::new(Code::Unavailable, text);
    }
    let wanted = match mode {
        Mode::TextToImage => "text-to-image",
        Mode::ImageEdit => "image editing",
    };
    let text =
        format!("Model '{name}' does not support {wanted}. Supported modes: {}", modes.join(", "));
    Problem::invalid("model", text)
}
