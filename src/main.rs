//! The binary: real world in, exit code out.

use b24::error::{Code, Failure};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

fn main() -> ExitCode {
    b24::host::harden();
    std::panic::set_hook(Box::new(|_| {}));
    let mut host = b24::host::Host::real();
    let args = std::env::args_os().collect();
    let status = std::panic::catch_unwind(AssertUnwindSafe(|| b24::run(args, &mut host)));
    // The panic's own text could quote anything; it is not printed.
    ExitCode::from(status.unwrap_or_else(|_| b24::report_bug(&mut host, &Failure::new(Code::Internal, "b24 ran into a bug and stopped"))))
}
