//! Elastic tab stops: cells of neighbouring lines below each other, as Go's tabwriter aligns them.
//!
//! A tab ends a cell. A column reaches over all neighbouring lines that have a cell in it, and is as wide as
//! its widest cell plus two.

/// The text with its tabs replaced by as many spaces as the alignment needs.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    measure(&lines, &mut widths, 0, 0..lines.len());
    let render = |(cells, widths): (&Vec<&str>, &Vec<usize>)| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<String>().trim_end().to_owned() + "\n"
    };
    lines.iter().zip(&widths).map(render).collect()
}

fn measure(lines: &[Vec<&str>], widths: &mut [Vec<usize>], column: usize, range: std::ops::Range<usize>) {
    let has_cell = |line: usize| lines[line].len() > column + 1;
    let mut start = range.start;
    while start < range.end {
        if !has_cell(start) {
            start += 1;
            continue;
        }
        let end = (start..range.end).find(|line| !has_cell(*line)).unwrap_or(range.end);
        let width = (start..end).map(|line| lines[line][column].chars().count()).max().unwrap_or(0) + 2;
        widths[start..end].iter_mut().for_each(|widths| widths[column] = width);
        measure(lines, widths, column + 1, start..end);
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_cells_stand_below_each_other() {
        let text = "Name:\tweb\nNamespace:\tdefault\nContainers:\n  a:\n    Image:\tx\n    Id:\ty\n";
        let expected =
            "Name:       web\nNamespace:  default\nContainers:\n  a:\n    Image:  x\n    Id:     y\n";
        assert_eq!(align(text), expected);
    }

    #[test]
    fn inner_columns_are_as_wide_as_their_block() {
        assert_eq!(align("a\tbbbb\tc\nd\te\tf\n"), "a  bbbb  c\nd  e     f\n");
    }
}
