//! `zoetrope models`: what is in the hub's cache, getting more into it, and out again. Also how `--model HUB_ID` gets its files.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::environment::Environment;
use crate::{packed, pulled};
use zoetrope_files::hub::{self, Event, Extent, Part, Plan, Repo, Settings, gigabytes};

/// A safetensors header of Z-Image is some hundred kilobytes; this is where a file stops being one.
const HEADER_BYTES_MAX: u64 = 100 << 20;

/// Fetch, list and remove models.
#[derive(Debug, clap::Args)]
pub(crate) struct Models {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Download a model from the Hugging Face hub into its usual cache
    Pull {
        /// OWNER/NAME, perhaps with @REVISION; `safety` and `safety-clip` are checkers for --safety, `depth`, `depth-base` and `depth-large` networks for --depth-model
        id: String,
        /// Branch, tag or commit
        #[arg(long)]
        revision: Option<String>,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
    },
    /// List the models in the cache, and weights that were packed
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a model from the cache, or all packed weights
    Rm {
        /// OWNER/NAME for all of it, OWNER/NAME@REVISION for one snapshot, or `packed`
        id: String,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Show the files of a model, their sizes and kinds of numbers
    Info {
        /// OWNER/NAME[@REVISION] in the cache, or a directory
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the subcommand.
pub(crate) fn run(args: &Models, environment: &Environment) -> Result<()> {
    let settings = &environment.hub;
    match &args.action {
        Action::Pull { id, revision, yes } => {
            let mut repo: Repo = pulled::repository(id).parse()?;
            if let Some(revision) = revision {
                repo = repo.at(revision)?;
            }
            let model = fetch(settings, &repo, if *yes { Consent::Given } else { Consent::Ask })?;
            println!("{}", model.directory().display());
            Ok(())
        }
        Action::List { json } => list(environment, *json),
        Action::Rm { id, yes } => remove(environment, id, *yes),
        Action::Info { id, json } => info(settings, id, *json),
    }
}

/// A model's files, once they are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obtained {
    /// The diffusers layout.
    Directory(PathBuf),
    /// Weights as single files; tokenizer and configurations in a directory of the diffusers layout.
    Files { transformer: PathBuf, text_encoder: PathBuf, vae: PathBuf, configs: PathBuf },
}

impl Obtained {
    fn directory(&self) -> &Path {
        match self {
            Self::Directory(directory) => directory,
            Self::Files { transformer, .. } => transformer.parent().unwrap_or(transformer),
        }
    }
}

/// Whether a download may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Say what it costs and ask, if there is somebody to ask; else go on.
    Ask,
    /// Say what it costs and go on.
    Given,
}

/// A model from the cache, or else from the hub after saying what that costs.
pub(crate) fn obtain(settings: &Settings, repo: &Repo, consent: Consent) -> Result<Obtained> {
    match hub::find(settings, repo) {
        Some(directory) if known(repo).is_none() => Ok(Obtained::Directory(directory)),
        Some(snapshot) => repackaged(settings, repo, snapshot),
        None => fetch(settings, repo, consent),
    }
}

/// What the revision is on the hub now, whatever is in the cache.
fn fetch(settings: &Settings, repo: &Repo, consent: Consent) -> Result<Obtained> {
    let plan = hub::plan(settings, repo)?;
    let smaller = hub::repackaging_of(repo).filter(|known| known.bytes_about < plan.bytes_missing);
    let answer = if plan.is_complete() {
        Answer::Yes // links and refs may be missing, which costs nothing
    } else {
        announce(&plan, smaller);
        ask(consent, smaller.is_some())?
    };
    match (answer, smaller) {
        (Answer::No, _) => bail!("nothing was downloaded"),
        (Answer::Smaller, Some(smaller)) => {
            obtain(settings, &smaller.repository.parse()?, Consent::Given)
        }
        _ if known(repo).is_some() => repackaged(settings, repo, download(settings, &plan)?),
        _ => Ok(Obtained::Directory(download(settings, &plan)?)),
    }
}

fn known(repo: &Repo) -> Option<&'static hub::Repackaging> {
    hub::KNOWN.iter().find(|known| known.repository == repo.name())
}

