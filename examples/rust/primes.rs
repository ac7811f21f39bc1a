//! Prints the prime numbers up to its argument.
//!
//! Shows: a Rust program, and limits. A large argument runs into whichever limit is set:
//!
//!     sbx run examples/rust/primes.wasm 50
//!     sbx run --memory 64M examples/rust/primes.wasm 2000000000
//!     sbx run --cpu-time 1s examples/rust/primes.wasm 200000000
//!     sbx run --output 1K examples/rust/primes.wasm 1000000
//!
//! The .wasm is committed. To build it with a current toolchain, after `rustup target add wasm32-wasip1`:
//!
//!     rustc --target wasm32-wasip1 -O -C panic=abort -C strip=symbols -C lto primes.rs
//!
//! `examples/build rust` does the same with Debian's compiler, where the target is called wasm32-wasi.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// The sieve of Eratosthenes; one byte for each number.
fn primes(limit: usize) -> impl Iterator<Item = usize> {
    let mut composite = vec![false; limit.saturating_add(1)];
    for n in (2..).take_while(|n| n * n <= limit) {
        if !composite[n] {
            for multiple in (n * n..=limit).step_by(n) {
                composite[multiple] = true;
            }
        }
    }
    (2..=limit).filter(move |&n| !composite[n])
}

fn main() -> ExitCode {
    let limit = match std::env::args().nth(1).map(|argument| argument.parse()) {
        Some(Ok(limit)) => limit,
        _ => {
            eprintln!("usage: primes LIMIT");
            return ExitCode::FAILURE;
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    for prime in primes(limit) {
        if let Err(error) = writeln!(out, "{prime}") {
            eprintln!("primes: {error}");
            return ExitCode::FAILURE;
        }
    }
    if out.flush().is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
