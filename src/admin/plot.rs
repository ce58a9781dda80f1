//! A quota's last ten minutes as a drawing (SVG), without a script. Pure.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::history::{LOOKS, Look, STEP};

/// The drawing's own units; the page scales it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 140.0;
/// Room above the full quota: use over it, which should never be seen, is seen.
const TOP: f64 = 1.2;

/// Use as an area, the limit as a line, how many waited as bars.
pub(super) fn plot(looks: &[Look]) -> Markup {
    let waiting_max = looks.iter().map(|look| look.waiting).max().unwrap_or(0);
    let full = y(1.0);
    html! {
        svg class="plot" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none"
            role="img" aria-label=(description(looks)) {
            @for quarter in [0.25, 0.5, 0.75] {
                line class="grid" x1="0" x2=(WIDTH) y1=(y(quarter)) y2=(y(quarter)) {}
            }
            @for minute in 1..10 {
                @let at = WIDTH * f64::from(minute) / 10.0;
                line class="grid" x1=(at) x2=(at) y1="0" y2=(HEIGHT) {}
            }
            path class="waiting" d=(bars(looks, waiting_max)) {}
            path class="area" d=(area(looks)) {}
            path class="used" d=(line(looks)) {}
            line class="full" x1="0" x2=(WIDTH) y1=(full) y2=(full) {}
        }
        div class="axis" {
            span { "10 min ago" }
            @if waiting_max > 0 { span { "bars: waiting, at most " (waiting_max) } }
            span { "now" }
        }
    }
}

fn description(looks: &[Look]) -> String {
    let most = looks.iter().map(|look| look.used_ratio).fold(0.0, f64::max);
    let now = looks.last().map_or(0.0, |look| look.used_ratio);
    format!("use over ten minutes: now {:.0} %, at most {:.0} %", now * 100.0, most * 100.0)
}

/// Where a look is, with the newest at the right edge.
fn x(index: usize, count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most 120 looks")]
    let (from_right, steps) = ((count - 1 - index) as f64, (LOOKS - 1) as f64);
    WIDTH - WIDTH * from_right / steps
}

fn y(ratio: f64) -> f64 {
    let part = ratio.clamp(0.0, TOP) / TOP;
    ((1.0 - part) * HEIGHT * 10.0).round() / 10.0
}

fn line(looks: &[Look]) -> String {
    let mut path = String::new();
    for (index, look) in looks.iter().enumerate() {
        let letter = if index == 0 { 'M' } else { 'L' };
        // A text takes whatever is written to it.
        let _written =
            write!(path, "{letter}{:.1} {:.1}", x(index, looks.len()), y(look.used_ratio));
    }
    path
}

fn area(looks: &[Look]) -> String {
    if looks.is_empty() {
        return String::new();
    }
    format!("{}L{WIDTH} {HEIGHT}L{:.1} {HEIGHT}Z", line(looks), x(0, looks.len()))
}

/// A bar for each look at which somebody waited, the highest half of the drawing.
fn bars(looks: &[Look], waiting_max: usize) -> String {
    let mut path = String::new();
    let each = WIDTH * STEP.as_secs_f64() / 600.0;
    for (index, look) in looks.iter().enumerate().filter(|(_, look)| look.waiting > 0) {
        #[expect(clippy::cast_precision_loss, reason = "calls that wait")]
        let high = HEIGHT / 2.0 * look.waiting as f64 / waiting_max.max(1) as f64;
        let left = x(index, looks.len()) - each * 0.8;
        let _written = write!(path, "M{left:.1} {HEIGHT}v-{high:.1}h{:.1}V{HEIGHT}Z", each * 0.8);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_quota_lies_on_the_line_and_the_newest_look_at_the_right_edge() {
        let look = |used_ratio, waiting| Look { used_ratio, waiting };
        let drawn = plot(&[look(0.0, 0), look(1.0, 4)]).into_string();
        assert!(drawn.contains(r#"d="M595.0 140.0L600.0 23.3""#), "{drawn}");
        assert!(drawn.contains(r#"class="full" x1="0" x2="600" y1="23.3" y2="23.3""#), "{drawn}");
        assert!(drawn.contains("now 100 %") && drawn.contains("at most 4"), "{drawn}");
        assert!(plot(&[]).into_string().contains("now 0 %"));
    }
}
