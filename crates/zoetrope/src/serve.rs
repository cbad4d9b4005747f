//! `zoetrope serve`: the server, its worker, and everything that keeps house around them, until a signal.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;
use zoetrope_api::fal::Endpoint;
use zoetrope_arena::Arena;
use zoetrope_jobs::{Limits, Queue};
use zoetrope_server::listen::{self, Authority, Options};
use zoetrope_server::{App, Settings};

use crate::environment::Environment;
use crate::place::{Place, Running, now_ms};
use crate::{drawing, gateway, logs, signals};

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where HTTP is answered, and CONNECT to fal's names. Any address but loopback needs keys.
    #[arg(long, env = "ZOETROPE_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7860")]
    pub(crate) listen: SocketAddr,
    /// Where the same is answered over TLS with the local authority's certificate, or `off`.
    #[arg(
        long,
        env = "ZOETROPE_TLS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7861"
    )]
    tls_listen: TlsListen,
    /// A further name that the certificate is for; may be given several times.
    #[arg(long, env = "ZOETROPE_TLS_NAMES", value_name = "NAME", value_delimiter = ',')]
    tls_names: Vec<String>,
    /// Where this server is reached from elsewhere, as https://pictures.example [default: as each request reached it].
    #[arg(long, env = "ZOETROPE_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,
    /// Ask for keys on loopback too.
    #[arg(long, env = "ZOETROPE_REQUIRE_KEYS", value_parser = clap::builder::BoolishValueParser::new())]
    require_keys: bool,
    /// Answer only; workers elsewhere draw.
    #[arg(long, env = "ZOETROPE_NO_WORKER", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) no_worker: bool,
    /// Requests that may wait; more are answered with 503.
    #[arg(long, env = "ZOETROPE_QUEUE_MAX", value_name = "N", default_value_t = 100_000,
        value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) queue_max: i64,
    /// Requests of one key that may wait; more are answered with 429. Without keys only --queue-max counts.
    #[arg(long, env = "ZOETROPE_KEY_QUEUE_MAX", value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(i64).range(1..))]
    key_queue_max: i64,
    /// Requests without a key that may run at once; keys have their own number.
    #[arg(long, env = "ZOETROPE_CONCURRENCY_MAX", value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(i64).range(1..))]
    concurrency_max: i64,
    /// Megabytes of one uploaded file.
    #[arg(long, env = "ZOETROPE_UPLOAD_MB_MAX", value_name = "MB", default_value_t = 4096,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    upload_mb_max: u64,
    /// Days after which requests and their files are forgotten.
    #[arg(long, env = "ZOETROPE_KEEP_DAYS", value_name = "DAYS", default_value_t = 30.0)]
    keep_days: f64,
    /// Dollars a unit of an endpoint, a megapixel or 1000 steps of a training, for the history [default: fal's]; a table in the file.
    #[arg(long, value_name = "ENDPOINT=DOLLARS", value_parser = price)]
    pub(crate) prices: Vec<(String, f64)>,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    drawing: drawing::Args,
    #[command(flatten)]
    logs: logs::Args,
}

/// An address, or none.
#[derive(Clone, Copy, Debug)]
struct TlsListen(Option<SocketAddr>);

impl FromStr for TlsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            _ => text.parse().map(|address| Self(Some(address))).map_err(|_| {
                "write an address and a port, as 127.0.0.1:7861, or `off`".to_string()
            }),
        }
    }
}

fn price(text: &str) -> Result<(String, f64), String> {
    let (endpoint, dollars) = text.rsplit_once('=').ok_or("write ENDPOINT=DOLLARS")?;
    let dollars: f64 = dollars.trim().parse().map_err(|_| format!("`{dollars}` is no number"))?;
    if !(0.0..1e6).contains(&dollars) {
        return Err(format!("the price is {dollars}; it must be 0 or more dollars"));
    }
    match Endpoint::find(endpoint.trim()) {
        Some(endpoint) => Ok((endpoint.id.into(), dollars)),
        None => Err(format!("there is no endpoint `{endpoint}`")),
    }
}

pub(crate) fn run(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    args.check(environment)?;
    let _exporter = logs::start(&args.logs, "zoetrope")?;
    signals::runtime()?.block_on(serve(args, environment))
}

