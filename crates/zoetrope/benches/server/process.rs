//! The server under load: a process of its own, so that its memory is its own too.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sqlx::Connection;

use crate::client::Client;

const START_MAX: Duration = Duration::from_secs(60);

/// A `zoetrope serve` process, killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server {
    /// A server on `database` (SQLite in a fresh folder where there is none), from the moment that it is ready.
    pub(crate) async fn start(database: Option<&str>, flags: &[&str]) -> anyhow::Result<Self> {
        let folder = private_folder()?;
        let address = free_address()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_zoetrope"));
        command.arg("serve").args(["--listen", &address.to_string(), "--tls-listen", "off"]);
        command.arg("--data-dir").arg(folder.path()).args(["--log", "warn"]).args(flags);
        if let Some(url) = database {
            command.args(["--database-url", &fresh_database(url).await?]);
        }
        let child = command.stdout(Stdio::null()).spawn().context("zoetrope serve")?;
        let mut server = Self { child, address, _folder: folder };
        server.ready().await?;
        Ok(server)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < START_MAX {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}");
            }
            if let Ok(mut client) = Client::connect(self.address).await
                && client.get("/readyz").await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the server was not ready within {START_MAX:?}")
    }

    /// Resident memory now and at most, in MB.
    pub(crate) fn memory_mb(&self) -> anyhow::Result<(u64, u64)> {
        let file = Path::new("/proc").join(self.child.id().to_string()).join("status");
        let text = std::fs::read_to_string(&file).context("memory is read from /proc")?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes =
                line.and_then(|rest| rest.trim_end_matches("kB").trim().parse::<u64>().ok());
            kilobytes
                .map(|kb| kb * 1024 / 1_000_000)
                .with_context(|| format!("{name} is not in {}", file.display()))
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended on its own
        let _ = self.child.wait();
    }
}

/// Another database beside the one at `url`, so that nothing of an earlier load waits in it.
pub(crate) async fn fresh_database(url: &str) -> anyhow::Result<String> {
    let mut fresh = url::Url::parse(url).context("--database-url")?;
    let name = format!("bench_{}", uuid::Uuid::now_v7().simple());
    let mut connection = sqlx::PgConnection::connect(url).await.context("--database-url")?;
    let statement = format!("CREATE DATABASE {name}");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
    fresh.set_path(&name);
    Ok(fresh.into())
}

/// Prompts and keys are in it.
fn private_folder() -> std::io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o700));
    }
    builder.tempdir()
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
