//! `zoetrope keys`: who may use a server that others can reach.

use anyhow::bail;
use serde_json::json;
use zoetrope_api::{Micros, OnFlagged};
use zoetrope_jobs::{Key, KeyLimits, Limits, Period, Queue, Scope};
use zoetrope_server::keys::shown;

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
        #[command(flatten)]
        limits: LimitArgs,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say anew what a key may use; what is left out is no limit any more. Servers notice within seconds.
    Limit {
        /// The part before the colon.
        id: String,
        #[command(flatten)]
        limits: LimitArgs,
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

/// What a key may use of the models that are asked for by name.
#[derive(Clone, Debug, clap::Args)]
struct LimitArgs {
    /// Dollars that it may spend [default: no limit].
    #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
    budget: Option<Micros>,
    /// In which time: ever, or each month, of UTC.
    #[arg(long, value_name = "PERIOD", default_value = "ever", requires = "budget")]
    budget_period: PeriodName,
    /// Requests a minute, to all servers of the database together [default: no limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_minute: Option<u32>,
    /// Models that it may ask for, by name, by provider/name, or as patterns with * [default: all].
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    allow_models: Vec<String>,
    /// What becomes of its pictures that the safety checker finds unsafe: flag (they are delivered and said to be), blank (black
    /// ones are) or refuse (the request fails). With a policy, all its pictures are looked at, whatever requests say [default: only
    /// where requests ask for it; blank, and for models asked for by name refuse].
    #[arg(long, value_name = "POLICY")]
    on_flagged: Option<OnFlagged>,
}

fn dollars(text: &str) -> Result<Micros, String> {
    let dollars: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    let micros = Micros::of_dollars(dollars).filter(|micros| *micros >= Micros::ZERO);
    micros.ok_or_else(|| format!("the budget is {dollars}; it must be 0 or more dollars"))
}

impl LimitArgs {
    fn limits(&self) -> KeyLimits {
        let models = self.allow_models.iter().map(|name| name.trim().to_string());
        KeyLimits {
            budget_micros: self.budget.map(|micros| micros.0),
            budget_period: match self.budget_period {
                PeriodName::Ever => Period::Ever,
                PeriodName::Month => Period::Month,
            },
            requests_per_minute: self.requests_per_minute,
            models: models.filter(|name| !name.is_empty()).collect(),
            on_flagged: self.on_flagged.map(|policy| policy.to_string()),
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PeriodName {
    Ever,
    Month,
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
        Action::Create { alias, scope, concurrency, limits, json } => {
            let scope = match scope {
                ScopeName::Api => Scope::Api,
                ScopeName::Admin => Scope::Admin,
            };
            let (key, secret) = zoetrope_server::keys::make(alias, scope, *concurrency, now_ms()());
            let key = Key { limits: limits.limits(), ..key };
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
                true => println!(
                    "{}",
                    json!({"keys": keys.iter().map(|key| shown(key, time)).collect::<Vec<_>>()})
                ),
                false => keys.iter().for_each(print),
            }
        }
        Action::Limit { id, limits } => {
            let id = id.split(':').next().unwrap_or_default();
            if !queue.limit_key(id, &limits.limits()).await? {
                bail!("there is no key `{id}` in use; `zoetrope keys list` shows them");
            }
            println!("{id} has new limits");
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

fn print(key: &Key) {
    let state = key.revoked_ms.map_or("in use".into(), |at| format!("revoked {}", time(at)));
    let budget = key.limits.budget_micros.map(|micros| match key.limits.budget_period {
        Period::Ever => format!(" of {}", Micros(micros)),
        Period::Month => format!("; may spend {} a month", Micros(micros)),
    });
    println!(
        "{}  {:5}  {:4} at once  {}  {state}  spent {}{}  {}",
        key.id,
        scope(key),
        key.concurrency_max,
        time(key.created_ms),
        Micros(key.spent_micros),
        budget.unwrap_or_default(),
        key.alias
    );
}
