//! Tables for people: aligned columns, a heading, no lines.

use crate::output::{Done, Out, Style, harmless};

/// Rows under a heading.
#[derive(Debug)]
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(heading: &[&'static str]) -> Self {
        Self {
            heading: heading.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with one cell per column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells
            .into_iter()
            .map(|cell| harmless(&cell, false).replace(['\n', '\t'], " "))
            .map(|cell| {
                if cell.is_empty() {
                    "-".to_owned()
                } else {
                    cell
                }
            })
            .collect();
        self.rows.push(cells);
    }

    /// The lines, heading first.
    pub fn lines(&self) -> Vec<String> {
        let heading: Vec<String> = self.heading.iter().map(|&text| text.to_owned()).collect();
        let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        std::iter::once(&heading)
            .chain(&self.rows)
            .map(|row| {
                let cells = row.iter().zip(&widths);
                let line: Vec<String> = cells
                    .map(|(cell, width)| format!("{cell:width$}"))
                    .collect();
                line.join("  ").trim_end().to_owned()
            })
            .collect()
    }

    /// Prints it.
    pub fn print(&self, out: &Out) -> Done {
        for (index, line) in self.lines().iter().enumerate() {
            if index == 0 {
                out.line(out.styled(Style::Bold, line))?;
            } else {
                out.line(line)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_marked() {
        let mut table = Table::new(&["APP", "URL", "STATE"]);
        table.row(["shop", "http://shop.localhost:8080", "live"].map(str::to_owned));
        table.row(["a-long-name", "", "ünï"].map(str::to_owned));
        assert_eq!(
            table.lines(),
            [
                "APP          URL                         STATE",
                "shop         http://shop.localhost:8080  live",
                "a-long-name  -                           ünï",
            ]
        );
    }

    #[test]
    fn a_cell_cannot_break_out_of_its_row() {
        let mut table = Table::new(&["REASON"]);
        table.row(["a\nb\x1b[2J".to_owned()]);
        assert_eq!(table.lines()[1], "a b\u{fffd}[2J");
    }
}
