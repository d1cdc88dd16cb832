//! The man page: prose by hand, the commands and their options from the definition of the command
//! line, between two markers.

use crate::generated;
use anyhow::{Context, Result};
use clap::{Arg, ArgAction, Command};

const PAGE: &str = "man/temps.1";
const BEGIN: &str = ".\\\" BEGIN GENERATED COMMANDS";
const END: &str = ".\\\" END GENERATED COMMANDS";

/// Writes or checks the generated part.
///
/// # Errors
/// When it differs from what it should be, or the markers are missing.
pub fn run(check: bool) -> Result<()> {
    let page = std::fs::read_to_string(generated::root().join(PAGE))
        .with_context(|| format!("reading {PAGE}"))?;
    let page = replace(&page, &commands()).with_context(|| format!("{PAGE} lacks its markers"))?;
    generated::put(PAGE, &page, check, "man")
}

/// `page` with `block` between the markers.
fn replace(page: &str, block: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{block}{END}{after}"))
}

/// The commands with their options, in mdoc(7).
fn commands() -> String {
    let mut definition = temps::cli::definition();
    definition.build();
    let mut text = String::from(".Ss Options of every command\n.Bl -tag -width Ds\n");
    for argument in definition
        .get_arguments()
        .filter(|argument| shown(argument))
    {
        option(argument, &mut text);
    }
    text.push_str(".El\n");
    for command in definition.get_subcommands() {
        section(command, "temps", &mut text);
    }
    text
}

fn section(command: &Command, parent: &str, text: &mut String) {
    if command.get_name() == "help" {
        return;
    }
    let path = format!("{parent} {}", command.get_name());
    let mut children = command
        .get_subcommands()
        .filter(|child| child.get_name() != "help")
        .peekable();
    if children.peek().is_some() {
        children.for_each(|child| section(child, &path, text));
        return;
    }
    text.push_str(&format!(".Ss {}\n", escape(&synopsis(command, &path))));
    let about = command.get_long_about().or(command.get_about());
    if let Some(about) = about {
        paragraphs(&about.to_string(), text);
    }
    let mut arguments = command
        .get_arguments()
        .filter(|argument| shown(argument) && argument.get_id() != "runtime_dir")
        .peekable();
    if arguments.peek().is_some() {
        text.push_str(".Bl -tag -width Ds\n");
        arguments.for_each(|argument| option(argument, text));
        text.push_str(".El\n");
    }
}

/// Names and values of a command's arguments, the optional ones in brackets.
fn synopsis(command: &Command, path: &str) -> String {
    let mut words = vec![path.to_owned()];
    let (positional, options): (Vec<_>, Vec<_>) = command
        .get_arguments()
        .filter(|argument| shown(argument) && argument.get_id() != "runtime_dir")
        .partition(|argument| argument.is_positional());
    for argument in positional {
        let name = value(argument);
        let many = if matches!(argument.get_action(), ArgAction::Append) {
            " ..."
        } else {
            ""
        };
        words.push(if argument.is_required_set() {
            format!("{name}{many}")
        } else {
            format!("[{name}{many}]")
        });
    }
    if !options.is_empty() {
        words.push("[options]".to_owned());
    }
    words.join(" ")
}

fn option(argument: &Arg, text: &mut String) {
    let mut names = Vec::new();
    if let Some(short) = argument.get_short() {
        names.push(format!("-{short}"));
    }
    if let Some(long) = argument.get_long() {
        names.push(format!("--{long}"));
    }
    let mut head = names.join(", ");
    if argument.is_positional() {
        head = value(argument);
    } else if argument.get_action().takes_values() {
        let may_be_left_out = argument
            .get_num_args()
            .is_some_and(|count| count.min_values() == 0);
        head = match (argument.is_require_equals_set(), may_be_left_out) {
            (true, true) => format!("{head}[={}]", value(argument)),
            (true, false) => format!("{head}={}", value(argument)),
            (false, true) => format!("{head} [{}]", value(argument)),
            (false, false) => format!("{head} {}", value(argument)),
        };
    }
    text.push_str(&format!(".It {}\n", escape(&head)));
    if let Some(help) = argument.get_long_help().or(argument.get_help()) {
        paragraphs(&help.to_string(), text);
    }
    let choices: Vec<String> = argument
        .get_possible_values()
        .iter()
        .map(|choice| choice.get_name().to_owned())
        .collect();
    if argument.get_action().takes_values() && !choices.is_empty() {
        text.push_str(&format!("One of {}.\n", escape(&choices.join(", "))));
    }
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        text.push_str(&format!("Without it: {}.\n", escape(&defaults.join(" "))));
    }
}

