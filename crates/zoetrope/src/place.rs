//! Where requests and files are kept: options that every subcommand around the server shares.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use zoetrope_files::{Name, Store};
use zoetrope_jobs::{Limits, Queue};

use crate::environment::Environment;

/// What was typed about it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// A TOML file with any of the options below, named as here with _ for -; variables and flags go before it
    /// [default: zoetrope/config.toml in the user's configuration folder, if it is there].
    #[arg(long, global = true, env = "ZOETROPE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The folder for the database, files, certificates and caches [default: zoetrope in the user's data folder].
    #[arg(long, global = true, env = "ZOETROPE_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// sqlite://FILE or postgres://USER:PASSWORD@HOST/NAME [default: a file in the data folder].
    #[arg(
        long,
        global = true,
        env = "ZOETROPE_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        hide_default_value = true // the file's, which may hold a password
    )]
    pub(crate) database_url: Option<String>,
    /// A folder, or s3://BUCKET/PREFIX with the usual AWS_ variables [default: a folder in the data folder].
    #[arg(long, global = true, env = "ZOETROPE_STORAGE", value_name = "URL")]
    pub(crate) storage: Option<String>,
    /// More about the storage, as aws_endpoint=http://127.0.0.1:9000; a table in the file. May be given several times.
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = pair, hide_default_value = true)]
    pub(crate) storage_options: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().into()))
}

/// What is written about a running server, for the commands beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    /// As `http://127.0.0.1:7860`.
    pub(crate) address: String,
    /// As `https://127.0.0.1:7861`.
    pub(crate) tls_address: Option<String>,
    pub(crate) keys_required: bool,
}

impl Place {
    /// The data folder, made if it is missing.
    pub(crate) fn folder(&self, environment: &Environment) -> anyhow::Result<PathBuf> {
        let folder = self.data_dir.clone().unwrap_or_else(|| environment.data_dir.clone());
        if !folder.is_dir() {
            make_private(&folder)
                .with_context(|| format!("--data-dir {}: cannot be made", folder.display()))?;
        }
        warn_if_open(&folder);
        folder.canonicalize().with_context(|| format!("--data-dir {}", folder.display()))
    }

    /// The database's address.
    pub(crate) fn database(&self, folder: &Path) -> String {
        let file = folder.join("zoetrope.sqlite");
        let default = || format!("sqlite://{}?mode=rwc", file.display());
        match &self.database_url {
            // Without a mode a missing file would be an error.
            Some(url) if url.starts_with("sqlite:") && !url.contains('?') => {
                format!("{url}?mode=rwc")
            }
            Some(url) => url.clone(),
            None => default(),
        }
    }

    /// Opens the queue.
    pub(crate) async fn queue(
        &self,
        environment: &Environment,
        limits: Limits,
    ) -> anyhow::Result<Queue> {
        let url = self.database(&self.folder(environment)?);
        // The address may hold a password, so that the message does not repeat it.
        let clock = zoetrope_jobs::shared_clock(&url, now_ms()).await;
        let clock = clock.context("the database (--database-url)")?;
        let settings = zoetrope_jobs::Settings { url, limits, now_ms: clock };
        Queue::open(settings).await.context("the database (--database-url)")
    }

    /// Opens the store.
    pub(crate) fn store(&self, environment: &Environment) -> anyhow::Result<Store> {
        let folder = self.folder(environment)?.join("files");
        let address = self.storage.clone().unwrap_or_else(|| folder.display().to_string());
        let mut options = Vec::new();
        if address.starts_with("s3://") {
            options.extend(environment.aws.iter().cloned());
            options.extend(self.storage_options.iter().cloned()); // the later one counts
        }
        Store::open(&address, &options).context("--storage")
    }

    /// Looks whether the store answers: with a wrong key every request would fail, and late.
    pub(crate) async fn probe(&self, store: &Store) -> anyhow::Result<()> {
        let looked = store.head(&Name::new("probe")).await;
        looked.map(drop).context("--storage cannot be used; look at its address, keys and options")
    }

    /// The certificate authority's folder.
    pub(crate) fn authority(&self, environment: &Environment) -> anyhow::Result<PathBuf> {
        Ok(self.folder(environment)?.join("ca"))
    }

    /// Where a running server writes what it is.
    pub(crate) fn running_file(&self, environment: &Environment) -> anyhow::Result<PathBuf> {
        Ok(self.folder(environment)?.join("server.json"))
    }

    /// What the server on this data folder wrote, if one runs.
    pub(crate) fn running(&self, environment: &Environment) -> anyhow::Result<Option<Running>> {
        let text = std::fs::read(self.running_file(environment)?).ok();
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }
}

/// A folder that was there before is left as it is.
fn warn_if_open(folder: &Path) {
    #[cfg(unix)]
    if let Ok(about) = std::fs::metadata(folder)
        && std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o077 != 0
    {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| {
            let shown = folder.display();
            eprintln!("note: other users of this machine can look into {shown}, where prompts and keys are; chmod 700 closes it");
        });
    }
}

/// Prompts, pictures and the keys that webhooks are signed with are nobody else's.
fn make_private(folder: &Path) -> std::io::Result<()> {
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()), // another was faster
        made => made,
    }
}

/// The clock that everything is given.
pub(crate) fn now_ms() -> Arc<dyn Fn() -> i64 + Send + Sync> {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as i64
    })
}