/// The weights from a repackaging's snapshot, the small files from the original.
fn repackaged(settings: &Settings, repo: &Repo, snapshot: PathBuf) -> Result<Obtained> {
    let known = known(repo).context("no known repackaging")?;
    let of: Repo = known.of.parse()?;
    let configs = match hub::find_part(settings, &of, Part::Configs) {
        Some(configs) => configs,
        None => download(settings, &hub::plan_part(settings, &of, Part::Configs)?)?,
    };
    let [transformer, text_encoder, vae] = known.paths(&snapshot);
    Ok(Obtained::Files { transformer, text_encoder, vae, configs })
}

fn announce(plan: &Plan, smaller: Option<&hub::Repackaging>) {
    let total = gigabytes(plan.bytes_total);
    let some = plan.bytes_missing < plan.bytes_total;
    let rest = if some {
        format!(", {} of it still to come", gigabytes(plan.bytes_missing))
    } else {
        String::new()
    };
    eprintln!(
        "{}: {total} in {} files{rest}, into {}",
        plan.repo,
        plan.files.len(),
        plan.cache_dir.display()
    );
    if let Some(known) = smaller {
        eprintln!(
            "The same model in bfloat16, about {}: {}",
            gigabytes(known.bytes_about),
            known.repository
        );
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    Smaller,
}

fn ask(consent: Consent, smaller: bool) -> Result<Answer> {
    if consent == Consent::Given
        || !std::io::stdin().is_terminal()
        || !std::io::stderr().is_terminal()
    {
        return Ok(Answer::Yes);
    }
    let question =
        if smaller { "Download? [y]es, [s]maller one, [N]o: " } else { "Download? [y]es, [N]o: " };
    Ok(match prompt(question)?.as_str() {
        "y" | "yes" => Answer::Yes,
        "s" | "smaller" if smaller => Answer::Smaller,
        _ => Answer::No,
    })
}

fn prompt(question: &str) -> Result<String> {
    eprint!("{question}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_lowercase())
}

/// Pulls with a bar for the whole and one for each file that is on its way.
fn download(settings: &Settings, plan: &Plan) -> Result<PathBuf> {
    let bars = MultiProgress::new();
    let style = |template: &str| {
        ProgressStyle::with_template(template).map(|style| style.progress_chars("━━╌"))
    };
    let whole = bars.add(ProgressBar::new(plan.bytes_total).with_style(style(
        "{bar:32} {bytes:>10} of {total_bytes}  {bytes_per_sec:>12}  {eta} left",
    )?));
    whole.enable_steady_tick(Duration::from_millis(250));
    let each = style("  {bar:30} {bytes:>10} of {total_bytes}  {msg}")?;
    let file_bars: Vec<ProgressBar> = plan
        .files
        .iter()
        .map(|file| ProgressBar::hidden().with_message(file.name.clone()))
        .collect();
    for (bar, file) in file_bars.iter().zip(&plan.files) {
        bar.set_length(file.bytes);
        bar.set_style(each.clone());
    }
    let shown: Vec<std::sync::Once> = plan.files.iter().map(|_| std::sync::Once::new()).collect();
    let progress = |event: Event| {
        let (Event::Position { file, .. }
        | Event::Waiting { file }
        | Event::Retrying { file, .. }
        | Event::Finished { file }) = event;
        let (bar, name) = (&file_bars[file], &plan.files[file].name);
        shown[file].call_once(|| drop(bars.add(bar.clone())));
        match &event {
            Event::Position { bytes, .. } => bar.set_position(*bytes),
            Event::Waiting { .. } => {
                bar.set_message(format!("{name} (another process downloads it)"))
            }
            Event::Retrying { wait, why, .. } => {
                bar.set_message(format!("{name} ({why}; again in {} s)", wait.as_secs()))
            }
            Event::Finished { .. } => bar.finish_and_clear(),
        }
        if matches!(event, Event::Position { .. }) {
            whole.set_position(file_bars.iter().map(ProgressBar::position).sum());
        }
        ControlFlow::Continue(())
    };
    let snapshot = hub::pull(settings, plan, &progress);
    whole.finish_and_clear();
    Ok(snapshot?)
}

fn list(environment: &Environment, as_json: bool) -> Result<()> {
    let entries = hub::list(&environment.hub)?;
    if as_json {
        let mut models = vec![json!({ "id": "demo", "embedded": true, "complete": true })];
        let dir = &environment.packed_dir;
        let files = packed::as_json(environment)?;
        models.extend(entries.iter().map(|entry| {
            json!({
                "id": entry.repo.name(), "embedded": false, "complete": entry.complete, "commit": entry.commit, "refs": entry.refs,
                "path": entry.path, "bytes": entry.bytes, "bytes_partial": entry.bytes_partial,
            })
        }));
        models.push(json!({ "id": packed::NAME, "embedded": false, "complete": true, "path": dir, "files": files }));
        println!("{}", serde_json::to_string_pretty(&models)?);
        return Ok(());
    }
    let mut rows = vec![
        ["MODEL", "REVISION", "SIZE", ""].map(String::from),
        ["demo", "embedded", "", "complete"].map(String::from),
    ];
    rows.extend(entries.iter().map(|entry| {
        let short = entry.commit.as_deref().map_or("", |commit| &commit[..commit.len().min(8)]);
        let revision = [entry.refs.join(", ").as_str(), short].join(" ");
        let size = entry.bytes + if entry.complete { 0 } else { entry.bytes_partial };
        let state = if entry.complete { "complete" } else { "incomplete: pull again to go on" };
        [entry.repo.name().into(), revision.trim().into(), gigabytes(size), state.into()]
    }));
    for (what, bytes) in packed::entries(environment)? {
        rows.push([packed::NAME.into(), what, gigabytes(bytes), "complete".into()]);
    }
    print!("{}", aligned(&rows, 2));
    Ok(())
}

fn remove(environment: &Environment, id: &str, yes: bool) -> Result<()> {
    let settings = &environment.hub;
    let packed = id == packed::NAME;
    let dir = if packed { &environment.packed_dir } else { &settings.cache_dir };
    let name = pulled::repository(id);
    let repo = if packed { None } else { Some(name.parse::<Repo>()?) };
    let extent = if id.contains('@') { Extent::Revision } else { Extent::Repository };
    if !yes {
        if !std::io::stdin().is_terminal() {
            bail!(
                "`zoetrope models rm` asks first, and there is no terminal to ask on. Add --yes."
            );
        }
        let question = format!("Remove {id} from {}? [y]es, [N]o: ", dir.display());
        if !matches!(prompt(&question)?.as_str(), "y" | "yes") {
            bail!("nothing was removed");
        }
    }
    let freed = match repo {
        Some(repo) => hub::remove(settings, &repo, extent)?,
        None => packed::clear(environment)?,
    };
    println!("{} freed", gigabytes(freed));
    Ok(())
}

fn info(settings: &Settings, id: &str, as_json: bool) -> Result<()> {
    let dir = match Path::new(id).is_dir() {
        true => PathBuf::from(id),
        false => cached(settings, &pulled::repository(id).parse()?)?,
    };
    let mut files = Vec::new();
    walk(&dir, &dir, &mut files)?;
    files.sort();
    let licence = licence(&dir);
    let kinds: Vec<Option<String>> =
        files.iter().map(|(name, _)| dtypes(&dir.join(name))).collect();
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    if as_json {
        let files: Vec<Value> = files
            .iter()
            .zip(&kinds)
            .map(|((name, bytes), kind)| json!({ "name": name, "bytes": bytes, "dtype": kind }))
            .collect();
        let model = json!({ "path": dir, "licence": licence, "bytes": total, "files": files });
        println!("{}", serde_json::to_string_pretty(&model)?);
        return Ok(());
    }
    println!("{}", dir.display());
    println!("licence: {}\n", licence.as_deref().unwrap_or("not stated"));
    let row = |((name, bytes), kind): (&(String, u64), &Option<String>)| {
        [name.clone(), gigabytes(*bytes), kind.clone().unwrap_or_default()]
    };
    let mut rows: Vec<[String; 3]> = files.iter().zip(&kinds).map(row).collect();
    rows.push(["together".into(), gigabytes(total), String::new()]);
    print!("{}", aligned(&rows, 1));
    Ok(())
}

/// The snapshot's folder, of an incomplete model too.
fn cached(settings: &Settings, repo: &Repo) -> Result<PathBuf> {
    let is_it = |entry: &hub::Entry| {
        let revision = repo.revision();
        entry.repo.name() == repo.name()
            && (entry.refs.iter().any(|name| name == revision)
                || entry.commit.as_deref() == Some(revision)
                || revision == hub::MAIN)
    };
    let entry = hub::list(settings)?.into_iter().find(is_it);
    let missing =
        || hub::Error::NotCached { id: repo.to_string(), dir: settings.cache_dir.clone() };
    Ok(entry.ok_or_else(missing)?.path)
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<(String, u64)>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(root, &path, files)?;
        } else if let (Ok(name), Ok(meta)) = (path.strip_prefix(root), std::fs::metadata(&path)) {
            files.push((name.to_string_lossy().into_owned(), meta.len()));
        }
    }
    Ok(())
}

