//! The plot: cost over size, both by powers of ten.

use crate::figures::Figures;
use crate::{cost, processes};

/// What is drawn, in which colour, and whether it is of this library: what others take is the same
/// before and after.
const DRAWN: &[(&str, &str, bool)] = &[
    (cost::PUSH, "#0072b2", true),
    (cost::INSERT, "#009e73", true),
    (cost::GET_AT, "#cc79a7", true),
    (cost::LEN, "#56b4e9", true),
    (processes::HAS_A_PUSH, "#e69f00", true),
    (cost::WHOLE, "#888888", false),
    (cost::PYTHON, "#d55e00", false),
    (cost::RPUSH, "#222222", false),
];

/// The edges of the area of the axes, in pixels; the names are to the right of it.
const ACROSS: (f64, f64) = (70.0, 520.0);
const UP: (f64, f64) = (430.0, 50.0);
const LINE_HEIGHT: f64 = 17.0;

/// Powers of ten from the first to the last, between two edges.
struct Axis {
    powers: (i32, i32),
    edges: (f64, f64),
}

impl Axis {
    fn over(figures: impl Iterator<Item = f64>, edges: (f64, f64)) -> Self {
        let (least, most) = figures.fold((f64::MAX, f64::MIN), |(least, most), figure| {
            (least.min(figure), most.max(figure))
        });
        #[allow(clippy::cast_possible_truncation)]
        let powers = (least.log10().floor() as i32, most.log10().ceil() as i32);
        Self { powers, edges }
    }

    fn at(&self, figure: f64) -> f64 {
        let (first, last) = (f64::from(self.powers.0), f64::from(self.powers.1));
        let share = (figure.log10() - first) / (last - first);
        self.edges.0 + share * (self.edges.1 - self.edges.0)
    }

    /// Each power of ten, and where it is.
    fn ticks(&self) -> impl Iterator<Item = (i32, f64)> {
        let powers = self.powers.0..=self.powers.1;
        powers.map(|power| (power, self.at(10_f64.powi(power))))
    }
}

/// Draws what was measured, and with dashes what was before; `None` if there is nothing to draw.
pub fn draw(figures: &Figures, before: Option<&Figures>) -> Option<String> {
    let mut lines = Vec::new();
    for (figures, dashes) in [(Some(figures), "none"), (before, "5 4")] {
        for (name, colour, is_ours) in DRAWN {
            let series = figures.and_then(|figures| figures.get(name));
            if let Some(series) = series.filter(|_| *is_ours || dashes == "none") {
                lines.push((&series.figures, *name, *colour, dashes));
            }
        }
    }
    let points = || lines.iter().flat_map(|(figures, ..)| figures.iter());
    points().next()?;
    let across = Axis::over(points().map(|(size, _)| f64::from(*size)), ACROSS);
    let up = Axis::over(points().map(|(_, time)| *time), UP);
    let mut parts = frame(&across, &up);
    let mut names = Vec::new();
    for (figures, name, colour, dashes) in lines {
        let at = |(size, time): (&u32, &f64)| (across.at(f64::from(*size)), up.at(*time));
        let points: Vec<_> = figures.iter().map(at).collect();
        let line: Vec<_> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        parts.push(format!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-dasharray="{dashes}"/>"#,
            line.join(" ")
        ));
        if dashes == "none" {
            names.extend(points.last().map(|(_, y)| (*y, name, colour)));
        }
    }
    // The names are beside the ends of their lines, and none is over another.
    names.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut lowest = UP.1;
    for (y, name, colour) in names {
        lowest = lowest.max(y + 4.0);
        parts.push(text((ACROSS.1 + 10.0, lowest), "start", name, colour));
        lowest += LINE_HEIGHT;
    }
    if before.is_some() {
        let said = "dashes: an earlier version";
        parts.push(text((ACROSS.1, UP.1 - 10.0), "end", said, "#444"));
    }
    Some(parts.join("\n") + "\n</svg>\n")
}

/// The axes, with a line for each power of ten.
fn frame(across: &Axis, up: &Axis) -> Vec<String> {
    let head = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 480"
font-family="sans-serif" font-size="12" stroke-width="2"><rect width="800" height="480" fill="white"/>"#;
    let middle = f64::midpoint(ACROSS.0, ACROSS.1);
    let mut parts = vec![
        head.to_owned(),
        text(
            (ACROSS.0, UP.1 - 28.0),
            "start",
            "What one operation takes",
            "#000",
        ),
        text(
            (middle, UP.0 + 38.0),
            "middle",
            "entries of the list or map",
            "#444",
        ),
    ];
    let line = |(x1, y1): (f64, f64), (x2, y2): (f64, f64)| {
        format!(r##"<path d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}" stroke="#ddd" stroke-width="1"/>"##)
    };
    for (power, x) in across.ticks() {
        let size = grouped(10_u64.pow(power.unsigned_abs()));
        parts.push(line((x, UP.0), (x, UP.1)));
        parts.push(text((x, UP.0 + 18.0), "middle", &size, "#444"));
    }
    for (power, y) in up.ticks() {
        // Figures are in microseconds.
        let unit = ["ns", "µs", "ms", "s"][usize::try_from(power.div_euclid(3) + 1).unwrap_or(0)];
        let time = format!("{} {unit}", 10_u64.pow(power.rem_euclid(3).unsigned_abs()));
        parts.push(line((ACROSS.0, y), (ACROSS.1, y)));
        parts.push(text((ACROSS.0 - 8.0, y + 4.0), "end", &time, "#444"));
    }
    parts
}

/// `100000` as `100,000`.
fn grouped(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1_000), number % 1_000),
    }
}

fn text((x, y): (f64, f64), anchor: &str, text: &str, colour: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{colour}">{text}</text>"#)
}