impl Args {
    /// Everything that can be wrong without starting; what is in force, as a file would have it.
    pub(crate) fn check(&self, environment: &Environment) -> anyhow::Result<String> {
        logs::filter(&self.logs)?;
        self.drawing.check(environment)?;
        if !(self.keep_days > 0.0 && self.keep_days < 1e6) {
            bail!("--keep-days {}: give a number of days above 0", self.keep_days);
        }
        if let Some(url) = &self.public_url {
            let parsed = Url::parse(url).with_context(|| format!("--public-url {url}"))?;
            let web = matches!(parsed.scheme(), "http" | "https") && parsed.host_str().is_some();
            if !web || parsed.path() != "/" || parsed.query().is_some() {
                bail!("--public-url {url}: write a scheme and a host, as https://pictures.example");
            }
        }
        let folder = self.place.folder(environment)?;
        let tls = self.tls_listen.0.map_or("off".into(), |address| address.to_string());
        let storage = self.place.storage.clone();
        let storage = storage.unwrap_or_else(|| folder.join("files").display().to_string());
        let mut out = String::new();
        let mut say = |name: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(out, "{name} = {value}"); // a String takes everything
        };
        say("listen", &format!("{:?}", self.listen.to_string()));
        say("tls_listen", &format!("{tls:?}"));
        say("data_dir", &format!("{:?}", folder.display().to_string()));
        say("database_url", &format!("{:?}", without_password(&self.place.database(&folder))));
        say("storage", &format!("{storage:?}"));
        say("model", &format!("{:?}", self.drawing.model));
        say("no_worker", &self.no_worker);
        say("require_keys", &self.keys_required());
        say("queue_max", &self.queue_max);
        say("key_queue_max", &self.key_queue_max);
        say("concurrency_max", &self.concurrency_max);
        say("upload_mb_max", &self.upload_mb_max);
        say("keep_days", &self.keep_days);
        say("drain_seconds", &self.drawing.drain_seconds);
        out.push_str(&gateway::shown(&self.gateway_file().read(environment)?));
        Ok(out)
    }

    fn gateway_file(&self) -> gateway::File {
        gateway::File {
            path: self.place.config.clone(),
            keys_required: self.keys_required(),
            edit_model: self.drawing.edit_model.is_some(),
        }
    }

    fn keep_ms(&self) -> i64 {
        (self.keep_days * 86_400_000.0) as i64
    }

    fn limits(&self) -> Limits {
        let owner = if self.keys_required() { self.key_queue_max } else { self.queue_max };
        Limits { queued_max: self.queue_max, owner_queued_max: owner, ..self.drawing.limits() }
    }

    fn keys_required(&self) -> bool {
        let addresses = [Some(self.listen), self.tls_listen.0];
        let open = addresses.iter().flatten().any(|address| !address.ip().is_loopback());
        self.require_keys || open
    }

    fn settings(
        &self,
        environment: &Environment,
        queue: &Queue,
        address: String,
        (metrics, stop): (PrometheusHandle, watch::Receiver<bool>),
    ) -> anyhow::Result<Settings> {
        let (store, fetcher) = (self.place.store(environment)?, self.drawing.fetcher(environment)?);
        Ok(Settings {
            queue: queue.clone(),
            gateway: gateway::open(
                self.gateway_file().read(environment)?,
                (queue, &store, &fetcher),
            )?,
            store,
            fetcher,
            address,
            public_url: self.public_url.as_ref().map(|url| url.trim_end_matches('/').into()),
            keys_required: self.keys_required(),
            upload_bytes_max: self.upload_mb_max << 20,
            concurrency_max: self.concurrency_max,
            prices: self.prices.iter().cloned().collect(),
            draws_at: self.drawing.draws_at()?,
            now_ms: now_ms(),
            keep_ms: self.keep_ms(),
            stop,
            metrics,
        })
    }
}

fn without_password(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) if url.password().is_some() => match url.set_password(Some("…")) {
            Ok(()) => url.to_string(),
            Err(()) => "…".into(),
        },
        _ => url.into(),
    }
}

