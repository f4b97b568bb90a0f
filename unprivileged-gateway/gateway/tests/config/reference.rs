//! The reference in docs/ against the types: schema, tables and examples.
//!
//! Like a proof-reader with the manuscript beside the print: what the types say is written out again and held against what is
//! committed. `BULKHEAD_REGENERATE=1` writes it instead. The weakness: prose between the tables is nobody's but the reader's.

use super::{Test, load_texts};
use gateway::cli;
use gateway::config;
use serde_json::Value as Json;
use std::error::Error;
use std::path::{Path, PathBuf};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// Compares a committed file with what it is derived from, or writes it.
fn is_current(path: &Path, text: &str) -> Test {
    if std::env::var_os("BULKHEAD_REGENERATE").is_some() {
        std::fs::write(path, text)?;
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == text, "{} is not current; run with BULKHEAD_REGENERATE=1", path.display());
    Ok(())
}

#[test]
fn the_committed_schema_is_the_one_of_the_types() -> Test {
    let mut text = Vec::new();
    cli::config_schema(&mut text)?;
    is_current(&docs().join("config.schema.json"), &String::from_utf8(text)?)
}

#[test]
fn the_tables_of_the_reference_are_those_of_the_types() -> Test {
    let path = docs().join("configuration.md");
    let stored = std::fs::read_to_string(&path)?;
    let schema = config::schema();
    let (mut text, mut rest, mut listed) = (String::new(), stored.as_str(), Vec::new());
    while let Some((before, after)) = rest.split_once("<!-- keys of ") {
        let (section, after) = after.split_once(" -->\n").ok_or("an open marker")?;
        let (_, after) = after.split_once("<!-- end -->").ok_or("a table without its end")?;
        text.push_str(&format!(
            "{before}<!-- keys of {section} -->\n{}<!-- end -->",
            table(&schema, section, &mut listed)?
        ));
        rest = after;
    }
    text.push_str(rest);
    let mut every = Vec::new();
    leaves(&schema, &schema, "", &mut every);
    every.retain(|path| !listed.contains(path));
    assert!(every.is_empty(), "no table of docs/configuration.md lists {every:?}");
    is_current(&path, &text)
}

fn resolve<'a>(schema: &'a Json, node: &'a Json) -> &'a Json {
    let name = node.get("$ref").and_then(Json::as_str).and_then(|reference| reference.strip_prefix("#/$defs/"));
    name.and_then(|name| schema.get("$defs")?.get(name)).unwrap_or(node)
}

/// The schema at a path; `NAME` steps into a map of free names.
fn at<'a>(schema: &'a Json, path: &str) -> Option<&'a Json> {
    path.split('.').filter(|key| !key.is_empty()).try_fold(schema, |node, key| {
        let node = map_part(schema, resolve(schema, node));
        if key == "NAME" { node.get("additionalProperties") } else { node.get("properties")?.get(key) }
    })
}

/// Of `none` or a map, the map.
fn map_part<'a>(schema: &'a Json, node: &'a Json) -> &'a Json {
    let options = node.get("anyOf").and_then(Json::as_array);
    let map = options.and_then(|options| {
        options.iter().map(|option| resolve(schema, option)).find(|option| option["type"] == "object")
    });
    map.unwrap_or(node)
}

fn leaves(schema: &Json, node: &Json, path: &str, out: &mut Vec<String>) {
    let node = map_part(schema, resolve(schema, node));
    if let Some(properties) = node.get("properties").and_then(Json::as_object) {
        for (key, child) in properties {
            leaves(schema, child, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, out);
        }
    } else if node
        .get("additionalProperties")
        .is_some_and(|inner| map_part(schema, resolve(schema, inner)).get("properties").is_some())
    {
        leaves(schema, &node["additionalProperties"], &format!("{path}.NAME"), out);
    } else {
        out.push(path.to_owned());
    }
}

/// One table: the keys directly below a path. `a = b`: the keys of `a` also stand for those of `b`.
fn table(schema: &Json, section: &str, listed: &mut Vec<String>) -> Result<String, Box<dyn Error>> {
    let sections: Vec<&str> = section.split(" = ").collect();
    let node = at(schema, sections[0]).ok_or_else(|| format!("no section {section}"))?;
    let node = map_part(schema, resolve(schema, node));
    let required = node.get("required").and_then(Json::as_array).cloned().unwrap_or_default();
    let properties =
        node.get("properties").and_then(Json::as_object).ok_or_else(|| format!("{section} has no keys"))?;
    let mut text = "| key | value | default | meaning |\n|---|---|---|---|\n".to_owned();
    for (key, child) in properties {
        let target = resolve(schema, child);
        let default = match child.get("default") {
            _ if required.contains(&Json::from(key.as_str())) => "required".to_owned(),
            Some(Json::String(value)) => format!("`{value}`"),
            Some(value) => format!("`{value}`"),
            None => String::new(),
        };
        let meaning = child.get("description").or(target.get("description")).and_then(Json::as_str).unwrap_or_default();
        let meaning = meaning.replace('\n', " ").replace('|', "\\|");
        text.push_str(&format!("| `{key}` | {} | {default} | {meaning} |\n", kind(schema, target)));
        listed.extend(sections.iter().map(|section| format!("{section}.{key}").trim_start_matches('.').to_owned()));
    }
    Ok(text)
}

fn kind(schema: &Json, node: &Json) -> String {
    if let Some(options) = node.get("anyOf").and_then(Json::as_array) {
        return options.iter().map(|option| kind(schema, resolve(schema, option))).collect::<Vec<_>>().join(" or ");
    }
    if let Some(words) = node.get("enum").and_then(Json::as_array) {
        return words.iter().filter_map(Json::as_str).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    match (node["type"].as_str(), node.get("format").and_then(Json::as_str)) {
        (Some("string"), Some("address-or-off")) => "address or `off`".to_owned(),
        (Some("string"), Some(format)) => format.to_owned(),
        (Some("string"), None) => "text".to_owned(),
        (Some("integer"), _) => "number".to_owned(),
        (Some("boolean"), _) => "`true`, `false`".to_owned(),
        (Some("array"), _) => format!("list of {}", kind(schema, resolve(schema, &node["items"]))),
        (Some("object"), _) if node.get("properties").is_some() => "map".to_owned(),
        (Some("object"), _) => {
            format!("map of names to {}", kind(schema, resolve(schema, &node["additionalProperties"])))
        }
        _ => String::new(),
    }
}

/// Every ```yaml block of the reference.
pub(super) fn examples() -> Result<Vec<String>, Box<dyn Error>> {
    let text = std::fs::read_to_string(docs().join("configuration.md"))?;
    let blocks = text.split("```yaml\n").skip(1).filter_map(|block| block.split_once("```"));
    Ok(blocks.map(|(block, _)| block.to_owned()).collect())
}

#[test]
fn every_example_of_the_reference_passes_check() -> Test {
    let examples = examples()?;
    assert!(examples.len() >= 8, "only {} examples", examples.len());
    for example in examples {
        let loaded = load_texts(&[&example], Vec::new()).map_err(|error| format!("{error}\nin:\n{example}"))?;
        assert!(loaded.findings.is_empty(), "{}\nin:\n{example}", loaded.findings);
    }
    Ok(())
}
