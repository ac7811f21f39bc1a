//! Sandboxes that outlive the command that started them: what is known of each, on disk, and the process
//! that holds it.
//!
//! There is no daemon. Each sandbox has a directory ([`store`]) with what was asked ([`record::Config`]) and
//! how it stands ([`record::Status`]), and while it lives a supervisor ([`supervisor`]): a process that
//! holds the directory's lock, keeps its log ([`log`]), and answers at its socket ([`control`]). Whoever finds
//! the lock free knows that there is no supervisor, whatever the status says.
//!
//! Not here: what a verb prints, and any backend. The caller says how a [`sbx_core::Spec`] becomes a
//! [`sbx_core::Lifecycle`].
#![forbid(unsafe_code)]

pub mod attach;
pub mod control;
pub mod events;
mod lines;
pub mod log;
mod names;
pub mod record;
pub mod store;
pub mod supervisor;
pub mod time;

pub use record::{Config, Restart, State, Status};
pub use store::{Entry, Lock, Store};
pub use time::Time;
