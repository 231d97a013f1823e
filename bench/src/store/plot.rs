//! The picture: grouped bars, etcd beside ours, as an SVG that needs nothing else.

use super::document::name;
use super::results::Outcome;
use super::server::Side;
use super::workload::{Metric, Workload};
use crate::statistics::number;
use std::fmt::Write as _;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 250.0;
const COLUMNS: usize = 2;
/// Room left, above, and below the bars of a panel.
const LEFT: f64 = 20.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 30.0;

/// Bars of both sides for each category.
struct Panel {
    title: &'static str,
    /// Category, etcd's figure, ours, and the ratio.
    groups: Vec<(String, f64, f64, f64)>,
}

/// Draws all outcomes.
pub fn draw(outcomes: &[Outcome]) -> String {
    let panels: Vec<Panel> = panels(outcomes).into_iter().filter(|panel| !panel.groups.is_empty()).collect();
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<style>.etcd{{fill:#9aa5b1}}.amoeba{{fill:#1f7a5c}}.bold{{font-weight:bold}}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        let (x, y) = ((number % COLUMNS) as f64 * WIDTH, (number / COLUMNS) as f64 * HEIGHT);
        let _ = write!(svg, "<g transform=\"translate({x} {y})\">\n{}</g>\n", panel.draw());
    }
    svg.push_str("</svg>\n");
    svg
}

fn panels(outcomes: &[Outcome]) -> Vec<Panel> {
    let puts = |title, metric, wanted_members, wanted_value| {
        let clients = |outcome: &Outcome| match outcome.workload {
            Workload::Put { members, clients, value }
                if members == wanted_members && value == wanted_value =>
            {
                Some(format!("{clients} client{}", if clients == 1 { "" } else { "s" }))
            }
            _ => None,
        };
        panel(title, metric, outcomes, clients)
    };
    vec![
        puts("puts/s, 1 member, 256 B", Metric::Rate, 1, 256),
        puts("puts/s, 3 members, 256 B", Metric::Rate, 3, 256),
        puts("p50 of a put, 1 member, 256 B, ms", Metric::P50, 1, 256),
        puts("p99 of a put, 1 member, 256 B, ms", Metric::P99, 1, 256),
        puts("CPU per put, 1 member, 256 B, µs", Metric::Cpu, 1, 256),
        panel("linearizable reads/s", Metric::Rate, outcomes, |outcome| match outcome.workload {
            Workload::Read { members, clients } => Some(format!("{clients} clients, {members} m.")),
            _ => None,
        }),
        panel("events/s to watchers", Metric::Rate, outcomes, |outcome| match outcome.workload {
            Workload::Watch { watchers, streams } => {
                Some(format!("{watchers} watchers, {streams} connections"))
            }
            _ => None,
        }),
        panel("RSS, MiB", Metric::Rss, outcomes, |outcome| match outcome.workload {
            Workload::Memory { keys } => Some(format!("{} keys", number(keys as f64))),
            _ => None,
        }),
    ]
}

fn panel(
    title: &'static str,
    metric: Metric,
    outcomes: &[Outcome],
    category: impl Fn(&Outcome) -> Option<String>,
) -> Panel {
    let group = |outcome: &Outcome| {
        let side = |side| outcome.median(side, metric);
        Some((category(outcome)?, side(Side::Etcd)?, side(Side::Amoeba)?, outcome.ratio(metric)?))
    };
    Panel { title, groups: outcomes.iter().filter_map(group).collect() }
}

impl Panel {
    fn draw(&self) -> String {
        let mut out =
            format!("<text class=\"bold\" x=\"{LEFT}\" y=\"18\" font-size=\"13\">{}</text>\n", self.title);
        for (number, side) in [Side::Etcd, Side::Amoeba].into_iter().enumerate() {
            let (x, name) = (WIDTH - 130.0 + number as f64 * 55.0, name(side));
            let _ = writeln!(out, "<rect class=\"{name}\" x=\"{x}\" y=\"9\" width=\"10\" height=\"10\"/>");
            let _ = writeln!(out, "<text x=\"{}\" y=\"18\">{name}</text>", x + 13.0);
        }
        let highest = self.groups.iter().map(|(_, etcd, amoeba, _)| etcd.max(*amoeba)).fold(0.0, f64::max);
        let room = (WIDTH - 2.0 * LEFT) / self.groups.len() as f64;
        for (number, group) in self.groups.iter().enumerate() {
            out.push_str(&draw_group(group, LEFT + number as f64 * room, room, highest));
        }
        out
    }
}

fn draw_group(
    (category, etcd, amoeba, ratio): &(String, f64, f64, f64),
    x: f64,
    room: f64,
    highest: f64,
) -> String {
    let floor = HEIGHT - BOTTOM;
    let (width, mut out) = ((room * 0.38).min(60.0), String::new());
    let left = x + room / 2.0 - width;
    for (number, (side, value)) in [(Side::Etcd, etcd), (Side::Amoeba, amoeba)].into_iter().enumerate() {
        let (height, x) = (value / highest * (floor - TOP), left + number as f64 * width);
        let y = floor - height;
        let _ = writeln!(
            out,
            "<rect class=\"{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"9\">{}</text>",
            name(side),
            width - 2.0,
            x + width / 2.0,
            y - 3.0,
            short(*value),
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"10\">{category} <tspan class=\"bold\">×{}\
         </tspan></text>",
        x + room / 2.0,
        floor + 15.0,
        number(*ratio),
    );
    out
}

/// Fits over a bar.
fn short(value: f64) -> String {
    if value >= 10_000.0 { format!("{:.1}k", value / 1000.0) } else { number(value) }
}
