//! Parses `docs/refusals.md`: an entry for each heading, with its code and its texts.
//!
//! The crates with refusals compare their own texts with it, so that the page has one parser. It knows the page's
//! format and no refusal.

use std::{collections::BTreeMap, fs, io};

/// The path of the page.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/refusals.md");

/// A text of the code, and its entry on the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub entry: String,
    pub code: u32,
    pub text: String,
}

/// The contents under one heading.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// From "CNI code N".
    pub code: Option<u32>,
    /// The lines between fences.
    pub texts: Vec<String>,
    /// The tests after "Shown by".
    pub shown_by: Vec<String>,
}

/// The entries of one part of the page, which is everything under a second-level heading.
///
/// # Errors
/// If the page cannot be read or has no such part.
pub fn part(title: &str) -> io::Result<BTreeMap<String, Entry>> {
    let page = fs::read_to_string(PAGE)?;
    let begin = format!("\n## {title}\n");
    let (_, rest) = page
        .split_once(&begin)
        .ok_or_else(|| io::Error::other(format!("the page has no part \"{title}\"")))?;
    let part = rest.split("\n## ").next().unwrap_or_default();
    let entries = part.split("\n### ").skip(1);
    Ok(entries.map(entry).collect())
}

fn entry(text: &str) -> (String, Entry) {
    let (heading, body) = text.split_once('\n').unwrap_or((text, ""));
    let mut entry = Entry::default();
    let mut fenced = false;
    for line in body.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            entry.texts.push(line.to_owned());
        } else if let Some(rest) = line.strip_prefix("CNI code ") {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
            entry.code = digits.and_then(|digits| digits.parse().ok());
        } else if let Some(rest) = line.strip_prefix("Shown by ") {
            let quoted = rest.split('`').skip(1).step_by(2);
            entry.shown_by.extend(quoted.map(str::to_owned));
        }
    }
    (heading.trim().to_owned(), entry)
}

/// The differences between page and code, one line each: texts that the page lacks, texts that the code does not have,
/// codes.
#[must_use]
pub fn differences(page: &BTreeMap<String, Entry>, said: &[Text]) -> Vec<String> {
    let mut found = Vec::new();
    for Text { entry, code, text } in said {
        match page.get(entry) {
            None => found.push(format!("the page has no entry \"{entry}\" for: {text}")),
            Some(there) if there.code != Some(*code) => {
                found.push(format!("{entry} has code {code}, not {:?}", there.code));
            }
            Some(there) if !there.texts.contains(text) => {
                found.push(format!("{entry} lacks: {text}"));
            }
            Some(_) => {}
        }
    }
    for (name, entry) in page {
        for text in &entry.texts {
            if !said
                .iter()
                .any(|said| said.entry == *name && said.text == *text)
            {
                found.push(format!("{name}: the code does not have: {text}"));
            }
        }
    }
    found
}
