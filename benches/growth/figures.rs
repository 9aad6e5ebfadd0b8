//! What was measured, as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

#[derive(Default)]
pub struct Figures(Vec<Series>);

/// The figures of one kind, by how many entries there were; 0 if that is of no matter.
pub struct Series {
    name: String,
    pub unit: String,
    pub figures: BTreeMap<u32, f64>,
}

impl Figures {
    pub fn add(&mut self, name: &str, unit: &str, size: u32, figure: f64) {
        if self.get(name).is_none() {
            let (name, unit) = (name.to_owned(), unit.to_owned());
            let figures = BTreeMap::new();
            self.0.push(Series {
                name,
                unit,
                figures,
            });
        }
        let mut all = self.0.iter_mut();
        let series = all.find(|series| series.name == name);
        series.expect("it is there").figures.insert(size, figure);
    }

    pub fn get(&self, name: &str) -> Option<&Series> {
        self.0.iter().find(|series| series.name == name)
    }

    /// Prints a line for each series.
    pub fn print(&self) {
        let sizes = self.0.iter().flat_map(|series| series.figures.keys());
        let sizes: BTreeSet<u32> = sizes.copied().collect();
        print!("{:<56}", "entries");
        for size in &sizes {
            print!("{size:>11}");
        }
        for Series {
            name,
            unit,
            figures,
        } in &self.0
        {
            print!("\n{:<56}", format!("{name} ({unit})"));
            for size in &sizes {
                match figures.get(size) {
                    Some(figure) => print!("{figure:>11.1}"),
                    None => print!("{:>11}", "-"),
                }
            }
        }
        println!();
    }

    /// All figures as comma-separated values: name, unit, how many entries, figure.
    pub fn to_csv(&self) -> String {
        let mut csv = String::new();
        for Series {
            name,
            unit,
            figures,
        } in &self.0
        {
            for (size, figure) in figures {
                writeln!(csv, "\"{name}\",{unit},{size},{figure:.3}").expect("there is room");
            }
        }
        csv
    }

    /// The figures of an earlier run.
    pub fn from_csv(csv: &str) -> Self {
        let mut figures = Self::default();
        for line in csv.lines() {
            let cells: Vec<&str> = line.rsplitn(4, ',').collect();
            let [figure, size, unit, name] = cells[..] else {
                panic!("{line} has not four cells");
            };
            let size = size.parse().expect("a number");
            let figure = figure.parse().expect("a number");
            figures.add(name.trim_matches('"'), unit, size, figure);
        }
        figures
    }
}
