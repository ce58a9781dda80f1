//! What must hold for any text: no panic, no endless work, no value in an error.

use std::fmt::Write as _;

use serde_json::Value;

use super::{manifest_dir, read};
use crate::config::collect;

const CANARY: &str = "dp_live_CANARY";

fn example() -> String {
    std::fs::read_to_string(manifest_dir().join("config/example.yaml")).unwrap()
}

/// Errors and warnings, as they are printed.
fn told(text: &str) -> String {
    match read(text) {
        Ok((_, warnings)) => warnings.iter().fold(String::new(), |mut all, warning| {
            writeln!(all, "{warning}").unwrap();
            all
        }),
        Err(errors) => errors.to_string(),
    }
}

fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{at}/{index}"), out);
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                pointers(item, &format!("{at}/{key}"), out);
            }
        }
        _ => {}
    }
}

#[test]
fn a_secret_pasted_anywhere_is_never_repeated() {
    let json: Value = serde_saphyr::from_str(&example()).unwrap();
    let mut all = Vec::new();
    pointers(&json, "", &mut all);
    assert!(all.len() > 100);
    let mut refused = 0;
    for at in &all {
        for paste in [
            CANARY.to_owned(),
            format!("https://{CANARY}@api.datapulse.ai/{CANARY}"),
            format!("vault:{CANARY}#{CANARY}"),
            format!("env:{CANARY}-"),
            format!("${{{CANARY}"),
            format!("{CANARY}\n{CANARY}"),
        ] {
            let mut pasted = json.clone();
            *pasted.pointer_mut(at).unwrap() = paste.clone().into();
            let told = told(&pasted.to_string());
            assert!(!told.contains("CANARY"), "at {at}: {told}");
            refused += usize::from(told.contains("test.yaml:"));
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn a_secret_pasted_into_broken_yaml_is_never_repeated() {
    for text in [
        "api_key: \"dp_live_CANARY",
        "api_key: 'dp_live_CANARY\nversion: 1",
        "api_key: *dp_live_CANARY",
        "api_key: !dp_live_CANARY x",
        "api_key: !!binary dp_live_CANARY",
        "api_key: !!int dp_live_CANARY",
        "api_key: \"\\dp_live_CANARY\"",
        "api_key: dp_live_CANARY: x",
        "api_key: [dp_live_CANARY",
        "%dp_live_CANARY\n---\n",
        "dp_live_CANARY",
        "- dp_live_CANARY",
        "api_key: @dp_live_CANARY",
        "? [dp_live_CANARY]\n: x",
    ] {
        let told = told(text);
        assert!(told.starts_with("test.yaml:"), "{text}: {told}");
        assert!(!told.contains("CANARY"), "{text}: {told}");
    }
}

#[test]
fn a_file_that_multiplies_or_nests_itself_ends_in_an_error() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let last = format!("*a{}", n - 1);
        writeln!(bomb, "a{n}: &a{n} [{}]", [last.as_str(); 10].join(", ")).unwrap();
    }
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(900_000), ["*a"; 90].join(", "));
    let deep = format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let flow = format!("a: {}", "{a: ".repeat(100_000));
    let block = (0..2000).fold(String::new(), |mut all, depth| {
        writeln!(all, "{}a:", " ".repeat(depth % 400)).unwrap();
        all
    });
    let many = "- x\n".repeat(200_000);
    let large = format!("version: 1 # {}", "x".repeat(collect::FILE_BYTES_MAX));
    for text in [bomb, long, deep, flow, block, many, large] {
        let told = told(&text);
        assert!(told.starts_with("test.yaml:"), "{told}");
        assert!(told.lines().count() <= 110, "{}", told.lines().count());
        assert!(told.len() < 40_000, "{}", told.len());
    }
}

#[test]
fn many_mistakes_are_told_up_to_a_bound() {
    let many = (0..5_000).fold(String::from("version: 1\n"), |mut all, n| {
        writeln!(all, "x{n}: 1").unwrap();
        all
    });
    let told = told(&many);
    assert!((100..120).contains(&told.lines().count()), "{}", told.lines().count());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(.|\n){0,300}") {
        told(&text);
    }

    #[test]
    fn no_change_of_the_example_makes_it_panic(
        edits in proptest::collection::vec(
            (0_usize..6_000, 0_usize..40, "[-:\\[\\]{}&*!|>'\"#,?%@` \n\ta-z0-9\\.\\$/]{0,12}"),
            1..5,
        )
    ) {
        let mut text: Vec<char> = example().chars().collect();
        for (at, take, put) in edits {
            let at = at % text.len();
            let end = (at + take).min(text.len());
            text.splice(at..end, put.chars());
        }
        let text: String = text.into_iter().collect();
        let lines = u64::try_from(text.lines().count()).unwrap();
        if let Err(errors) = read(&text) {
            proptest::prop_assert!(!errors.0.is_empty());
            for error in &errors.0 {
                proptest::prop_assert!((1..=lines + 1).contains(&error.line), "{error}");
            }
        }
    }
}
