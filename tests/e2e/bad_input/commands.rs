//! The table of wrong commands: arguments, exit status, code, what is said and what is advised.

use std::os::unix::fs::symlink;

use harness::app;
use serde_json::Value;

use crate::world::World;

const SHORT: &[&str] = &["--watch", "1s", "--health-timeout", "5s"];
const NONE: &str = "rel_01m81xdbz8rges82g9";

struct Row {
    arguments: Vec<String>,
    status: i32,
    /// In JSON, if the command prints it.
    code: &'static str,
    /// On stderr.
    said: &'static [&'static str],
}

fn row(line: &str, status: i32, code: &'static str, said: &'static [&'static str]) -> Row {
    let arguments = line.split(' ');
    Row {
        arguments: arguments.map(|word| word.replace("%none", NONE)).collect(),
        status,
        code,
        said,
    }
}

#[test]
fn every_wrong_command_says_what_is_wrong_and_what_to_do() {
    let world = World::up();
    let good = world.live("shop", "python", "healthy", SHORT).release;
    let source = app::make("python", "healthy", "v1").unwrap();
    let empty = tempfile::tempdir().unwrap();
    let here = |line: &str| {
        line.replace("%source", source.arg())
            .replace("%empty", empty.path().to_str().unwrap())
    };
    let long = format!("app show {}", "a".repeat(41));
    let rows = [
        row("frobnicate", 64, "", &["unrecognized subcommand", "Usage"]),
        row("app", 64, "", &["Usage"]),
        row("deploy", 64, "Invalid", &["required", "Usage"]),
        row(
            "app show nope",
            66,
            "NotFound",
            &["no app", "`nope`", "hint"],
        ),
        row("app destroy nope --yes", 66, "NotFound", &["`nope`"]),
        row("release list nope", 66, "NotFound", &["`nope`"]),
        row("logs nope", 66, "NotFound", &["`nope`"]),
        row("env list nope", 66, "NotFound", &["`nope`"]),
        row("domain list nope", 66, "NotFound", &["`nope`"]),
        row("rollback nope", 66, "NotFound", &["`nope`"]),
        row("rollback shop", 66, "NotFound", &["no earlier release"]),
        row("rollback shop %none", 66, "NotFound", &["%none"]),
        row("rollback shop rel_x", 64, "Invalid", &["rel_x"]),
        row("logs shop --release %none", 66, "NotFound", &["%none"]),
        row("env unset shop NOPE", 66, "NotFound", &["NOPE"]),
        row("env set shop 1A=x", 64, "Invalid", &["1A"]),
        row("env set shop PORT=x", 64, "Invalid", &["PORT"]),
        row("env set shop", 64, "Invalid", &["required"]),
        row("domain remove shop a.test", 66, "NotFound", &["a.test"]),
        row(
            "domain remove shop shop.localhost",
            64,
            "Invalid",
            &["own host", "hint"],
        ),
        row("domain add shop not_a_host", 64, "Invalid", &["not a host"]),
        row("app show Shop", 64, "Invalid", &["not an app name"]),
        row("app show -x-", 64, "Invalid", &["unexpected argument"]),
        row("app show localhost", 64, "Invalid", &["reserved"]),
        row(&long, 64, "Invalid", &["not an app name"]),
        row("app destroy shop", 64, "Invalid", &["--yes"]),
        row(
            "deploy shop --source %source --watch 5",
            64,
            "Invalid",
            &["not a duration", "90s"],
        ),
        row(
            "deploy shop --source %source --watch 25h",
            64,
            "Invalid",
            &["24 hours"],
        ),
        row(
            "deploy shop --source %source --health nope",
            64,
            "Invalid",
            &["health", "/health"],
        ),
        row(
            "deploy shop --source %source --env staging",
            64,
            "Unsupported",
            &["staging", "production", "hint"],
        ),
        row(
            "deploy shop --source %source --runtime systemd",
            64,
            "Unsupported",
            &["has no systemd runtime", "installed system", "hint"],
        ),
        row(
            "deploy shop --source %source --runtime podman",
            64,
            "Invalid",
            &["podman", "possible values"],
        ),
        row(
            "deploy shop --source %source --image x",
            64,
            "Invalid",
            &["cannot be used with"],
        ),
        row(
            "deploy shop --static %source --runtime docker",
            64,
            "Invalid",
            &["--static", "docker"],
        ),
        row(
            "deploy shop --image x --runtime process",
            64,
            "Invalid",
            &["image", "process"],
        ),
        row(
            "deploy shop --source /nonexistent",
            64,
            "Invalid",
            &["/nonexistent"],
        ),
        row(
            "deploy shop --source %source/app.py",
            64,
            "Invalid",
            &["app.py"],
        ),
        row(
            "deploy shop --source %empty",
            64,
            "Invalid",
            &["nothing to deploy", "hint"],
        ),
        row("deploy shop --git ./nope", 64, "Invalid", &["nope", "hint"]),
        row(
            "deploy shop --git https://example.test/x#",
            64,
            "Invalid",
            &["ref"],
        ),
        row(
            "deploy other --source %source --domain shop.localhost",
            73,
            "Exists",
            &["shop.localhost"],
        ),
    ];
    let mut wrong = Vec::new();
    println!(
        "{:<62} {:>4} {:<12} first line on stderr",
        "input", "exit", "code"
    );
    for row in &rows {
        let mut arguments: Vec<String> = row.arguments.iter().map(|word| here(word)).collect();
        let shown = row.arguments.join(" ");
        let plain = world.run(&arguments);
        let mut complaints = Vec::new();
        if plain.status != row.status {
            complaints.push(format!("exit status {}", plain.status));
        }
        for said in row.said {
            if !plain.stderr.contains(&said.replace("%none", NONE)) {
                complaints.push(format!("does not say {said:?}"));
            }
        }
        if !plain.stdout.is_empty() {
            complaints.push(format!("stdout: {}", plain.stdout));
        }
        if !row.code.is_empty() {
            arguments.push("--json".to_owned());
            let output = world.run(&arguments);
            let json: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
            let error = &json["error"];
            if output.status != row.status
                || error["code"] != row.code
                || error["what"].as_str().is_none_or(str::is_empty)
                || !error["hint"].is_string()
            {
                complaints.push(format!(
                    "with --json: exit {}, {}",
                    output.status, output.stdout
                ));
            }
        }
        let first = plain.stderr.lines().next().unwrap_or_default();
        println!("{shown:<62} {:>4} {:<12} {first}", plain.status, row.code);
        if !complaints.is_empty() {
            wrong.push(format!(
                "{shown}: {}\n{}",
                complaints.join("; "),
                plain.stderr
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.get("shop", "/").release(), good);
    assert_eq!(
        world.json(&["app", "list"]).as_array().unwrap().len(),
        1,
        "nothing was made"
    );
}

#[test]
fn a_source_that_cannot_be_built_is_refused_with_the_cause() {
    let world = World::up();
    let good = world.live("shop", "python", "healthy", SHORT).release;
    let bare = app::make("python", "healthy", "v1").unwrap();
    std::fs::remove_file(bare.path().join("Procfile")).unwrap();
    let broken = app::make("python", "healthy", "v1").unwrap();
    std::fs::write(broken.path().join("Procfile"), "worker: x\n").unwrap();
    let missing = app::make("python", "healthy", "v1").unwrap();
    std::fs::write(
        missing.path().join("Procfile"),
        "web: no-such-program --x\n",
    )
    .unwrap();
    let cases = [
        (&bare, &["Procfile"][..]),
        (&broken, &["web"]),
        (&missing, &["127", "no-such-program"]),
    ];
    for (made, said) in cases {
        let deployed = world.deploy_path("shop", made.path(), SHORT);
        println!("{:?}", deployed.reason);
        assert_eq!((&*deployed.status, deployed.exit), ("refused", 1));
        for text in said {
            assert!(
                deployed.stderr.contains(text),
                "{text}: {}",
                deployed.stderr
            );
        }
        assert_eq!(world.get("shop", "/").release(), good);
    }
    let repository = tempfile::tempdir().unwrap();
    let path = repository.path().to_str().unwrap();
    for (url, said) in [
        (path.to_owned(), "not"),
        ("https://127.0.0.1:1/x.git".to_owned(), "127.0.0.1"),
        ("ext::sh -c id".to_owned(), "not a git URL"),
    ] {
        let output = world.run(["deploy", "shop", "--git", &url]);
        println!(
            "--git {url}: exit {}: {}",
            output.status,
            output.stderr.trim().replace('\n', " | ")
        );
        assert!([1, 64].contains(&output.status), "{url}");
        assert!(output.stderr.contains(said), "{url}: {}", output.stderr);
    }
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        let command = command
            .arg("-C")
            .arg(bare.path())
            .args(["-c", "user.name=t", "-c", "user.email=t@example.test"])
            .args(arguments);
        harness::command::run(command, crate::world::PATIENCE)
            .unwrap()
            .success()
            .unwrap();
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "x"]);
    let output = world.run([
        "deploy",
        "shop",
        "--git",
        &format!("{}#no-such-ref", bare.arg()),
    ]);
    println!("{}", output.stderr.trim().replace('\n', " | "));
    assert_eq!(output.status, 1, "{output:?}");
    assert!(output.stderr.contains("no-such-ref"), "{output:?}");
    world.only(&[&good]);
}

#[test]
fn links_out_of_the_directory_are_refused_before_anything_is_sent() {
    let world = World::up();
    let good = world.live("shop", "python", "healthy", SHORT).release;
    for target in ["/etc/passwd", "../../etc/passwd"] {
        let made = app::make("python", "healthy", "v1").unwrap();
        symlink(target, made.path().join("leak")).unwrap();
        let output = world.run(["deploy", "shop", "--source", made.arg()]);
        println!(
            "{target}: exit {}: {}",
            output.status,
            output.stderr.trim().replace('\n', " | ")
        );
        assert_eq!(output.status, 64, "{output:?}");
        assert!(output.stderr.contains("leak"), "{output:?}");
    }
    // One that stays inside is fine.
    let made = app::make("python", "healthy", "v1").unwrap();
    symlink("version", made.path().join("inside")).unwrap();
    let next = world
        .deploy_path("shop", made.path(), SHORT)
        .live()
        .unwrap();
    assert_ne!(next.release, good);
}

#[test]
fn commands_without_a_platform_say_how_to_start_one() {
    let world = World::up();
    let nowhere = tempfile::tempdir().unwrap();
    let nowhere = nowhere.path().to_str().unwrap();
    for command in ["status", "app list", "deploy shop --image x", "logs shop"] {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.extend(["--runtime-dir", nowhere]);
        let output = world.run(&arguments);
        assert_eq!(output.status, 69, "{command}: {output:?}");
        assert!(output.stderr.contains("temps up"), "{command}: {output:?}");
    }
}
