//! `sansq`, `nsqd` and `nsqlookupd`, by the name the program is called.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    ExitCode::from(sansq::cli::run(&args))
}
