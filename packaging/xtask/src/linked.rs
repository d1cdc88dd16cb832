//! What a packed binary may be linked with: the C library of the oldest Debian that is supported, and
//! nothing else. Everything of ours and every crate, SQLite among them, is in the one file.
//!
//! The C library itself is not: names of users and hosts are looked up by modules that the administrator
//! chooses (nsswitch.conf(5)), and those are loaded by the library that the system has.

use crate::pack::said;
use anyhow::{Result, ensure};
use std::path::Path;
use std::process::Command;

/// Libraries of glibc and of the compiler; the loader's name ends with the architecture.
const LIBRARIES: [&str; 3] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1"];
const LOADER: &str = "ld-linux";
/// The glibc of Debian 12. A symbol of a newer one would keep the program from starting there.
const GLIBC: (u32, u32) = (2, 36);

/// Refuses a binary that not every supported system can load.
///
/// # Errors
/// With what it needs too much; or when objdump (binutils) fails.
pub fn check(bin: &Path) -> Result<()> {
    let headers = said(Command::new("objdump").arg("--private-headers").arg(bin))?;
    let problems = problems(&headers);
    ensure!(
        problems.is_empty(),
        "{} is no binary to be packed: {}",
        bin.display(),
        problems.join("; ")
    );
    Ok(())
}

fn problems(headers: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in headers.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["NEEDED", library]
                if !LIBRARIES.contains(&library) && !library.starts_with(LOADER) =>
            {
                found.push(format!("it needs {library}"));
            }
            // Below `Version References`: hash, flags, number, name.
            [_, flags, _, version] => {
                if let Some(wanted) = glibc(version)
                    && wanted > GLIBC
                    // VER_FLG_WEAK: it does without (elf(5)).
                    && flags != "0x02"
                {
                    let (major, minor) = GLIBC;
                    found.push(format!(
                        "it needs {version}, and Debian 12 has {major}.{minor}: build it there"
                    ));
                }
            }
            _ => {}
        }
    }
    found
}

fn glibc(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("GLIBC_")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = "
Dynamic Section:
  NEEDED               libgcc_s.so.1
  NEEDED               libc.so.6
  NEEDED               ld-linux-aarch64.so.1
  FLAGS_1              0x0000000008000001

Version References:
  required from libc.so.6:
    0x09691a75 0x00 03 GLIBC_2.2.5
    0x069691b4 0x00 02 GLIBC_2.36
    0x069691b9 0x02 31 GLIBC_2.39
";

    #[test]
    fn the_c_library_of_the_oldest_debian_will_do() {
        assert_eq!(problems(USUAL), [""; 0]);
    }

    #[test]
    fn another_library_or_a_newer_c_library_is_told() {
        let other = USUAL.replace("libgcc_s.so.1", "libsqlite3.so.0");
        assert_eq!(problems(&other), ["it needs libsqlite3.so.0"]);
        let newer = USUAL.replace("0x00 02 GLIBC_2.36", "0x00 02 GLIBC_2.38");
        assert_eq!(problems(&newer).len(), 1);
        assert!(problems(&newer)[0].contains("GLIBC_2.38"));
    }

    #[test]
    fn this_very_program_is_read() {
        // Built where the tests are, so that the C library may be newer; of libraries it has the same.
        let headers = said(
            Command::new("objdump")
                .arg("--private-headers")
                .arg(std::env::current_exe().expect("a program knows its file")),
        )
        .expect("objdump reads it");
        assert!(headers.contains("NEEDED") && headers.contains("GLIBC_2."));
        let problems = problems(&headers);
        assert!(
            problems.iter().all(|problem| problem.contains("GLIBC_")),
            "{problems:?}"
        );
    }
}
