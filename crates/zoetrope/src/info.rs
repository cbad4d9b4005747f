//! `zoetrope info`: the parameters that are stored in a picture.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::Value;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A picture that zoetrope made: PNG, JPEG, WebP or AVIF.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let bytes = std::fs::read(&args.file).with_context(|| args.file.display().to_string())?;
    let Some(text) = zoetrope_files::read_parameters(&bytes) else {
        bail!(
            "{}: holds no parameters; it was not made by zoetrope, or its metadata was removed",
            args.file.display()
        );
    };
    let json: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    match &json {
        Value::Object(fields) if !args.json => {
            for (name, value) in fields {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
                println!("{name:>18}  {value}");
            }
        }
        _ => println!("{}", serde_json::to_string_pretty(&json)?),
    }
    Ok(())
}
