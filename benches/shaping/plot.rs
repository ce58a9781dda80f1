//! The drawing in `docs/shaping.svg`: the same calls sent through the sidecar, through a textbook
//! bucket, and as they come. `make plot` writes it; the same every time.

use std::fmt::Write as _;

use super::bars::setup;
use super::limiters::{Class, Limiter};
use super::simulation::{Load, WAIT_MAX, arrivals, run};

const LIMIT: u32 = 100;
const SECONDS: f64 = 900.0;
const SEED: u64 = 11;
/// Each of the three drawings, in the picture's own units.
const WIDTH: f64 = 290.0;
const HEIGHT: f64 = 190.0;
const TOP: f64 = 220.0;

/// One way to send the calls.
struct Way {
    name: &'static str,
    /// When DataPulse counts each.
    sent: Vec<f64>,
    /// Calls that were refused before they were sent.
    refused: usize,
}

/// The picture.
pub(crate) fn plot() -> String {
    let load = setup(LIMIT, Load::OnOff, SECONDS, SEED);
    let mut random = fastrand::Rng::with_seed(SEED);
    let calls = arrivals(load.load, LIMIT, SECONDS, &mut random);
    let ours = run(load);
    let ways = [
        Way { name: "this sidecar", sent: ours.counted, refused: ours.refused },
        bucket(&calls),
        Way { name: "no shaping", sent: calls, refused: 0 },
    ];
    let mut panels = String::new();
    for (number, way) in ways.iter().enumerate() {
        panels += &panel(way, 20.0 + number as f64 * (WIDTH + 25.0));
    }
    PICTURE.replace("PANELS", &panels)
}

/// A bucket that holds a window's worth and fills evenly, with a queue of the same patience.
fn bucket(calls: &[f64]) -> Way {
    let each = 60.0 / f64::from(LIMIT);
    let (mut empty_at, mut sent, mut refused) = (0.0_f64, Vec::new(), 0);
    for call in calls {
        let leaves = call.max(empty_at - 60.0 + each);
        if leaves - call > WAIT_MAX.as_secs_f64() {
            refused += 1;
        } else {
            sent.push(leaves);
            empty_at = empty_at.max(leaves) + each;
        }
    }
    Way { name: "a textbook bucket", sent, refused }
}

fn panel(way: &Way, left: f64) -> String {
    let log = Class::Log { closed: false, counts_refused: false };
    let mut limiter = Limiter::new(log, LIMIT, 60.0, 0.0, 0.0);
    let throttled = way.sent.iter().filter(|at| !limiter.accepts(**at)).count();
    let y = |count: f64| HEIGHT * (1.0 - count / TOP);
    let mut path = String::new();
    let mut most = 0;
    for second in 0..SECONDS as u32 {
        let now = f64::from(second);
        let within = |at: &&f64| (now - 60.0..now).contains(*at);
        let count = way.sent.iter().filter(within).count();
        most = most.max(count);
        let letter = if second == 0 { 'M' } else { 'L' };
        let _written = write!(path, "{letter}{:.1} {:.1}", WIDTH * now / SECONDS, y(count as f64));
    }
    let full = y(f64::from(LIMIT));
    let verdict = if throttled == 0 { "good" } else { "bad" };
    format!(
        r#"
  <g transform="translate({left} 74)">
    <text class="name" y="-14">{}</text>
    <rect class="panel" width="{WIDTH}" height="{HEIGHT}" rx="4"/>
    <rect class="over" width="{WIDTH}" height="{full:.1}"/>
    <path class="sent" d="{path}"/>
    <path class="limit" d="M0 {full:.1}H{WIDTH}"/>
    <text class="small" x="{WIDTH}" y="-14" text-anchor="end">limit {LIMIT}</text>
    <text class="small" y="{}">0</text>
    <text class="small" x="{WIDTH}" y="{}" text-anchor="end">{:.0} min</text>
    <text class="{verdict}" y="{}">429 by DataPulse: {throttled}</text>
    <text y="{}">refused on arrival: {}</text>
    <text y="{}">sent: {}, at most {most} in any 60 s</text>
  </g>"#,
        way.name,
        HEIGHT + 16.0,
        HEIGHT + 16.0,
        SECONDS / 60.0,
        HEIGHT + 44.0,
        HEIGHT + 66.0,
        way.refused,
        HEIGHT + 88.0,
        way.sent.len(),
    )
}

/// Readable on light and on dark: it brings its own ground.
const PICTURE: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 372" role="img" aria-label="Calls sent in any 60 s against a limit of 100: the sidecar stays below it, a textbook bucket and no shaping do not">
  <style>
    svg { font: 14px system-ui, sans-serif; }
    .ground { fill: #ffffff; } text { fill: #1c2330; } .small { font-size: 12px; fill: #5d6879; }
    .name { font-size: 16px; font-weight: 600; } .panel { fill: #f1f3f7; }
    .over { fill: #b3261e; opacity: .09; } .sent { fill: none; stroke: #2563c9; stroke-width: 1.8; }
    .limit { stroke: #b3261e; stroke-width: 1.5; stroke-dasharray: 6 4; }
    .good { fill: #18794a; font-weight: 600; } .bad { fill: #b3261e; font-weight: 600; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #12161d; } text { fill: #e5e9f0; } .small { fill: #98a3b5; }
      .panel { fill: #1f2631; } .over { fill: #ff9d95; opacity: .12; } .sent { stroke: #6fa3f5; }
      .limit { stroke: #ff9d95; } .good { fill: #74d3a0; } .bad { fill: #ff9d95; }
    }
  </style>
  <rect class="ground" width="960" height="372" rx="8"/>
  <text x="20" y="26">calls sent in the last 60 s: an app that asks for twice its limit, with pauses</text>PANELS
</svg>
"#;
