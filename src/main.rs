//! The `fanfare` binary: the allocator, and the command that was given.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fanfare::process::forgo_huge_pages();
    fanfare::cli::run(std::env::args_os())
}
