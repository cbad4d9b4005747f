//! `zoetrope keys`: who may use a server that others can reach.

use anyhow::bail;
use serde_json::json;
use zoetrope_jobs::{Key, Limits, Queue, Scope};

use crate::environment::Environment;
use crate::place::{Place, now_ms};
use crate::requests::time;
use crate::signals;

/// Make, list and revoke the keys of a server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a key and print it; it is shown this once.
    Create {
        /// What it is called in lists.
        #[arg(long, default_value = "")]
        alias: String,
        /// api calls models and sees its own requests; admin sees and does everything.
        #[arg(long, default_value = "api")]
        scope: ScopeName,
        /// Its requests that may run at once.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        concurrency: i64,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// List all keys, without their secrets.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a key; servers notice within seconds.
    Revoke {
        /// The part before the colon.
        id: String,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ScopeName {
    Api,
    Admin,
}

pub(crate) fn run(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    signals::runtime()?.block_on(async {
        let queue = args.place.queue(environment, Limits::default()).await?;
        let done = act(&args.action, &queue).await;
        queue.close().await;
        done
    })
}

async fn act(action: &Action, queue: &Queue) -> anyhow::Result<()> {
    match action {
        Action::Create { alias, scope, concurrency, json } => {
            let scope = match scope {
                ScopeName::Api => Scope::Api,
                ScopeName::Admin => Scope::Admin,
            };
            let (key, secret) = zoetrope_server::keys::make(alias, scope, *concurrency, now_ms()());
            queue.insert_key(&key).await?;
            match json {
                true => {
                    println!("{}", json!({"key_id": key.id, "key": secret, "alias": key.alias}))
                }
                false => println!("{secret}"),
            }
        }
        Action::List { json } => {
            let keys = queue.keys().await?;
            match json {
                true => println!("{}", json!({"keys": keys.iter().map(shown).collect::<Vec<_>>()})),
                false => keys.iter().for_each(print),
            }
        }
        Action::Revoke { id } => {
            let id = id.split(':').next().unwrap_or_default(); // whoever pastes the whole key means the same
            if !queue.revoke_key(id).await? {
                bail!("there is no key `{id}` in use; `zoetrope keys list` shows them");
            }
            println!("{id} is revoked");
        }
    }
    Ok(())
}

fn scope(key: &Key) -> &'static str {
    match key.scope {
        Scope::Api => "api",
        Scope::Admin => "admin",
    }
}

fn shown(key: &Key) -> serde_json::Value {
    json!({
        "key_id": key.id,
        "alias": key.alias,
        "scope": scope(key),
        "concurrency": key.concurrency_max,
        "created_at": time(key.created_ms),
        "revoked_at": key.revoked_ms.map(time),
    })
}

fn print(key: &Key) {
    let state = key.revoked_ms.map_or("in use".into(), |at| format!("revoked {}", time(at)));
    println!(
        "{}  {:5}  {:4} at once  {}  {state}  {}",
        key.id,
        scope(key),
        key.concurrency_max,
        time(key.created_ms),
        key.alias
    );
}