async fn serve(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    signals::prepare();
    let metrics = signals::metrics()?;
    let queue = args.place.queue(environment, args.limits()).await?;
    refuse_without_keys(args, &queue).await?;
    let plain = bind("--listen", args.listen).await?;
    let tls = match args.tls_listen.0 {
        Some(address) => Some(bind("--tls-listen", address).await?),
        None => None,
    };
    let authority = Authority::open(&args.place.authority(environment)?, &args.tls_names)?;
    let address = reached("http", plain.local_addr()?);
    let stop = signals::stop();
    let settings = args.settings(environment, &queue, address.clone(), (metrics, stop.clone()))?;
    let (store, gateway) = (settings.store.clone(), settings.gateway.clone());
    let files = store.clone();
    args.place.probe(&store).await?;
    let app = App::open(settings).await?;
    let mut house = JoinSet::new();
    if !args.no_worker {
        for worker in args.drawing.workers(&args.place, environment, (queue.clone(), store))? {
            house.spawn(worker.run(stop.clone()));
        }
    }
    house.spawn(zoetrope_server::keep_house(app.clone(), args.keep_ms(), stop.clone()));
    house.spawn(zoetrope_server::deliver(app.clone(), stop.clone()));
    house.spawn(gateway::learn(gateway.clone(), stop.clone()));
    house.spawn(gateway::share(gateway.clone(), stop.clone()));
    let arena = Arena::new(queue.clone(), files, gateway.clone(), now_ms());
    house.spawn(zoetrope_arena::drawing::draw(arena, stop.clone()));
    let (file, named) = (args.gateway_file(), environment.clone());
    house.spawn(gateway::follow(gateway.clone(), file, named, stop.clone()));

    let running = Running {
        pid: std::process::id(),
        tls_address: tls.as_ref().map(|l| l.local_addr()).transpose()?.map(|a| reached("https", a)),
        address,
        keys_required: args.keys_required(),
    };
    let note = Note::write(args.place.running_file(environment)?, &running)?;
    let listeners = listeners(args, &app, (plain, tls), &authority, &stop);
    println!("zoetrope answers at {}", running.address);
    if let Some(address) = &running.tls_address {
        println!("and at {address}, trusted by whoever trusts {}", authority.ca_path().display());
    }
    listeners.join_all().await;
    house.join_all().await;
    app.settle().await;
    gateway.settle().await;
    drop(note);
    queue.close().await;
    Ok(())
}

/// Whoever is not at this machine needs a key, and so there must be one.
async fn refuse_without_keys(args: &Args, queue: &Queue) -> anyhow::Result<()> {
    if args.keys_required() && !queue.keys().await?.iter().any(|key| key.revoked_ms.is_none()) {
        bail!(
            "{} needs keys, and there is none. Make one with `zoetrope keys create` and the same --data-dir or --database-url, \
             or listen on 127.0.0.1",
            if args.require_keys {
                "--require-keys".into()
            } else {
                format!("--listen {}", args.listen)
            }
        );
    }
    Ok(())
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{flag} {address} cannot be listened on; stop what uses it, or choose another port")
    })
}

/// Both listeners answer alike; tunnels to fal's names end here too.
fn listeners(
    args: &Args,
    app: &App,
    (plain, tls): (TcpListener, Option<TcpListener>),
    authority: &Authority,
    stop: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let router = zoetrope_server::app_with(app.clone(), zoetrope_web::router(app.clone()));
    let public = args.public_url.as_deref().and_then(|url| Url::parse(url).ok());
    let own = public.and_then(|url| url.host_str().map(String::from));
    let options = Options {
        tunnel: Some(authority.server_config()),
        own: own.into_iter().collect(),
        drain: args.drawing.drain(),
        connections_max: signals::connections_max(),
        ..Options::default()
    };
    let mut out = JoinSet::new();
    if let Some(listener) = tls {
        let options = Options { tls: Some(authority.server_config()), ..options.clone() };
        out.spawn(listen::serve(listener, router.clone(), options, stop.clone()));
    }
    out.spawn(listen::serve(plain, router, options, stop.clone()));
    out
}

/// How this machine reaches what listens at `address`.
fn reached(scheme: &str, mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{address}")
}

/// What a running server writes about itself, gone with it.
struct Note(PathBuf);

impl Note {
    fn write(file: PathBuf, running: &Running) -> anyhow::Result<Self> {
        zoetrope_files::write(&file, &serde_json::to_vec_pretty(running)?)?;
        Ok(Self(file))
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // another server may have taken its place
    }
}
