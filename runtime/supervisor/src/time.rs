//! Moments, as they are stored and shown: RFC 3339 in UTC, to the nanosecond.

use serde::{Deserialize, Serialize};
use std::fmt::{Display, Formatter};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// A moment of the host's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Time(SystemTime);

impl Time {
    /// This moment.
    pub fn now() -> Self {
        Self(SystemTime::now())
    }

    /// How long ago it was; nothing if it is still to come.
    pub fn ago(self) -> Duration {
        self.0.elapsed().unwrap_or_default()
    }

    /// The moment so long before now.
    pub fn before_now(age: Duration) -> Self {
        Self(SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        humantime::format_rfc3339_nanos(self.0).fmt(f)
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

impl FromStr for Time {
    type Err = String;

    /// Reads RFC 3339, with a space in place of the T and without the zone too.
    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_rfc3339_weak(text)
            .map(Self)
            .map_err(|_| format!("'{text}' is no time such as 2026-01-31T12:00:00Z"))
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let now = Time::now();
        assert_eq!(now.to_string().parse(), Ok(now));
        assert!("yesterday".parse::<Time>().is_err());
        assert!(Time::before_now(Duration::from_secs(5)) < now);
    }
}