/// The kinds of numbers in a safetensors file, the most frequent first; `None` for other files.
fn dtypes(path: &Path) -> Option<String> {
    if path.extension()? != "safetensors" {
        return None;
    }
    let mut file = std::fs::File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES_MAX || length > file.metadata().ok()?.len() {
        return Some("damaged".into());
    }
    let header: serde_json::Map<String, Value> = serde_json::from_reader(file.take(length)).ok()?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for kind in header.values().filter_map(|tensor| tensor.get("dtype")?.as_str()) {
        *counts.entry(kind.to_lowercase()).or_default() += 1;
    }
    let mut kinds: Vec<_> = counts.into_iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Some(kinds.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>().join(", "))
}

/// `license:` of the readme's front matter.
fn licence(dir: &Path) -> Option<String> {
    let readme = std::fs::read_to_string(dir.join("README.md")).ok()?;
    let (front, _) = readme.strip_prefix("---")?.split_once("\n---")?;
    let line = front.lines().find_map(|line| line.strip_prefix("license:"))?;
    Some(line.trim().trim_matches(['"', '\'']).to_string()).filter(|licence| !licence.is_empty())
}

/// Rows as columns, that one flush right which holds sizes.
fn aligned<const N: usize>(rows: &[[String; N]], right: usize) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cell = |(i, text): (usize, &String)| {
            if i == right {
                format!("{text:>0$}", widths[i])
            } else {
                format!("{text:<0$}", widths[i])
            }
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_string()
            + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a", "1.0 GB", "x"], ["long", "10 MB", ""]].map(|row| row.map(String::from));
        assert_eq!(aligned(&rows, 1), "a     1.0 GB  x\nlong   10 MB\n");
    }

    #[test]
    fn a_directory_tells_its_licence_and_its_numbers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("README.md"),
            "---\ntags: []\nlicense: \"apache-2.0\"\n---\n# Model\n",
        )
        .unwrap();
        assert_eq!(licence(dir.path()), Some("apache-2.0".into()));
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/turbo/model");
        assert_eq!(dtypes(&fixture.join("model_index.json")), None);
        assert!(
            dtypes(&fixture.join("vae/diffusion_pytorch_model.safetensors"))
                .is_some_and(|kinds| kinds != "damaged")
        );
        assert_eq!(licence(&fixture), None);
    }
}
