//! From a name in a request to a model and those who may serve it.

use std::sync::Arc;

use zoetrope_api::images::{Code, Problem};

use super::{Catalogue, Choice, Deployment, Model, Status, Target};

/// Characters of an unknown name that are repeated in an answer, and compared with the known ones.
const SHOWN_MAX: usize = 80;

impl Catalogue {
    /// What `name` means: a model's id, `provider/id` for one of its providers, the key of a deployment, or an alias of one of
    /// these. Names are compared exactly: a name that is nearly known is an error which tells the known one.
    pub fn resolve(&self, name: &str) -> Result<Target, Problem> {
        let target = self.direct(name).or_else(|| {
            let alias = self.aliases.iter().find(|alias| matches(&alias.pattern, name))?;
            self.direct(&alias.target)
        });
        let target = target.ok_or_else(|| self.unknown(name))?;
        match target.model.status {
            Status::Active => Ok(target),
            Status::Disabled => {
                let text = format!("The model '{}' is switched off here.", target.model.id);
                Err(Problem {
                    param: Some("model".into()),
                    ..Problem::new(Code::ModelDisabled, text)
                })
            }
        }
    }

    /// The model called `id`.
    pub fn model(&self, id: &str) -> Option<&Arc<Model>> {
        self.models.iter().find(|model| model.id == id)
    }

    /// All deployments with their models, in the order of lists.
    pub fn deployments(&self) -> impl Iterator<Item = (&Arc<Model>, &Arc<Deployment>)> {
        self.models.iter().flat_map(|model| model.deployments.iter().map(move |one| (model, one)))
    }

    /// Whether `name` means something without aliases.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.direct(name).is_some()
    }

    /// `name` without aliases.
    fn direct(&self, name: &str) -> Option<Target> {
        if let Some(model) = self.model(name) {
            return Some(Target { model: model.clone(), choice: Choice::Any });
        }
        if let Some((provider, id)) = name.split_once('/')
            && let Some(model) = self.model(id)
            && model.deployments.iter().any(|deployment| deployment.provider == provider)
        {
            // The deployment depends on the mode: one slug may draw and edit under two ids.
            return Some(Target {
                model: model.clone(),
                choice: Choice::Provider(provider.into()),
            });
        }
        let (model, deployment) = self.deployments().find(|(_, one)| one.key == name)?;
        let choice = Choice::Deployment(deployment.clone());
        Some(Target { model: model.clone(), choice })
    }

    fn unknown(&self, name: &str) -> Problem {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect();
        let hint = match self.nearest(&shown) {
            Some(known) => format!(" Did you mean '{known}'?"),
            None => String::new(),
        };
        let text = format!("The model '{shown}' does not exist.{hint}");
        Problem { param: Some("model".into()), ..Problem::new(Code::ModelNotFound, text) }
    }

    /// The known name that `name` is most like, if it is like any.
    fn nearest(&self, name: &str) -> Option<String> {
        let wanted = name.to_lowercase();
        if let Some(model) = self.model(&wanted) {
            return Some(model.id.clone());
        }
        // Somebody may know the provider's own name.
        if let Some((_, found)) = self.deployments().find(|(_, one)| one.upstream == wanted) {
            return Some(found.key.clone());
        }
        let ids = self.models.iter().map(|model| model.id.as_str());
        let keys = self.deployments().map(|(_, deployment)| deployment.key.as_str());
        let listed = self.aliases.iter().filter(|alias| alias.listed);
        let known = ids.chain(keys).chain(listed.map(|alias| alias.pattern.as_str()));
        let (distance, found) = known.map(|known| (distance(&wanted, known), known)).min()?;
        let allowed = (wanted.chars().count() / 3).max(2);
        (distance <= allowed).then(|| found.into())
    }
}

impl Choice {
    /// Whether `deployment` may serve.
    pub fn admits(&self, deployment: &Deployment) -> bool {
        match self {
            Self::Any => true,
            Self::Provider(name) => deployment.provider == *name,
            Self::Deployment(only) => deployment.key == only.key,
        }
    }
}

/// Whether `pattern`, in which `*` stands for any text, fits all of `text`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// How many characters must be put in, taken out or changed to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Alias;

    fn catalogue() -> Catalogue {
        let alias = |pattern: &str, target: &str| Alias {
            pattern: pattern.into(),
            target: target.into(),
            listed: true,
        };
        let aliases = vec![
            alias("dall-e-3", "z-image-turbo"),
            alias("mine", "local/z-image-turbo"),
            alias("gpt-image-*", "z-image"),
        ];
        Catalogue { aliases, ..Catalogue::standard() }
    }

    #[test]
    fn names_are_found_exactly_by_provider_and_by_alias() {
        let any = |id: &str| Some((id.to_string(), Choice::Any));
        let local = |id: &str| Some((id.to_string(), Choice::Provider("local".into())));
        let cases = [
            ("z-image-turbo", any("z-image-turbo")),
            ("local/z-image-turbo", local("z-image-turbo")),
            ("dall-e-3", any("z-image-turbo")),
            ("mine", local("z-image-turbo")),
            ("gpt-image-1", any("z-image")),
            ("Z-IMAGE-TURBO", None),
            ("fal/z-image-turbo", None),
            ("", None),
        ];
        for (name, expected) in cases {
            let found = catalogue().resolve(name).ok();
            let found = found.map(|target| (target.model.id.clone(), target.choice));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_known_one() {
        let cases = [
            ("Z-IMAGE-TURBO", "Did you mean 'z-image-turbo'?"),
            ("z-image-trubo", "Did you mean 'z-image-turbo'?"),
            ("dalle-3", "Did you mean 'dall-e-3'?"),
        ];
        for (name, expected) in cases {
            let problem = catalogue().resolve(name).unwrap_err();
            assert_eq!(problem.status(), 404);
            assert!(problem.message.ends_with(expected), "{name}: {}", problem.message);
        }
        let far = catalogue().resolve("stable-diffusion-xl-1024").unwrap_err();
        assert!(!far.message.contains("Did you mean"), "{}", far.message);
    }

    #[test]
    fn a_star_stands_for_any_text() {
        let cases = [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "axxbxxc", true),
            ("a*b*c", "axxcxxb", false),
            ("ab*ba", "aba", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
