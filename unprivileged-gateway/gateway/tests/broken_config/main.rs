//! Broken configuration files and what is said about each.
//!
//! `NN-name.yaml` is a file with a mistake somebody makes, `NN-name.txt` the whole answer. After a deliberate change of wording run
//! with `BULKHEAD_REGENERATE=1` and read the difference before committing it.

use gateway::config::{Imagined, Request, load};
use std::error::Error;
use std::path::PathBuf;

/// Stands for every secret in the files; no answer may hold it.
const MARKER: &str = "hunter2";
/// At least so many broken files are kept.
const FILES_MIN: usize = 20;

fn answer(file: PathBuf) -> String {
    let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let surroundings = Imagined {
        variables: [("HOME", "/home/someone"), ("SIZE_WITHOUT_UNIT", "42")].map(variable).into(),
        host_name: Some("n1".to_owned()),
        ..Imagined::default()
    };
    match load(&Request { files: vec![file], ..Request::default() }, &surroundings) {
        Ok(loaded) => format!("NOT REFUSED\n{}", loaded.findings.render()),
        Err(findings) => format!("{findings}\n"),
    }
}

#[test]
fn every_broken_file_is_answered_as_stored() -> Result<(), Box<dyn Error>> {
    // Relative, because the answer names the file as it was given.
    let folder = PathBuf::from("tests/broken_config");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    files.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    assert!(files.len() >= FILES_MIN, "only {} broken files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let answer = answer(file.clone());
        assert!(!answer.contains(MARKER), "{} shows a secret:\n{answer}", file.display());
        let stored = file.with_extension("txt");
        if std::env::var_os("BULKHEAD_REGENERATE").is_some() {
            std::fs::write(&stored, &answer)?;
        }
        if std::fs::read_to_string(&stored).unwrap_or_default() != answer || answer.starts_with("NOT REFUSED") {
            wrong.push(format!("{}:\n{answer}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{} answers differ from what is stored:\n\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
