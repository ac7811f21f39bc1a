//! The part of sbx that every backend shares: what a sandbox is asked to be ([`Spec`]), what it may
//! use ([`Limits`]), how it lives ([`Lifecycle`]) and how it ends ([`Exit`]).
//!
//! A backend (WebAssembly, microVM) implements [`Backend`] and [`Sandbox`]; this crate decides. It
//! holds no engine, no system call beyond reading a file, no asynchronous code and no `unsafe`, so
//! that what it promises can be tested with [`fake::FakeBackend`] alone.
#![forbid(unsafe_code)]

pub mod backend;
pub mod error;
pub mod exit;
pub mod explain;
pub mod fake;
pub mod lifecycle;
pub mod limits;
pub mod machine;
pub mod net;
pub mod policy;
pub mod quota;
pub mod route;
pub mod spec;
mod text;
pub mod units;

pub use backend::{Backend, Command, Ending, Sandbox, Signal, Waited};
pub use error::{Error, Result};
pub use exit::Exit;
pub use lifecycle::{Lifecycle, State};
pub use limits::Limits;
pub use machine::Machine;
pub use spec::{Spec, Volume};
