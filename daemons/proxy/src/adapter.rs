//! The ports, for real.

pub mod deployd;
