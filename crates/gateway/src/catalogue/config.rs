//! The `[gateway]` table of the configuration file: providers, models, other names for them, and how far the router goes.
//! What is known without it needs not be written: `[gateway.providers.fal]` with a key is all that fal takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Table;
use zoetrope_api::images::{About, Mode, Pixels};

use super::about;
use super::section::{Mistakes, Section};
use super::standard::{self, KNOWN, REMOTE_TIMEOUT, WAITING_MAX};
use super::{
    Alias, Catalogue, ConfigError, Deployment, LOCAL, Model, Protocol, ProviderEntry, Routing,
    Secret, Status, Strategy,
};
use crate::price::{Price, Surcharge, Unit};

const PROTOCOLS: [(&str, Protocol); 6] = [
    ("local", Protocol::Local),
    ("fal", Protocol::Fal),
    ("alibaba", Protocol::Alibaba),
    ("replicate", Protocol::Replicate),
    ("openai", Protocol::OpenAi),
    ("zoetrope", Protocol::Zoetrope),
];

const UNITS: [(&str, Unit); 4] = [
    ("image", Unit::Image),
    ("megapixel", Unit::Megapixel),
    ("request", Unit::Request),
    ("second", Unit::Second),
];

/// Pixels of a side that a model may be said to make.
const SIDE_MAX: u32 = 16_384;

type Providers = BTreeMap<String, Arc<ProviderEntry>>;

impl Catalogue {
    /// What `table`, the file's `[gateway]`, says; `variable` reads the environment. An error holds everything that is wrong.
    pub fn read(
        table: &Table,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mistakes = Mistakes::default();
        let gateway = Section::new("gateway", table, &mistakes);
        let providers = providers(&gateway, variable);
        let models = models(&gateway, &providers, &mistakes);
        let routing = gateway.section("routing").map(|section| routing(&section));
        let mut catalogue =
            Self { providers, models, aliases: Vec::new(), routing: routing.unwrap_or_default() };
        if let Some(section) = gateway.get("aliases") {
            catalogue.aliases = aliases(section, &catalogue, &mistakes);
        }
        gateway.done();
        mistakes.or(catalogue)
    }
}

fn providers(gateway: &Section<'_>, variable: &dyn Fn(&str) -> Option<String>) -> Providers {
    let local = standard::entry(LOCAL, Protocol::Local);
    let mut providers = Providers::from([(LOCAL.into(), Arc::new(local))]);
    for (name, section) in gateway.sections("providers") {
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
        {
            section.wrong("", "a provider's name has small letters, digits, - and _ only");
        }
        if let Some(entry) = provider(name, &section, variable) {
            providers.insert(name.into(), Arc::new(entry));
        }
        section.done();
    }
    providers
}

fn provider(
    name: &str,
    section: &Section<'_>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<ProviderEntry> {
    let named = PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, protocol)| *protocol);
    let protocol = match (section.get("protocol"), named) {
        (Some(_), _) => section.choice("protocol", &PROTOCOLS),
        (None, Some(protocol)) => Some(protocol),
        (None, None) => {
            let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
            section.wrong("protocol", format!("is missing; write one of {}", names.join(", ")));
            None
        }
    };
    let usual = standard::entry(name, protocol.unwrap_or(Protocol::OpenAi));
    let (own, uploads) = (url(section, "url"), url(section, "upload_url"));
    if uploads.is_some() && protocol.is_some_and(|protocol| protocol != Protocol::Fal) {
        section.wrong("upload_url", "belongs to the protocol fal");
    }
    let entry = ProviderEntry {
        title: section.text("title").unwrap_or(usual.title),
        // Whoever is elsewhere does not upload to fal.
        upload_url: uploads.or(usual.upload_url.filter(|_| own.is_none())),
        url: own.or(usual.url),
        key: key(section, variable),
        calls_per_minute: section
            .whole("calls_per_minute", 1, 1_000_000)
            .map(|most| most as u32)
            .or(usual.calls_per_minute),
        concurrency_max: section.whole("concurrency", 1, 100_000).map(|most| most as u32),
        private: section.flag("private").unwrap_or(false),
        name: usual.name,
        protocol: protocol?,
    };
    let hosted = matches!(entry.protocol, Protocol::Fal | Protocol::Alibaba | Protocol::Replicate);
    let written = section.get("key").or(section.get("key_variable")).is_some();
    if hosted && !written {
        section.wrong("key", "is missing; write it, or the variable that has it as key_variable");
    }
    if entry.protocol == Protocol::Zoetrope && entry.url.is_none() {
        section.wrong("url", "is missing; write where the server is, as https://pictures.example");
    }
    Some(entry)
}

