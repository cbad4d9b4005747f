//! The `[gateway]` table: what it says, and everything that is wrong with it at once.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use zoetrope_api::Micros;
use zoetrope_api::images::{Mode, Pixels};
use zoetrope_gateway::catalogue::{Catalogue, Choice, ConfigError, Protocol, Strategy};
use zoetrope_gateway::price::Unit;

fn read(text: &str) -> Result<Catalogue, ConfigError> {
    let variable = |name: &str| (name == "FAL_KEY").then(|| " id:secret\n".to_string());
    Catalogue::read(&text.parse().unwrap(), &variable)
}

#[test]
fn a_provider_with_a_key_serves_what_is_known_of_it() {
    let catalogue = read("[providers.fal]\nkey_variable = \"FAL_KEY\"").unwrap();
    let turbo = catalogue.model("z-image-turbo").unwrap();
    let keys: Vec<_> = turbo.deployments.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(keys, ["fal/z-image-turbo", "fal/z-image-turbo-edit", "local/z-image-turbo"]);
    assert_eq!(turbo.strategy, Strategy::LocalFirst { waiting_max: 4 });
    let fal = &catalogue.providers["fal"];
    assert_eq!((fal.protocol, fal.key.as_ref().unwrap().0.as_str()), (Protocol::Fal, "id:secret"));
    assert!(!format!("{catalogue:?}").contains("secret"), "keys are in no log");
    let forced = catalogue.resolve("fal/z-image-turbo").unwrap().choice;
    assert_eq!(forced, Choice::Provider("fal".into()));
    assert_eq!(read("").unwrap().models, Catalogue::standard().models);
}

#[test]
fn everything_can_be_said() {
    let text = r#"
        [providers.fal]
        key = "k"
        calls_per_minute = 30
        [providers.mine]
        protocol = "openai"
        url = "http://10.0.0.7:8000/v1/"
        private = true
        concurrency = 2
        title = "The cellar"

        [models.z-image-turbo]
        strategy = "cheapest"
        deployments = [
            { provider = "fal", upstream = "fal-ai/z-image/turbo", priority = 1, timeout_seconds = 30 },
            "local",
            { provider = "mine", upstream = "zit", modes = ["text-to-image"], weight = 0.5,
              price = { unit = "second", dollars = 0.0003, surcharges = [{ parameter = "go_fast", unit = "image", dollars = 1 }] } },
        ]
        [models.flux]
        name = "Flux"
        size_max = "1024x512"
        deployments = ["mine"]
        [models.z-image]
        disabled = true

        [aliases]
        "gpt-image-*" = "flux"
        "dall-e-3" = { target = "local/z-image-turbo", listed = false }

        [routing]
        deadline_seconds = 90
        deployments_max = 2
        policy_elsewhere = false
        hedge_after_seconds = 2.5
        explore_one_in = 0
    "#;
    let catalogue = read(text).unwrap();
    let turbo = catalogue.model("z-image-turbo").unwrap();
    let [fal, local, mine] = turbo.deployments.as_slice() else { panic!("{turbo:?}") };
    assert_eq!((fal.priority, fal.timeout), (1, Duration::from_secs(30)));
    assert_eq!(fal.price.as_ref().unwrap().amount, Micros(5_000), "what is known stays");
    assert_eq!(local.key, "local/z-image-turbo");
    assert_eq!((mine.upstream.as_str(), mine.weight), ("zit", 0.5));
    assert_eq!(mine.modes, [Mode::TextToImage]);
    let price = mine.price.as_ref().unwrap();
    assert_eq!((price.unit, price.amount), (Unit::Second, Micros(300)));
    assert_eq!(price.surcharges[0].amount, Micros(1_000_000));
    let entry = &catalogue.providers["mine"];
    assert_eq!(entry.url.as_deref(), Some("http://10.0.0.7:8000/v1"));
    assert_eq!((entry.private, entry.concurrency_max), (true, Some(2)));
    let flux = catalogue.model("flux").unwrap();
    assert_eq!(flux.deployments[0].key, "mine/flux");
    assert_eq!(flux.size_max, Pixels::new(1024, 512));
    assert_eq!(catalogue.resolve("gpt-image-1").unwrap().model.id, "flux");
    let alias = catalogue.resolve("dall-e-3").unwrap();
    assert_eq!(alias.choice, Choice::Provider("local".into()));
    assert_eq!(catalogue.resolve("z-image").unwrap_err().code.name(), "MODEL_DISABLED");
    let routing = &catalogue.routing;
    assert_eq!(routing.hedge_after, Some(Duration::from_millis(2500)));
    assert_eq!((routing.deployments_max, routing.explore_one_in), (2, 0));
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let text = r#"
        [providers.fal]
        key_variable = "NO_SUCH"
        [providers.replicate]
        [providers.what]
        [providers.mine]
        protocol = "openai"
        url = "ftp://x"
        concurrency = 0
        colour = "red"
        [models.z-image-turbo]
        strategy = "luck"
        deployments = ["local", "nobody", { upstream = "x" }, 7]
        [models.flux]
        [aliases]
        a = "nothing"
        z-image = "z-image-turbo"
        [routing]
        deadline_seconds = "long"
        [typo]
    "#;
    let error = read(text).unwrap_err();
    let places: Vec<_> = error.mistakes.iter().map(|mistake| mistake.place.as_str()).collect();
    let expected = [
        "gateway.providers.fal.key_variable",
        "gateway.providers.mine.url",
        "gateway.providers.mine.concurrency",
        "gateway.providers.mine.colour",
        "gateway.providers.replicate.key",
        "gateway.providers.what.protocol",
        "gateway.models.z-image-turbo.deployments[1]",
        "gateway.models.z-image-turbo.deployments[2].provider",
        "gateway.models.z-image-turbo.deployments[3]",
        "gateway.models.z-image-turbo.strategy",
        "gateway.models.flux.deployments",
        "gateway.routing.deadline_seconds",
        "gateway.aliases.\"a\"",
        "gateway.aliases.\"z-image\"",
        "gateway.typo",
    ];
    for place in expected {
        assert!(places.contains(&place), "{place} is not in {error}");
    }
    assert_eq!(places.len(), expected.len(), "{error}");
    let text = error.to_string();
    assert!(text.contains("there is no provider `nobody`; there are fal, local"), "{text}");
}

#[test]
fn a_key_of_the_file_is_not_in_an_error() {
    let text = "[providers.fal]\nkey = \"very-secret\"\nkey_variable = \"FAL_KEY\"\nprivate = \"very-secret\"";
    let error = read(text).unwrap_err().to_string();
    assert!(!error.contains("very-secret"), "{error}");
}
