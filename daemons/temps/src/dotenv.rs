//! Files of variables (`.env`), as `temps env set --file` reads them.
//!
//! One `NAME=VALUE` a line; blank lines and those that start with `#` are skipped, and `export ` in
//! front is allowed. A value in single quotes is taken as it is; in double quotes `\n`, `\t`, `\"`,
//! `\\` and `\$` are understood; an unquoted one is taken to the end of the line without blanks around
//! it. Nothing is expanded. Errors name the line, never its value.

/// A name and its value.
pub type Pair = (String, String);

/// Reads every variable of `text`.
///
/// # Errors
/// The first line that is none, by its number.
pub fn parse(text: &str) -> Result<Vec<Pair>, String> {
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| format!("line {} is not NAME=VALUE", index + 1))?;
        let value = unquote(value.trim()).ok_or_else(|| {
            format!(
                "line {}: the quotes of {}'s value are not closed, or text follows them",
                index + 1,
                name.trim()
            )
        })?;
        pairs.push((name.trim().to_owned(), value));
    }
    Ok(pairs)
}

/// The value itself; `None` if its quotes do not match.
fn unquote(value: &str) -> Option<String> {
    if let Some(rest) = value.strip_prefix('\'') {
        let inner = rest.strip_suffix('\'')?;
        return (!inner.contains('\'')).then(|| inner.to_owned());
    }
    let Some(rest) = value.strip_prefix('"') else {
        return Some(value.to_owned());
    };
    let mut plain = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(plain),
            '\\' => match characters.next()? {
                'n' => plain.push('\n'),
                't' => plain.push('\t'),
                other @ ('"' | '\\' | '$') => plain.push(other),
                other => plain.extend(['\\', other]),
            },
            other => plain.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let text = "# comment\n\nA=1\nexport B = two words \nC='$x \"q\"'\nD=\"a\\nb \\\"c\\\" \\d\"\nE=\nF=a=b#c\n";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$x \"q\""),
            ("D", "a\nb \"c\" \\d"),
            ("E", ""),
            ("F", "a=b#c"),
        ];
        let pairs = parse(text).unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(pairs, expected);
    }

    #[test]
    fn an_error_names_the_line_and_never_the_value() {
        for (text, line) in [
            ("A=1\nhunter2", "line 2"),
            ("A=\"hunter2", "line 1"),
            ("A='hunter2' x", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(line) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}