fn url(section: &Section<'_>, name: &'static str) -> Option<String> {
    let text = section.text(name)?;
    let web = url::Url::parse(&text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some()
            && url.query().is_none()
    });
    match web {
        Some(url) if url.username().is_empty() && url.password().is_none() => {
            Some(text.trim_end_matches('/').into())
        }
        Some(_) => {
            section.wrong(name, "holds a name or a password; write the key as key or key_variable");
            None
        }
        None => {
            section.wrong(name, "is no address; write one as https://api.example/v1");
            None
        }
    }
}

fn key(section: &Section<'_>, variable: &dyn Fn(&str) -> Option<String>) -> Option<Secret> {
    let (written, named) = (section.text("key"), section.text("key_variable"));
    match (written, named) {
        (Some(_), Some(_)) => {
            section.wrong("key_variable", "stands beside key; write one of them");
            None
        }
        (Some(key), None) => Some(Secret(key)),
        (None, Some(name)) => {
            let found = variable(&name).filter(|key| !key.trim().is_empty());
            if found.is_none() {
                section.wrong("key_variable", format!("the variable {name} is not set"));
            }
            found.map(|key| Secret(key.trim().into()))
        }
        (None, None) => None,
    }
}

/// The models of this family, changed as the file says, and then those that are only there.
fn models(gateway: &Section<'_>, providers: &Providers, mistakes: &Mistakes) -> Vec<Arc<Model>> {
    let sections = gateway.sections("models");
    let section = |id: &str| sections.iter().find(|(name, _)| *name == id).map(|(_, s)| s);
    let mut models: Vec<Model> = standard::models()
        .map(|usual| {
            let everybody = providers.values().flat_map(|entry| known(entry, &usual.id));
            let model = Model { deployments: everybody.map(Arc::new).collect(), ..usual };
            match section(&model.id) {
                Some(section) => self::model(model, section, providers, mistakes),
                None => model,
            }
        })
        .collect();
    for (id, section) in &sections {
        if models.iter().any(|model| model.id == *id) {
            continue;
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if !id.bytes().all(plain) {
            section.wrong("", "a model's id has small letters, digits, -, _ and . only");
        }
        if section.get("deployments").is_none() {
            section.wrong("deployments", "is missing; write who serves the model");
        }
        let blank = Model {
            id: (*id).into(),
            name: (*id).into(),
            summary: String::new(),
            owned_by: "unknown".into(),
            family: (*id).into(),
            created: 0,
            status: Status::Active,
            tags: vec!["image-generation".into()],
            about: About::default(),
            examples: Vec::new(),
            size_max: Pixels::new(2048, 2048),
            deployments: Vec::new(),
            strategy: Strategy::default(),
        };
        models.push(model(blank, section, providers, mistakes));
    }
    let mut keys: Vec<&str> = Vec::new();
    for deployment in models.iter().flat_map(|model| &model.deployments) {
        match keys.contains(&deployment.key.as_str()) {
            true => mistakes.say(
                "gateway.models",
                format!("there are two deployments {}; give one a slug of its own", deployment.key),
            ),
            false => keys.push(&deployment.key),
        }
    }
    models.into_iter().map(Arc::new).collect()
}

/// What is known of `id` at a provider.
fn known(entry: &ProviderEntry, id: &str) -> Vec<Deployment> {
    let known = KNOWN.iter().filter(|one| one.protocol == entry.protocol && one.model == id);
    known.map(|one| one.deployment(entry)).collect()
}

fn model(usual: Model, section: &Section<'_>, providers: &Providers, mistakes: &Mistakes) -> Model {
    let deployments = section.items("deployments").map(|items| {
        let read = items.into_iter().flat_map(|(place, value)| match value.as_str() {
            Some(name) => by_name(&place, name, &usual.id, providers, mistakes),
            None => match Section::of(place, value, mistakes) {
                Some(section) => by_table(&section, &usual.id, providers, mistakes),
                None => Vec::new(),
            },
        });
        read.map(Arc::new).collect()
    });
    let disabled = section.flag("disabled").unwrap_or(false);
    let model = Model {
        name: section.text("name").unwrap_or(usual.name),
        summary: section.text("summary").unwrap_or(usual.summary),
        owned_by: section.text("owned_by").unwrap_or(usual.owned_by),
        family: section.text("family").unwrap_or(usual.family),
        created: section.whole("created", 0, i64::MAX).unwrap_or(usual.created),
        status: if disabled { Status::Disabled } else { Status::Active },
        tags: section.texts("tags").unwrap_or(usual.tags),
        about: section.section("about").map_or(usual.about, |section| about::read(&section)),
        examples: about::examples(section, mistakes).unwrap_or(usual.examples),
        size_max: pixels(section).unwrap_or(usual.size_max),
        deployments: deployments.unwrap_or(usual.deployments),
        strategy: strategy(section).unwrap_or(usual.strategy),
        id: usual.id,
    };
    section.done();
    model
}

fn pixels(section: &Section<'_>) -> Option<Pixels> {
    let text = section.text("size_max")?;
    let side = |text: &str| text.parse().ok().filter(|side| (1..=SIDE_MAX).contains(side));
    let found = text
        .split_once('x')
        .and_then(|(width, height)| Some(Pixels::new(side(width)?, side(height)?)));
    if found.is_none() {
        section.wrong("size_max", format!("write it as 2048x2048, sides up to {SIDE_MAX}"));
    }
    found
}

fn strategy(section: &Section<'_>) -> Option<Strategy> {
    let waiting = section.whole("waiting_max", 0, 1_000_000).map(|most| most as u64);
    let chosen = section.choice(
        "strategy",
        &[
            ("local_first", Strategy::LocalFirst { waiting_max: waiting.unwrap_or(WAITING_MAX) }),
            ("balanced", Strategy::Balanced),
            ("cheapest", Strategy::Cheapest),
            ("fastest", Strategy::Fastest),
            ("weighted", Strategy::Weighted),
            ("ordered", Strategy::Ordered),
            ("round_robin", Strategy::RoundRobin),
        ],
    );
    match (chosen, waiting) {
        (None, Some(waiting_max)) if section.get("strategy").is_none() => {
            Some(Strategy::LocalFirst { waiting_max })
        }
        (Some(Strategy::LocalFirst { .. }) | None, _) | (_, None) => chosen,
        (Some(_), Some(_)) => {
            section.wrong("waiting_max", "belongs to the strategy local_first");
            chosen
        }
    }
}

/// All that is known of `model` at the provider called `name`.
fn by_name(
    place: &str,
    name: &str,
    model: &str,
    providers: &Providers,
    mistakes: &Mistakes,
) -> Vec<Deployment> {
    let Some(entry) = providers.get(name) else {
        mistakes.say(place, unknown_provider(name, providers));
        return Vec::new();
    };
    let known = known(entry, model);
    if !known.is_empty() {
        return known;
    }
    match entry.protocol {
        // These have models of any name.
        Protocol::OpenAi | Protocol::Zoetrope => vec![blank(entry, model)],
        _ => {
            let text =
                format!("what {name} calls {model} is not known; write a table with upstream");
            mistakes.say(place, text);
            Vec::new()
        }
    }
}

fn unknown_provider(name: &str, providers: &Providers) -> String {
    let names: Vec<&str> = providers.keys().map(String::as_str).collect();
    format!("there is no provider `{name}`; there are {}", names.join(", "))
}

/// A model of the same name at a provider.
fn blank(entry: &ProviderEntry, model: &str) -> Deployment {
    Deployment {
        key: format!("{}/{model}", entry.name),
        provider: entry.name.clone(),
        upstream: model.into(),
        modes: Mode::ALL.to_vec(),
        price: None,
        price_source: None,
        priority: 0,
        weight: 1.0,
        timeout: REMOTE_TIMEOUT,
    }
}

/// What a table says: about everything that is known of the model there, or about what the provider calls `upstream`.
fn by_table(
    section: &Section<'_>,
    model: &str,
    providers: &Providers,
    mistakes: &Mistakes,
) -> Vec<Deployment> {
    let (upstream, slug) = (section.text("upstream"), section.text("slug"));
    let changed = changes(section, mistakes);
    let Some(name) = section.text("provider") else {
        if section.get("provider").is_none() {
            section.wrong("provider", "is missing; write the name of one");
        }
        section.done();
        return Vec::new();
    };
    section.done();
    let Some(entry) = providers.get(&name) else {
        section.wrong("provider", unknown_provider(&name, providers));
        return Vec::new();
    };
    let mut usual = match &upstream {
        None => by_name(&section.place, &name, model, providers, mistakes),
        Some(upstream) => {
            let known = known(entry, model).into_iter().filter(|one| one.upstream == *upstream);
            let mut known: Vec<_> = known.collect();
            if known.is_empty() {
                known.push(Deployment { upstream: upstream.clone(), ..blank(entry, model) });
            }
            known
        }
    };
    if let Some(slug) = slug {
        match usual.as_mut_slice() {
            [one] => one.key = format!("{name}/{slug}"),
            _ => section.wrong("slug", "is for one deployment; write its upstream too"),
        }
    }
    usual.into_iter().map(changed).collect()
}

/// What a table changes about a deployment.
fn changes(
    section: &Section<'_>,
    mistakes: &Mistakes,
) -> impl Fn(Deployment) -> Deployment + use<> {
    let names = section.texts("modes");
    let modes = names.map(|names| {
        let modes: Vec<_> = names.iter().filter_map(|name| Mode::named(name)).collect();
        if modes.len() != names.len() || modes.is_empty() {
            section.wrong("modes", "write text-to-image, image-edit or both");
        }
        modes
    });
    let price = section.section("price").and_then(|section| price(&section, mistakes));
    let source = section.text("price_source");
    let priority = section.whole("priority", 0, 1000).map(|priority| priority as u32);
    let weight = section.number("weight", 0.0, 1e6);
    let timeout = section.seconds("timeout_seconds");
    move |usual| Deployment {
        modes: modes.clone().unwrap_or(usual.modes),
        price: price.clone().or(usual.price),
        price_source: source.clone().or(usual.price_source),
        priority: priority.unwrap_or(usual.priority),
        weight: weight.unwrap_or(usual.weight),
        timeout: timeout.unwrap_or(usual.timeout),
        ..usual
    }
}

fn price(section: &Section<'_>, mistakes: &Mistakes) -> Option<Price> {
    let (unit, amount) = (section.choice("unit", &UNITS), section.dollars("dollars"));
    for name in ["unit", "dollars"] {
        if section.get(name).is_none() {
            section.wrong(name, "is missing; a price is as { unit = \"image\", dollars = 0.01 }");
        }
    }
    let mut surcharges = Vec::new();
    for (place, value) in section.items("surcharges").unwrap_or_default() {
        let Some(section) = Section::of(place, value, mistakes) else { continue };
        let parameter = section.text("parameter");
        match (parameter, section.choice("unit", &UNITS), section.dollars("dollars")) {
            (Some(parameter), Some(unit), Some(amount)) => {
                surcharges.push(Surcharge { parameter, unit, amount });
            }
            _ => section.wrong("parameter", "a surcharge has parameter, unit and dollars"),
        }
        section.done();
    }
    section.done();
    Some(Price { unit: unit?, amount: amount?, surcharges })
}

fn routing(section: &Section<'_>) -> Routing {
    let usual = Routing::default();
    let routing = Routing {
        deadline: section.seconds("deadline_seconds").unwrap_or(usual.deadline),
        deployments_max: section
            .whole("deployments_max", 1, 100)
            .map_or(usual.deployments_max, |most| most as usize),
        policy_elsewhere: section.flag("policy_elsewhere").unwrap_or(usual.policy_elsewhere),
        hedge_after: section.seconds("hedge_after_seconds").or(usual.hedge_after),
        explore_one_in: section
            .whole("explore_one_in", 0, 1_000_000)
            .map_or(usual.explore_one_in, |one_in| one_in as u64),
    };
    section.done();
    routing
}

/// Other names: exact ones first, then patterns in the order of the alphabet, in which the file's reader has them.
fn aliases(value: &toml::Value, catalogue: &Catalogue, mistakes: &Mistakes) -> Vec<Alias> {
    let place = "gateway.aliases";
    let Some(table) = value.as_table() else {
        mistakes.say(place, "must be a table, as \"dall-e-3\" = \"z-image-turbo\"");
        return Vec::new();
    };
    let mut aliases = Vec::new();
    for (pattern, value) in table {
        let at = format!("{place}.{pattern:?}");
        let (target, listed) = match value {
            toml::Value::String(target) => (Some(target.clone()), true),
            value => match Section::of(at.clone(), value, mistakes) {
                Some(section) => {
                    let read = (section.text("target"), section.flag("listed").unwrap_or(true));
                    section.done();
                    read
                }
                None => continue,
            },
        };
        let Some(target) = target else {
            mistakes.say(at, "has no target; write a model's id, or provider/id");
            continue;
        };
        if !catalogue.knows(&target) {
            mistakes.say(at, format!("`{target}` is no model and no deployment"));
        }
        if catalogue.knows(pattern) {
            mistakes.say(format!("{place}.{pattern:?}"), "is a model already");
        }
        let listed = listed && !pattern.contains('*');
        aliases.push(Alias { pattern: pattern.clone(), target, listed });
    }
    aliases.sort_by_key(|alias| alias.pattern.contains('*'));
    aliases
}
