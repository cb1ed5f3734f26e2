//! Reads a page strictly: every element is closed by its own tag, every attribute quoted, and no character that means something
//! stands where it is text.

use std::collections::BTreeMap;

/// Elements that have no end.
const VOID: [&str; 2] = ["meta", "br"];
const REFERENCES: [(&str, &str); 5] =
    [("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'")];

/// What a page is made of.
pub(crate) struct Parsed {
    /// Names and attributes, in the order of their tags.
    pub(crate) elements: Vec<(String, BTreeMap<String, String>)>,
    /// Its text, but for the style.
    pub(crate) text: String,
}

/// The value of the number with that id.
pub(crate) fn number(parsed: &Parsed, id: &str) -> u64 {
    let found =
        parsed.elements.iter().find(|(name, all)| name == "data" && all.get("id").is_some_and(|i| i == id));
    found.unwrap_or_else(|| panic!("no number {id}")).1["value"].parse().expect("a number")
}

pub(crate) fn parse(html: &str) -> Result<Parsed, String> {
    let mut rest = html.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    let mut parsed = Parsed { elements: Vec::new(), text: String::new() };
    let mut open: Vec<String> = Vec::new();
    while let Some((text, behind)) = rest.split_once('<') {
        match open.last().is_some_and(|name| name == "style") {
            true => {}
            false => parsed.text += &unescaped(text)?,
        }
        let (tag, behind) =
            behind.split_once('>').ok_or_else(|| format!("a tag without an end: {behind:.60}"))?;
        rest = behind;
        if let Some(name) = tag.strip_prefix('/') {
            let last = open.pop().unwrap_or_default();
            if last != name {
                return Err(format!("</{name}> where {last} is open"));
            }
            continue;
        }
        let (name, attributes) = read(tag)?;
        if !VOID.contains(&name.as_str()) {
            open.push(name.clone());
        }
        parsed.elements.push((name, attributes));
    }
    if !open.is_empty() || !rest.trim().is_empty() {
        return Err(format!("{open:?} are open at the end, behind it is {rest:.60}"));
    }
    let ids: Vec<_> = parsed.elements.iter().filter_map(|(_, all)| all.get("id")).collect();
    for (at, id) in ids.iter().enumerate() {
        if ids[..at].contains(id) {
            return Err(format!("two have the id {id}"));
        }
    }
    Ok(parsed)
}

fn read(tag: &str) -> Result<(String, BTreeMap<String, String>), String> {
    let (name, mut rest) = tag.split_at(tag.find(' ').unwrap_or(tag.len()));
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err(format!("no name of an element: <{tag:.60}>"));
    }
    let mut attributes = BTreeMap::new();
    while !rest.is_empty() {
        let attribute = rest.strip_prefix(' ').ok_or_else(|| format!("no space in <{tag:.60}>"))?;
        let (key, value) = attribute.split_once("=\"").ok_or_else(|| format!("not quoted in <{tag:.60}>"))?;
        let (value, behind) = value.split_once('"').ok_or_else(|| format!("no end in <{tag:.60}>"))?;
        if !key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            return Err(format!("no name of an attribute: {key}"));
        }
        // Our own have apostrophes.
        if attributes.insert(key.to_string(), unescaped(&value.replace('\'', "&#39;"))?).is_some() {
            return Err(format!("{key} twice in <{tag:.60}>"));
        }
        rest = behind;
    }
    Ok((name.to_string(), attributes))
}

fn unescaped(text: &str) -> Result<String, String> {
    if text.contains(['>', '"']) || text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(format!("not escaped: {text:?}"));
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, _)) = rest.split_once('&') {
        out += before;
        rest = &rest[before.len()..];
        let (reference, stands_for) =
            REFERENCES.into_iter().find(|(r, _)| rest.starts_with(r)).ok_or_else(|| format!("{rest:.30}"))?;
        out += stands_for;
        rest = &rest[reference.len()..];
    }
    Ok(out + rest)
}
