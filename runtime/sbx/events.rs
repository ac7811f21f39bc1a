//! `sbx events`: what happens to sandboxes, as it happens, and what has happened.

use anyhow::Result;
use sbx_supervisor::events::{Event, Reader, What};
use sbx_supervisor::store::short;
use sbx_supervisor::{Store, Time};
use std::time::Duration;

use crate::args::Format;
use crate::args::observe::{EventFilter, EventsArgs};
use crate::print;

/// How often it is looked whether something has happened.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn events(args: &EventsArgs) -> Result<u8> {
    let EventsArgs { no_stream, since, until, filters, format } = args;
    let mut reader = Reader::open(&Store::open()?);
    if !no_stream && since.is_none() && until.is_none() {
        reader.skip()?;
    }
    loop {
        // Asked before the last look, lest what happens in between be missed.
        let last = *no_stream || until.is_some_and(|until| until <= Time::now());
        while let Some(event) = reader.next_event()? {
            let timely = since.is_none_or(|since| event.time >= since)
                && until.is_none_or(|until| event.time <= until);
            if timely && holds(filters, &event) {
                print::answer(match format {
                    Format::Table => line(&event),
                    Format::Json => serde_json::to_string(&event)? + "\n",
                })?;
            }
        }
        if last {
            return Ok(0);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Of each kind of filter there is, one has to hold; of labels all.
fn holds(filters: &[EventFilter], event: &Event) -> bool {
    let any = |holds: &dyn Fn(&EventFilter) -> Option<bool>| {
        let all: Vec<bool> = filters.iter().filter_map(holds).collect();
        all.is_empty() || all.contains(&true)
    };
    let events = any(&|filter| match filter {
        EventFilter::Event(name) => Some(event.what.name() == name),
        _ => None,
    });
    let sandboxes = any(&|filter| match filter {
        EventFilter::Sandbox(text) => Some(event.name == *text || event.id.starts_with(text)),
        _ => None,
    });
    let labels = filters.iter().all(|filter| match filter {
        EventFilter::Label(name, value) => {
            let found = event.labels.get(name);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        }
        _ => true,
    });
    events && sandboxes && labels
}

/// An event as a line for people. Nothing is known of what comes, so that columns are as wide as most need.
fn line(event: &Event) -> String {
    let details = match &event.what {
        What::Restart { exit_status, restarts } => {
            format!("exit_status={exit_status} restarts={restarts}")
        }
        What::Kill { signal } => format!("signal={signal}"),
        What::Oom { memory_limit } => format!("memory_limit={memory_limit}"),
        What::Die { exit_status, reason, .. } => {
            format!("exit_status={exit_status} reason={reason}")
        }
        What::Rename { old_name } => format!("old_name={old_name}"),
        What::Create | What::Start | What::Pause | What::Resume | What::Remove => String::new(),
    };
    let (time, what, id) = (event.time, event.what.name(), short(&event.id));
    let line = format!("{time}   {what:<7}   {id:<12}   {:<16}   {details}", event.name);
    line.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_a_kind_are_alternatives() {
        let event = Event {
            time: Time::now(),
            what: What::Start,
            id: "ab".repeat(32),
            name: "web".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
        };
        let event_is = |name: &str| EventFilter::Event(name.into());
        let sandbox = |text: &str| EventFilter::Sandbox(text.into());
        let label = |name: &str, value: Option<&str>| {
            EventFilter::Label(name.into(), value.map(String::from))
        };
        let matches = |filters: &[EventFilter]| holds(filters, &event);
        assert!(matches(&[]) && matches(&[event_is("die"), event_is("start")]));
        assert!(!matches(&[event_is("die")]) && !matches(&[event_is("start"), sandbox("x")]));
        assert!(matches(&[sandbox("web")]) && matches(&[sandbox("aba"), event_is("start")]));
        assert!(matches(&[label("a", None), label("a", Some("b"))]));
        assert!(!matches(&[label("a", None), label("c", None)]));
    }
}
