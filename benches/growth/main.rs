//! What one change, or one look, costs by how much there is: 10 to 100,000 entries.
//!
//! `cargo bench -p synced-memory-benches --bench growth` measures everything; a part is measured by
//! its name: `cargo bench -p synced-memory-benches --bench growth -- cost near`. The parts are
//! those of [`PARTS`]. Variables of the environment ask for more; paths are relative to the
//! workspace:
//!
//! - `GROWTH_MILLION=1`: 1,000,000 entries as well, which takes 16 GiB of memory and some time
//! - `GROWTH_CSV=path`: writes all figures
//! - `GROWTH_BEFORE=path`: the figures of an earlier run, which the plot shows beside these
//! - `GROWTH_SVG=path`: where the plot goes, instead of `synced-memory/growth.svg`

mod cost;
mod figures;
mod plot;
mod processes;
mod traffic;

use std::path::{Path, PathBuf};
use std::{env, fs};

use figures::Figures;
use synced_memory_benches::processes::WORD;
use synced_memory_benches::{report_at_most, report_figure_at_most};

type Part = fn(&mut Figures);

/// What can be measured, by its name.
const PARTS: &[(&str, Part)] = &[
    ("cost", cost::through),
    ("python", cost::of_the_python_package),
    ("near", processes::near),
    ("traffic", traffic::of_a_push),
    ("contention", processes::contention),
    ("sqlite", cost::on_sqlite),
];

const SMALL: u32 = 100;
const LARGE: u32 = 100_000;
const MILLION: u32 = 1_000_000;

/// What may take so many times as long with more entries.
const RATIOS: &[(&str, u32, u32, f64)] = &[
    (cost::PUSH, SMALL, LARGE, 2.0),
    (cost::SET_AT, SMALL, LARGE, 2.0),
    (cost::GET_AT, SMALL, LARGE, 2.0),
    (cost::LEN, SMALL, LARGE, 2.0),
    (cost::INSERT, SMALL, LARGE, 2.0),
    (cost::REPLACE, SMALL, LARGE, 2.0),
    (cost::ADD_AT, SMALL, LARGE, 2.0),
    (cost::GET_AT_KEY, SMALL, LARGE, 2.0),
    (cost::LEN_OF_MAP, SMALL, LARGE, 2.0),
    // 7 MB against some 100 bytes.
    (cost::WITH, 10, LARGE, 2.0),
    (processes::HAS_A_PUSH, SMALL, LARGE, 3.0),
    (processes::SEES_IT, SMALL, LARGE, 5.0),
    (traffic::IN_SCRIPTS, SMALL, LARGE, 1.3),
    (traffic::IN_SCRIPTS, SMALL, MILLION, 1.3),
    (cost::SQLITE_PUSH, 10, 10_000, 3.0),
];

/// What a push, and what 8 processes may take, however many entries there are.
const LIMITS: &[(&str, f64)] = &[
    (traffic::SENT, 400.0 + 2.0 * cost::ITEM),
    (traffic::RECEIVED, 400.0 + 2.0 * cost::ITEM),
    (traffic::LOG, 700.0 + 3.0 * cost::ITEM),
    (traffic::IN_SCRIPTS, 40.0),
    (cost::SQLITE_LOG, 160.0),
    (processes::ONE_LIST, 1.5),
    (processes::ONE_NUMBER, 1.5),
    (processes::ONE_MAP, 3.0),
    (processes::ALL_THREE, 2.5),
];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == WORD) {
        return processes::serve(&arguments[1..]);
    }
    // Cargo gives its own options to each measurement.
    let is_name = |argument: &&String| !argument.starts_with('-');
    let wanted: Vec<_> = arguments.iter().filter(is_name).collect();
    for name in &wanted {
        let is_known = PARTS.iter().any(|(part, _)| part == name);
        assert!(is_known, "there is no part `{name}`");
    }
    let mut figures = Figures::default();
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            measure(&mut figures);
        }
    }
    figures.print();
    report(&figures);
    if let Some(path) = path_of("GROWTH_CSV") {
        fs::write(path, figures.to_csv()).expect("the file can be written");
    }
    let before = path_of("GROWTH_BEFORE")
        .map(|path| fs::read_to_string(path).expect("the file can be read"))
        .map(|csv| Figures::from_csv(&csv));
    let drawn =
        path_of("GROWTH_SVG").unwrap_or_else(|| workspace().join("synced-memory/growth.svg"));
    if let Some(svg) = plot::draw(&figures, before.as_ref()) {
        fs::write(drawn, svg).expect("the file can be written");
    }
}

/// How many entries there are.
fn sizes() -> impl Iterator<Item = u32> {
    let largest = env::var_os("GROWTH_MILLION").map_or(LARGE, |_| MILLION);
    let sizes = [10, SMALL, 1_000, 10_000, LARGE, MILLION];
    sizes.into_iter().take_while(move |size| *size <= largest)
}

/// The directory of the workspace.
fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("it is a package of the workspace")
}

fn path_of(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(|path| workspace().join(path))
}

/// Prints the ratios and figures that have bars.
fn report(figures: &Figures) {
    for (name, from, to, bar) in RATIOS {
        let at = |size| figures.get(name)?.figures.get(size);
        if let (Some(small), Some(large)) = (at(from), at(to)) {
            report_at_most(
                &format!("{name}: {to} entries / {from}"),
                large / small,
                *bar,
            );
        }
    }
    for (name, bar) in LIMITS {
        let Some(series) = figures.get(name) else {
            continue;
        };
        // A value of less than 4 KiB is written whole.
        let has_bar = |size| size >= SMALL || !name.starts_with("a push");
        for (size, figure) in series.figures.iter().filter(|(size, _)| has_bar(**size)) {
            let of_size = match size {
                0 => String::new(),
                _ => format!(", {size} entries"),
            };
            let what = format!("{name}{of_size}");
            report_figure_at_most(&what, *figure, &series.unit, *bar);
        }
    }
}
