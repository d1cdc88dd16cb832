//! `/usr/bin/temps`: see the library.

fn main() -> std::process::ExitCode {
    temps::run()
}
