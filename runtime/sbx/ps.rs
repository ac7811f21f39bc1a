//! `sbx ps`: the sandboxes, and how they stand.

use anyhow::Result;
use sbx_supervisor::store::short;
use sbx_supervisor::{Config, Entry, State, Status, Store};
use serde::Serialize;
use std::mem::discriminant;
use std::time::Duration;

use crate::args::Format;
use crate::args::sandbox::{Filter, PsArgs};
use crate::{print, sandbox};

/// One line of the list.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    workload: String,
    /// `wasm`, or `vm` with what executes it.
    backend: String,
    state: &'static str,
    status: String,
    created: String,
    exit_status: Option<u8>,
    #[serde(skip)]
    age: Duration,
    #[serde(skip)]
    labels: std::collections::BTreeMap<String, String>,
}

pub(crate) fn ps(args: &PsArgs) -> Result<u8> {
    let store = Store::open()?;
    // Whoever asks for a state wants to see it.
    let all = args.all || args.filters.iter().any(|filter| matches!(filter, Filter::Status(_)));
    let mut rows: Vec<Row> = store.list()?.iter().filter_map(|entry| row(entry, all)).collect();
    rows.retain(|row| are_met(&args.filters, row));
    // The newest first; those of whom nothing is known last.
    rows.sort_by(|a, b| b.created.cmp(&a.created));
    let id = |row: &Row| if args.no_trunc { row.id.clone() } else { short(&row.id).to_owned() };
    print::answer(match args.format {
        _ if args.quiet => rows.iter().map(|row| id(row) + "\n").collect(),
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
        Format::Table => table(&rows, id),
    })?;
    Ok(0)
}

/// One that was removed meanwhile has no line; one whose record is damaged has.
fn row(entry: &Entry, all: bool) -> Option<Row> {
    let status = match entry.status() {
        Ok(status) if !all && !status.state.is_alive() => return None,
        status => status,
    };
    match (entry.config(), status) {
        (Ok(config), Ok(status)) => Some(described(config, &status)),
        _ if !all || !entry.dir().exists() => None,
        _ => Some(Row {
            id: entry.id().into(),
            name: String::new(),
            workload: String::new(),
            backend: String::new(),
            state: "damaged",
            status: "Damaged record".into(),
            created: String::new(),
            exit_status: None,
            age: Duration::MAX,
            labels: Default::default(),
        }),
    }
}

fn described(config: Config, status: &Status) -> Row {
    let workload = config.spec.workload.file_name().unwrap_or_default().to_string_lossy();
    let exit = status.exit.as_ref().map(|exit| exit.status());
    let since = |time: Option<sbx_supervisor::Time>| {
        time.map(|time| coarse(time.ago())).unwrap_or_else(|| "a while".into())
    };
    let text = match status.state {
        State::Created => "Created".into(),
        State::Running => format!("Up {}", since(status.started)),
        State::Paused => format!("Up {} (Paused)", since(status.started)),
        State::Restarting => {
            format!("Restarting ({}) {} ago", exit.unwrap_or_default(), since(status.finished))
        }
        State::Exited => {
            format!("Exited ({}) {} ago", exit.unwrap_or_default(), since(status.finished))
        }
        State::Dead => "Dead, its supervisor is gone".into(),
    };
    Row {
        workload: workload.into_owned(),
        backend: sandbox::backend(&config),
        state: status.state.name(),
        status: text,
        created: config.created.to_string(),
        exit_status: exit.filter(|_| status.state == State::Exited),
        age: config.created.ago(),
        id: config.id,
        name: config.name,
        labels: config.labels,
    }
}

/// As in docker: of several filters of one kind one is enough, but labels, of which all are asked for.
fn are_met(filters: &[Filter], row: &Row) -> bool {
    filters.iter().all(|filter| {
        let kind = |other: &&Filter| discriminant(*other) == discriminant(filter);
        let any = || filters.iter().filter(kind).any(|other| holds(other, row));
        holds(filter, row) || (!matches!(filter, Filter::Label(..)) && any())
    })
}

fn holds(filter: &Filter, row: &Row) -> bool {
    match filter {
        Filter::Name(text) => row.name.contains(text.as_str()),
        Filter::Id(text) => row.id.starts_with(text.as_str()),
        Filter::Status(state) => row.state == state,
        Filter::Label(name, value) => {
            let found = row.labels.get(name);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        }
    }
}

/// A time in its largest unit, as people say it.
pub(crate) fn coarse(time: Duration) -> String {
    let seconds = time.as_secs();
    let units =
        [(86_400 * 7, "week"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (count, unit) = units
        .iter()
        .find_map(|(length, unit)| (seconds >= *length).then(|| (seconds / length, *unit)))
        .unwrap_or((0, "second"));
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

fn table(rows: &[Row], id: impl Fn(&Row) -> String) -> String {
    let headings = ["SANDBOX ID", "WORKLOAD", "BACKEND", "CREATED", "STATUS", "NAME"];
    let mut lines = vec![headings.map(String::from).to_vec()];
    lines.extend(rows.iter().map(|row| {
        let created = if row.created.is_empty() { String::new() } else { coarse(row.age) + " ago" };
        vec![
            id(row),
            row.workload.clone(),
            row.backend.clone(),
            created,
            row.status.clone(),
            row.name.clone(),
        ]
    }));
    print::columns(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_coarse() {
        let said = |seconds| coarse(Duration::from_secs(seconds));
        assert_eq!(
            [said(0), said(1), said(59), said(61)],
            ["0 seconds", "1 second", "59 seconds", "1 minute"]
        );
        assert_eq!([said(7200), said(86_400 * 20)], ["2 hours", "2 weeks"]);
    }
}
