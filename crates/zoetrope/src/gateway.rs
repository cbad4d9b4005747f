//! The gateway's part of the configuration file, `[gateway]`, and reading it again while the server runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::watch;
use toml::Table;
use zoetrope_files::Store;
use zoetrope_files::fetch::Fetcher;
use zoetrope_gateway::catalogue::Catalogue;
use zoetrope_gateway::{Gateway, House};
use zoetrope_jobs::Queue;

use crate::environment::Environment;
use crate::place::now_ms;

/// The name of the table.
pub(crate) const TABLE: &str = "gateway";
/// Milliseconds that pictures live which are given as addresses.
const PICTURES_MS: i64 = 3_600_000;
/// Between two looks at the file. It is compared as a whole: what edits it may keep its time and its length.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// Between two looks at what was measured.
const LEARN_PAUSE: Duration = Duration::from_secs(60);
/// Between two exchanges with other servers: so long may one go on asking whom another has found to be down.
const SHARE_PAUSE: Duration = Duration::from_secs(1);

/// Where the table is read from.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: Option<PathBuf>,
    /// Without keys it is somebody's own machine: OpenAI's names mean our model, unless the file has names of its own.
    pub(crate) keys_required: bool,
    /// Whether there is a model that sees pictures.
    pub(crate) edit_model: bool,
}

impl File {
    /// What the file says now; what is known without it where there is none.
    pub(crate) fn read(&self, environment: &Environment) -> anyhow::Result<Catalogue> {
        self.parse(&self.text()?, environment)
    }

    fn text(&self) -> anyhow::Result<String> {
        let Some(path) = &self.path else { return Ok(String::new()) };
        std::fs::read_to_string(path).with_context(|| self.shown())
    }

    fn parse(&self, text: &str, environment: &Environment) -> anyhow::Result<Catalogue> {
        let file: Table = text.parse().with_context(|| self.shown())?;
        let table = match file.get(TABLE) {
            None => Table::new(),
            Some(toml::Value::Table(table)) => table.clone(),
            Some(_) => return Err(anyhow!("{}: `{TABLE}` must be a table", self.shown())),
        };
        let catalogue = Catalogue::read(&table, &|name| environment.named(name));
        let catalogue = catalogue.map_err(|error| anyhow!("{}:\n{error}", self.shown()))?;
        let catalogue = match self.edit_model {
            true => catalogue.with_edit_model(),
            false => catalogue,
        };
        Ok(match self.keys_required || table.contains_key("aliases") {
            true => catalogue,
            false => catalogue.with_openai_names(),
        })
    }

    fn shown(&self) -> String {
        let path = self.path.as_ref().map(|path| path.display().to_string());
        format!("the configuration file {}", path.unwrap_or_default())
    }
}

/// A gateway to everybody in `catalogue`.
pub(crate) fn open(
    catalogue: Catalogue,
    (queue, store, fetcher): (&Queue, &Store, &Fetcher),
) -> anyhow::Result<Gateway> {
    let house = House {
        queue: queue.clone(),
        store: store.clone(),
        fetcher: fetcher.clone(),
        now_ms: now_ms(),
        chance: Arc::new(chance),
        keep_ms: PICTURES_MS,
        roots: Vec::new(),
    };
    Ok(Gateway::new(house, catalogue)?)
}

/// A random number; the same one again and again where the system has none, which is as good for spreading load.
fn chance() -> u64 {
    getrandom::u64().unwrap_or_default()
}

/// Who serves which model, a line each.
pub(crate) fn shown(catalogue: &Catalogue) -> String {
    let line = |model: &Arc<zoetrope_gateway::catalogue::Model>| {
        let keys: Vec<&str> = model.deployments.iter().map(|one| one.key.as_str()).collect();
        format!("# {} is served by {}\n", model.id, keys.join(", "))
    };
    catalogue.models.iter().map(line).collect()
}

/// Reads the file again whenever it has changed, or on SIGHUP. With mistakes in it what was in force stays in force.
pub(crate) async fn follow(
    gateway: Gateway,
    file: File,
    environment: Environment,
    mut stop: watch::Receiver<bool>,
) {
    let mut known = file.text().unwrap_or_default();
    let mut hangup = Hangup::new();
    while !*stop.borrow() {
        let asked = tokio::select! {
            _ = stop.changed() => continue,
            () = hangup.came() => true,
            () = tokio::time::sleep(LOOK_PAUSE), if file.path.is_some() => false,
        };
        let text = match file.text() {
            Ok(text) if text == known && !asked => continue,
            Ok(text) => text,
            Err(_) if !asked => continue, // it is being replaced
            Err(error) => {
                tracing::error!("{error:#}; what was in force stays in force");
                continue;
            }
        };
        let read = file.parse(&text, &environment);
        known = text;
        let outcome = match read.and_then(|catalogue| Ok(gateway.replace(catalogue)?)) {
            Ok(()) => {
                tracing::info!("the gateway's configuration was read again");
                "taken"
            }
            Err(error) => {
                tracing::error!("{error:#}; what was in force stays in force");
                "refused"
            }
        };
        metrics::counter!("zoetrope_gateway_reloads_total", "outcome" => outcome).increment(1);
    }
}

/// Lets the gateway learn from what all nodes have measured.
pub(crate) async fn learn(gateway: Gateway, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        if let Err(error) = gateway.learn().await {
            tracing::warn!(%error, "what was measured could not be looked at; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(LEARN_PAUSE) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Lets the gateway and those of other servers tell each other which deployments are down.
pub(crate) async fn share(gateway: Gateway, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        if let Err(error) = gateway.share().await {
            tracing::warn!(%error, "other servers could not be told of deployments' health; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(SHARE_PAUSE) => {}
            _ = stop.changed() => {}
        }
    }
}

/// SIGHUP, where there is such a thing.
struct Hangup {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangup {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            signal: {
                use tokio::signal::unix::{SignalKind, signal};
                signal(SignalKind::hangup()).ok()
            },
        }
    }

    async fn came(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_s_names_mean_our_model_where_there_are_no_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let environment = Environment::read();
        let names = |text: &str, keys_required: bool| {
            std::fs::write(&path, text).unwrap();
            let file = File { path: Some(path.clone()), keys_required, edit_model: false };
            file.read(&environment).unwrap().resolve("gpt-image-1").is_ok()
        };
        assert!(names("queue_max = 3", false));
        assert!(!names("queue_max = 3", true));
        assert!(!names("[gateway.aliases]\nmine = \"z-image\"", false));
    }

    #[test]
    fn mistakes_are_told_together_with_the_file_s_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "[gateway.providers.fal]\n[gateway.routing]\ndeadline_seconds = 0")
            .unwrap();
        let file = File { path: Some(path), keys_required: true, edit_model: false };
        let error = format!("{:#}", file.read(&Environment::read()).unwrap_err());
        for part in ["config.toml", "gateway.providers.fal.key", "gateway.routing.deadline_seconds"]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
