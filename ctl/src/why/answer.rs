//! An answer: one sentence, what it rests on, and what would help; as text and as JSON.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::view::View;
use crate::print::{self, elastic};

/// Events that are shown at most, the newest.
const EVENTS: usize = 5;

/// Rows of a section that people are shown.
const ROWS: usize = 25;

/// Why an object is as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// `pod default/web-1`
    pub object: String,
    /// What is the matter, continuing the object's name as a sentence.
    pub verdict: String,
    /// What the verdict rests on.
    pub sections: Vec<Section>,
    /// What would help, the smallest change first.
    pub fixes: Vec<Fix>,
}

/// Facts of one sort, as a table; without a header they are lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// What the facts are.
    pub title: String,
    /// Names of the columns.
    pub header: Vec<&'static str>,
    /// The facts.
    pub rows: Vec<Vec<String>>,
}

/// A change that would help.
#[derive(Clone, Debug, PartialEq)]
pub struct Fix {
    /// What to do, in words.
    pub change: String,
    /// A command that does it, if one does.
    pub command: Option<String>,
    /// What follows from it.
    pub then: String,
}

impl Answer {
    /// About `object`; the verdict reads on after its name.
    pub fn about(object: &Value, verdict: impl Into<String>) -> Answer {
        let kind = api::object::kind(object).to_lowercase();
        Answer { object: format!("{kind} {}", place(object)), verdict: verdict.into(), ..Answer::default() }
    }

    /// Adds lines under a title, if there are any.
    pub fn lines(&mut self, title: &str, lines: Vec<String>) {
        self.table(title, &[], lines.into_iter().map(|line| vec![line]).collect());
    }

    /// Adds a table, if it has rows.
    pub fn table(&mut self, title: &str, header: &[&'static str], rows: Vec<Vec<String>>) {
        if !rows.is_empty() {
            self.sections.push(Section { title: title.to_owned(), header: header.to_vec(), rows });
        }
    }

    /// Adds a change that would help.
    pub fn fix(&mut self, change: impl Into<String>, command: Option<String>, then: impl Into<String>) {
        self.fixes.push(Fix { change: change.into(), command, then: then.into() });
    }

    /// Adds the newest warnings about `object`.
    pub fn events(&mut self, object: &Value, view: &View, now: Timestamp) {
        let warnings = view.events_about(object).into_iter().filter(|event| event["type"] == "Warning");
        let rows: Vec<Vec<String>> = warnings.map(|event| event_row(event, now)).collect();
        let first = rows.len().saturating_sub(EVENTS);
        self.table("Warnings", &["AGE", "REASON", "MESSAGE"], rows[first..].to_vec());
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = print::styled(print::STRONG, format!("{} {}", self.object, self.verdict)) + "\n";
        for section in &self.sections {
            let header = (!section.header.is_empty()).then(|| section.header.join("\t"));
            let rows = header.into_iter().chain(section.rows.iter().take(ROWS).map(|row| row.join("\t")));
            let lines: String = rows.map(|row| format!("  {row}\n")).collect();
            text += &format!("\n{}\n{}", section.title, elastic::align(&lines));
            if let Some(more) = section.rows.len().checked_sub(ROWS).filter(|more| *more > 0) {
                text += &format!("  … and {more} more; -o json shows all\n");
            }
        }
        if !self.fixes.is_empty() {
            text += "\nWhat would help, the smallest change first\n";
        }
        for (number, fix) in self.fixes.iter().enumerate() {
            text += &format!("  {}. {}: {}\n", number + 1, fix.change, fix.then);
            let commands = fix.command.iter().map(|command| format!("     {command}\n"));
            text.extend(commands);
        }
        text
    }

    /// For programs: a section with a header is a list of maps, one without a list of texts.
    pub fn json(&self) -> Value {
        let sections: Map<String, Value> =
            self.sections.iter().map(|section| (section.title.clone(), section.json())).collect();
        let fixes: Vec<Value> = self
            .fixes
            .iter()
            .map(|fix| json!({"change": fix.change, "command": fix.command, "then": fix.then}))
            .collect();
        json!({"object": self.object, "verdict": self.verdict, "because": sections, "fixes": fixes})
    }
}

impl Section {
    fn json(&self) -> Value {
        if self.header.is_empty() {
            return self.rows.iter().flatten().map(|line| json!(line)).collect();
        }
        let row = |row: &Vec<String>| -> Value {
            let names = self.header.iter().map(|name| name.to_lowercase());
            names.zip(row).map(|(name, cell)| (name, json!(cell))).collect::<Map<_, _>>().into()
        };
        self.rows.iter().map(row).collect()
    }
}

/// `namespace/name`, or the name of an object of the whole cluster.
pub fn place(object: &Value) -> String {
    match api::object::namespace(object) {
        "" => api::object::name(object).to_owned(),
        namespace => format!("{namespace}/{}", api::object::name(object)),
    }
}

fn event_row(event: &Value, now: Timestamp) -> Vec<String> {
    let text = |field: &str| event[field].as_str().unwrap_or_default().trim().to_owned();
    vec![crate::verb::events::seen(event, now), text("reason"), text("message")]
}
