use super::*;
use std::path::Path;

fn of(name: &str, licence: &str) -> Crate {
    Crate {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        licence: licence.to_owned(),
        directory: PathBuf::new(),
    }
}

fn saying(body: &str) -> Text {
    Text {
        name: "LICENSE".to_owned(),
        body: body.to_owned(),
    }
}

#[test]
fn a_text_of_two_crates_is_there_once() {
    let (one, other) = (of("one", "MIT"), of("other", "MIT OR ISC"));
    let each = [
        (&one, vec![saying("the same\ntext")]),
        (&other, vec![saying("its own"), saying("the same text\n")]),
    ];
    let text = write(&each, "rustc 1.2.3", "of the library");
    assert!(text.contains("\none 1.0.0: MIT [1]\n"), "{text}");
    assert!(
        text.contains("\nother 1.0.0: MIT OR ISC [2] [1]\n"),
        "{text}"
    );
    assert_eq!(text.matches("the same").count(), 1, "{text}");
    assert!(text.ends_with("of the library\n"), "{text}");
}

#[test]
fn a_licence_that_deny_toml_does_not_list_is_told() {
    let crates = [
        of("good", "GPL-3.0 OR MIT"),
        of("bad", "GPL-3.0"),
        of("none", ""),
    ];
    let told = crates::not_allowed(&crates).unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("bad 1.0.0") && told[0].contains("GPL-3.0"));
}

#[test]
fn all_that_is_compiled_in_has_a_licence_and_a_text_and_twice_the_same() {
    let text = text("x86_64").unwrap();
    for wanted in [
        "\ntokio 1.",
        "\nring 0.",
        "\nzstd-sys ",
        "\nlibsqlite3-sys ",
        "Rust's standard library",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in it");
    }
    // Macros and tests are not linked.
    for other in ["\nserde_derive ", "\nclap_mangen "] {
        assert!(!text.contains(other), "{other:?} is in it");
    }
    assert!(
        !text.contains("GNU GENERAL PUBLIC LICENSE\n"),
        "another licence was chosen"
    );
    assert!(!text.contains(&*Path::new(env!("CARGO_MANIFEST_DIR")).to_string_lossy()));
    assert_eq!(text, super::text("x86_64").unwrap());
}