fn shown(argument: &Arg) -> bool {
    !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version")
}

fn value(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names
        .iter()
        .map(|name| name.to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Prose: paragraphs apart, each ending with a period, and each sentence on a line of its own, as
/// mdoc(7) wants it.
fn paragraphs(prose: &str, text: &mut String) {
    for (index, paragraph) in prose.split("\n\n").enumerate() {
        if index > 0 {
            text.push_str(".Pp\n");
        }
        let paragraph = paragraph.trim().replace('\n', " ");
        let end = if paragraph.ends_with(['.', ']', ':']) {
            ""
        } else {
            "."
        };
        let paragraph = format!("{paragraph}{end}");
        for sentence in sentences(&paragraph) {
            text.push_str(&format!("{}\n", escape(sentence)));
        }
    }
}

/// The sentences of a paragraph: a period, a blank and a capital letter are between two.
fn sentences(paragraph: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = paragraph;
    let mut from = 0;
    while let Some(period) = rest[from..].find(". ") {
        let end = from + period + 1;
        if rest[end + 1..].starts_with(|letter: char| letter.is_uppercase()) {
            found.push(&rest[..end]);
            rest = &rest[end + 1..];
            from = 0;
        } else {
            from = end;
        }
    }
    found.push(rest);
    found
}

/// Text that mdoc(7) takes as it is: a macro's name as an argument would be called.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let words = text.split(' ').map(|word| {
        let mut letters = word.chars();
        let name = letters.next().is_some_and(|c| c.is_ascii_uppercase())
            && letters.next().is_some_and(|c| c.is_ascii_lowercase());
        let macro_like = name && word.len() <= 3
            || matches!(
                word,
                "." | "," | ":" | ";" | "(" | ")" | "[" | "]" | "?" | "!" | "|"
            );
        if macro_like || word.starts_with(['.', '\'']) {
            format!("\\&{word}")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_between_the_markers_changes() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(
            replace(&page, "new\n").unwrap(),
            format!("a\n{BEGIN}\nnew\n{END}\nb\n")
        );
        assert_eq!(replace("a", "new"), None);
    }

    #[test]
    fn nothing_can_be_taken_for_a_request_or_a_macro() {
        assert_eq!(escape(".so x"), "\\&.so x");
        assert_eq!(escape("a --b Fl"), "a \\-\\-b \\&Fl");
    }

    #[test]
    fn sentences_have_lines_of_their_own() {
        let text = "One e.g. this. `two`. Three, v1.2. Four";
        assert_eq!(
            sentences(text),
            ["One e.g. this. `two`.", "Three, v1.2.", "Four"]
        );
    }

    #[test]
    fn a_value_is_shown_as_it_has_to_be_written() {
        let arg = || {
            Arg::new("x")
                .long("x")
                .value_name("Y")
                .action(ArgAction::Set)
        };
        for (argument, expected) in [
            (arg(), "--x Y"),
            (arg().require_equals(true), "--x=Y"),
            (arg().num_args(0..=1).require_equals(true), "--x[=Y]"),
            (arg().num_args(0..=1), "--x [Y]"),
        ] {
            let mut command = Command::new("c").arg(argument);
            command.build();
            let mut text = String::new();
            let argument = command.get_arguments().find(|known| known.get_id() == "x");
            option(argument.unwrap(), &mut text);
            let expected = format!(".It {}\n", expected.replace('-', "\\-"));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn every_command_is_in_the_page() {
        let text = commands();
        for command in [
            "temps up",
            "temps deploy APP",
            "temps env set APP",
            "temps doctor",
        ] {
            assert!(text.contains(&format!(".Ss {command}")), "{command}");
        }
    }
}
